"""Learner -> Learner: skip updates that are not finite."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jdl.core import tree
from jdl.core.errors import check_count
from jdl.core.finite import still_finite
from jdl.core.nouns import check_learner
from jdl.core.types import Axis, Batch, Key, Learner, Mean, Metrics, PyTree, TrainState
from jdl.learn.extra import below, drop_records, find_records, inner_state
from jdl.learn.window import WindowState


@struct.dataclass
class GuardState:
    """What `guard` counts, each int32 with one entry per member."""

    skipped: jax.Array
    """All skipped steps."""
    consecutive: jax.Array
    """Skipped steps since the last good one."""
    first: jax.Array
    """The first of these consecutive skipped steps; -1 if the last step was good."""
    failed: jax.Array
    """`first` at the time when `consecutive` first reached the limit; -1 before."""
    inner: PyTree

    def count(self, good: jax.Array, step: jax.Array, limit: int) -> "GuardState":
        """The counts after one more step, which was good or is skipped."""
        consecutive = jnp.where(good, 0, self.consecutive + 1)
        first = jnp.where(consecutive == 1, step, jnp.where(good, -1, self.first))
        failed = jnp.where((consecutive == limit) & (self.failed < 0), first, self.failed)
        skipped = self.skipped + (1 - good.astype(jnp.int32))
        return GuardState(skipped, consecutive, first, failed, self.inner)


def guard(inner: Learner, limit: int = 10) -> Learner:
    """Skip an update if the loss, the gradient or any new value is not finite.

    A skipped step keeps parameters, model state and optimizer state. It advances `step`, its
    metrics have weight zero, and the metric `skipped` counts it. Loss and gradient are checked as
    well as the new values, because clipping and sign-based optimizers turn an infinite gradient
    into a finite update. After `limit` consecutive skipped steps `GuardState.failed` holds the
    first of them, and `fit` ends the run. Members of an `ensemble` inside skip separately: the
    counts have the shape (members,).

    Raises `InputError` unless `inner` is a `Learner` and `limit` an integer of at least 1.

    >>> import jdl, optax
    >>> model = jdl.from_linen(jdl.models.MLP(features=(), outputs=1))
    >>> line = jdl.jit(guard(jdl.learner(jdl.regression(model), optax.adam(0.1))))
    >>> batch = {"x": jnp.ones((2, 1)), "y": jnp.full((2, 1), jnp.nan)}
    >>> state, metrics = line.step(line.init(jax.random.key(0), batch), batch)
    >>> int(state.step), int(metrics["skipped"].total), float(metrics["loss"].weight)
    (1, 1, 0.0)
    """
    check_learner(inner, "guard: inner")
    check_count("guard: limit", limit)
    counted = count_invalid(inner, limit)

    def step(state: TrainState, batch: Batch, *, axis: Axis = None) -> tuple[TrainState, Metrics]:
        after, metrics = counted.step(state, batch, axis=axis)
        skipped, no_metrics = skip_step(state, metrics, limit)
        skipped = skipped.replace(step=after.step, key=after.key)
        good = is_valid_update(state, after)
        return tree.where(good, after, skipped), tree.where(good, metrics, no_metrics)

    return counted._replace(step=step)


def count_invalid(inner: Learner, limit: int) -> Learner:
    """Count steps with a non-finite loss or gradient, without skipping them."""

    def init(key: Key, batch: Batch) -> TrainState:
        state = inner.init(key, batch)
        zero, none = (jnp.full(state.members, value, jnp.int32) for value in (0, -1))
        return state.replace(extra=GuardState(zero, zero, none, none, state.extra))

    def step(state: TrainState, batch: Batch, *, axis: Axis = None) -> tuple[TrainState, Metrics]:
        after, metrics = inner.step(inner_state(state), batch, axis=axis)
        good = jnp.isfinite(metrics["loss"].total) & jnp.isfinite(metrics["gradient_norm"].total)
        counts = state.extra.count(good, state.step, limit).replace(inner=after.extra)
        zero = jnp.zeros_like(counts.skipped)
        return after.replace(extra=counts), metrics | {"skipped": Mean(zero, zero + 1)}

    return below(inner)._replace(init=init, step=step)


def skip_step(state: TrainState, like: Metrics, limit: int) -> tuple[TrainState, Metrics]:
    """The state after a skipped step, and metrics of weight zero, `like` those of a step."""
    counts = state.extra.count(jnp.zeros(state.members, bool), state.step, limit)
    one = jnp.ones_like(counts.skipped)
    metrics = jax.tree.map(jnp.zeros_like, like) | {"skipped": Mean(one, one)}
    return state.replace(step=state.step + 1, extra=counts), metrics


def is_valid_update(before: TrainState, after: TrainState, **options: Any) -> jax.Array:
    """Whether each member's steps from `before` to `after` are good; options of `still_finite`."""

    def values(state: TrainState) -> PyTree:  # without sums of metrics, which may be nan
        extra = drop_records(state.extra, WindowState)
        return state.params, state.model_state, state.opt_state, extra

    skipped = (find_records(state.extra, GuardState)[0].skipped for state in (before, after))
    return still_finite(jnp.equal(*skipped), values(before), values(after), **options)
