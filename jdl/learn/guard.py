"""Refuse updates that would bring a non-finite number into a run."""

from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jdl.core import tree
from jdl.core.check import error
from jdl.core.types import Batch, Key, Learner, Mean, Metrics, TrainState
from jdl.learn.transforms import hidden, put, take


@struct.dataclass
class Refusals:
    """What `guard` counts (int32, one of each per member under `ensemble`)."""

    total: jax.Array
    in_a_row: jax.Array
    first: jax.Array
    """Step of the first refusal of the present row; -1 where there is none."""
    failed: jax.Array
    """That step for the first row that reached `limit`; -1 until one has."""


def guard(inner: Learner, limit: int = 10) -> Learner:
    """Keep parameters, state and moments when a step's loss, gradient or result is not finite.

    A refused step advances `step` and the key, not the optimizer's count; its metrics weigh
    nothing, and `refused` counts it. Every new leaf is looked at, moments too: clipping and
    sign-based optimizers turn an infinite gradient into a finite update. `limit` refusals in a
    row are recorded in `extra["guard"].failed`; `fit` ends such a run.

    >>> import jdl, optax
    >>> model = jdl.from_linen(jdl.models.MLP(features=(), outputs=1))
    >>> line = jdl.jit(guard(jdl.learner(jdl.regression(model), optax.adam(0.1))))
    >>> batch = {"x": jnp.ones((2, 1)), "y": jnp.full((2, 1), jnp.nan)}
    >>> train = line.init(jax.random.key(0), batch)
    >>> after, metrics = line.step(train, batch)
    >>> int(after.step), int(metrics["refused"].total), float(metrics["loss"].weight)
    (1, 1, 0.0)
    """

    def init(key: Key, batch: Batch) -> TrainState:
        train = inner.init(key, batch)
        shape = train.key.shape
        if any(leaf.shape[: len(shape)] != shape for leaf in jax.tree.leaves(train.params)):
            raise error(
                "guard",
                expected=f"parameters with all {shape} members on their leading axes",
                got="a sweep whose members are in groups",
                fix="leave this guard out: a sweep guards each of its members itself",
            )
        none = jnp.full(shape, -1, jnp.int32)
        zero = jnp.zeros(shape, jnp.int32)
        return put(train, "guard", Refusals(zero, zero, none, none))

    def step(train: TrainState, batch: Batch, *, axis: Any = None) -> tuple[TrainState, Metrics]:
        before, counts = take(train, "guard")
        after, metrics = inner.step(before, batch, axis=axis)
        good = _good(before, after, metrics)
        kept = tree.where(good, _content(after), _content(before))
        counts = _counted(counts, good, train.step, limit)
        zero = jax.tree.map(jnp.zeros_like, metrics)
        refused = Mean(1 - good.astype(jnp.int32), jnp.ones(good.shape, jnp.int32))
        metrics = tree.where(good, metrics, zero) | {"refused": refused}
        return put(after.replace(**kept), "guard", counts), metrics

    return hidden(inner, "guard", init, step)


def _content(train: TrainState) -> dict[str, Any]:
    names = ("params", "state", "opt_state", "extra")
    return {name: getattr(train, name) for name in names}


def _good(before: TrainState, after: TrainState, metrics: Metrics) -> jax.Array:
    """Whether a step may stand; one answer per member where the loss has a member axis."""
    good = reduce(
        jnp.logical_and, [jnp.isfinite(metrics[name].total) for name in ("loss", "gradient_norm")]
    )
    if good.ndim > 0:
        return _may_stand(good, before, after)
    return jax.lax.cond(
        _all_finite(good, after), lambda: jnp.array(True), lambda: _may_stand(good, before, after)
    )


def _all_finite(good: jax.Array, train: TrainState) -> jax.Array:
    """Whether `good` holds and every number is finite: 0 times it is then 0, and else NaN.

    A product reads a leaf three times as fast as a reduction to one boolean does on CPU. Each
    product is given the result of the one before, as they would else compete for threads.
    """
    zero = jnp.where(good, 0.0, jnp.nan).astype(jnp.float32)
    for leaf in _floats(train):
        zeros = jnp.full(leaf.shape[:1], zero.astype(leaf.dtype))
        products = jnp.tensordot(zeros, leaf, min(leaf.ndim, 1))
        zero = products.sum().astype(jnp.float32)
    return zero == 0


def _may_stand(good: jax.Array, before: TrainState, after: TrainState) -> jax.Array:
    """Whether `good` holds and no number has ceased to be finite.

    One that was not finite before the step (a "best so far" that starts at infinity) may stay.
    """
    for was, now in zip(_floats(before), _floats(after), strict=True):
        fine = jnp.isfinite(now) | ~jnp.isfinite(was)
        good = good & jnp.all(fine, axis=tuple(range(good.ndim, now.ndim)))
    return good


def _floats(train: TrainState) -> list[jax.Array]:
    leaves = jax.tree.leaves(_content(train))
    return [leaf for leaf in leaves if not tree.is_key(leaf) and tree.is_float(leaf)]


def _counted(counts: Refusals, good: jax.Array, step: jax.Array, limit: int) -> Refusals:
    in_a_row = jnp.where(good, 0, counts.in_a_row + 1)
    first = jnp.where(in_a_row == 1, step, jnp.where(good, -1, counts.first))
    reached = (in_a_row == limit) & (counts.failed < 0)
    return Refusals(
        total=counts.total + (1 - good.astype(jnp.int32)),
        in_a_row=in_a_row,
        first=first,
        failed=jnp.where(reached, first, counts.failed),
    )
