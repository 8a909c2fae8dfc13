"""Learner -> Learner: skip updates that would bring a value that is not finite into a run."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jdl.core import tree
from jdl.core.finite import still_finite
from jdl.core.types import Batch, Key, Learner, Mean, Metrics, PyTree, TrainState
from jdl.learn.extra import below, drop_records, find_records, inner_state
from jdl.learn.window import WindowState


@struct.dataclass
class GuardState:
    """What `guard` counts: int32, one of each a member."""

    skipped: jax.Array
    consecutive: jax.Array
    first: jax.Array
    """Step of the first skip of the present row of them; -1 where there is none."""
    failed: jax.Array
    """That step for the first row that reached `limit`; -1 until one has."""
    inner: PyTree

    def count(self, good: jax.Array, step: jax.Array, limit: int) -> "GuardState":
        """The counts after one more step."""
        consecutive = jnp.where(good, 0, self.consecutive + 1)
        first = jnp.where(consecutive == 1, step, jnp.where(good, -1, self.first))
        failed = jnp.where((consecutive == limit) & (self.failed < 0), first, self.failed)
        skipped = self.skipped + (1 - good.astype(jnp.int32))
        return GuardState(skipped, consecutive, first, failed, self.inner)


def guard(inner: Learner, limit: int = 10) -> Learner:
    """Keep parameters, model state and moments when a step's result is not finite.

    A skipped step advances `step` and the key, not the optimizer's count; its metrics weigh
    nothing, and `skipped` counts it. Loss, gradient and every new leaf are checked, moments too:
    clipping and sign-based optimizers turn an infinite gradient into a finite update. `limit`
    skipped steps in a row are recorded in `GuardState.failed`; `fit` ends such a run.

    >>> import jdl, optax
    >>> model = jdl.from_linen(jdl.models.MLP(features=(), outputs=1))
    >>> line = jdl.jit(guard(jdl.learner(jdl.regression(model), optax.adam(0.1))))
    >>> batch = {"x": jnp.ones((2, 1)), "y": jnp.full((2, 1), jnp.nan)}
    >>> state, metrics = line.step(line.init(jax.random.key(0), batch), batch)
    >>> int(state.step), int(metrics["skipped"].total), float(metrics["loss"].weight)
    (1, 1, 0.0)
    """
    counted = count_invalid(inner, limit)

    def step(state: TrainState, batch: Batch, *, axis: Any = None) -> tuple[TrainState, Metrics]:
        after, metrics = counted.step(state, batch, axis=axis)
        kept, nothing = skip_step(state, metrics, limit)
        good = is_valid_update(state, after)
        kept = kept.replace(step=after.step, key=after.key)
        return tree.where(good, after, kept), tree.where(good, metrics, nothing)

    return counted._replace(step=step)


def count_invalid(inner: Learner, limit: int) -> Learner:
    """The steps of `inner`, whatever comes of them, and a count of invalid losses and gradients."""

    def init(key: Key, batch: Batch) -> TrainState:
        state = inner.init(key, batch)
        zero, none = (jnp.full(state.members, value, jnp.int32) for value in (0, -1))
        return state.replace(extra=GuardState(zero, zero, none, none, state.extra))

    def step(state: TrainState, batch: Batch, *, axis: Any = None) -> tuple[TrainState, Metrics]:
        after, metrics = inner.step(inner_state(state), batch, axis=axis)
        good = jnp.isfinite(metrics["loss"].total) & jnp.isfinite(metrics["gradient_norm"].total)
        counts = state.extra.count(good, state.step, limit).replace(inner=after.extra)
        zero = jnp.zeros_like(counts.skipped)
        return after.replace(extra=counts), metrics | {"skipped": Mean(zero, zero + 1)}

    return below(inner)._replace(init=init, step=step)


def skip_step(state: TrainState, like: Metrics, limit: int) -> tuple[TrainState, Metrics]:
    """Change step and counts alone; the metrics are zeros `like` those of a step."""
    counts = state.extra.count(jnp.zeros(state.members, bool), state.step, limit)
    one = jnp.ones_like(counts.skipped)
    metrics = jax.tree.map(jnp.zeros_like, like) | {"skipped": Mean(one, one)}
    return state.replace(step=state.step + 1, extra=counts), metrics


def is_valid_update(before: TrainState, after: TrainState, **how: Any) -> jax.Array:
    """Whether steps that were taken may stand, for each member; `how` as in `still_finite`."""

    def values(state: TrainState) -> PyTree:  # sums of metrics may be undefined
        extra = drop_records(state.extra, WindowState)
        return state.params, state.model_state, state.opt_state, extra

    skipped = (find_records(state.extra, GuardState)[0].skipped for state in (before, after))
    return still_finite(jnp.equal(*skipped), values(before), values(after), **how)
