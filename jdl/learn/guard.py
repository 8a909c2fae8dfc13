"""Refuse updates that would bring a non-finite number into a run."""

from functools import reduce
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax

from jdl.core import target, tree
from jdl.core.check import error
from jdl.core.types import Batch, Key, Learner, Mean, Metrics, TrainState
from jdl.learn.transforms import hidden, put, take

SMALL = 2**14
"""Numbers of a leaf, for each member, that is looked at together with others, at most."""


@struct.dataclass
class Refusals:
    """What `guard` counts (int32, one of each per member under `ensemble`)."""

    total: jax.Array
    in_a_row: jax.Array
    first: jax.Array
    """Step of the first refusal of the present row; -1 where there is none."""
    failed: jax.Array
    """That step for the first row that reached `limit`; -1 until one has."""


class Trial(NamedTuple):
    """A guarded step taken apart: the step as if it stood, and what is left where it may not."""

    taken: Learner
    """The inner step. One whose loss or gradient is not finite is counted as refused."""
    refused: Learner
    """No step: its `step(state, like)` goes on and counts a refusal; zeros `like` those metrics."""


def guard(inner: Learner, limit: int = 10) -> Learner:
    """Keep parameters, model state and moments when a step's numbers are not finite.

    A refused step advances `step` and the key, not the optimizer's count; its metrics weigh
    nothing, and `refused` counts it. Every new leaf is looked at, moments too: clipping and
    sign-based optimizers turn an infinite gradient into a finite update. `limit` refusals in a
    row are recorded in `extra["guard"].failed`; `fit` ends such a run, and looks at the leaves once
    for a block of steps (`jdl.learn.blocks`).

    >>> import jdl, optax
    >>> model = jdl.from_linen(jdl.models.MLP(features=(), outputs=1))
    >>> line = jdl.jit(guard(jdl.learner(jdl.regression(model), optax.adam(0.1))))
    >>> batch = {"x": jnp.ones((2, 1)), "y": jnp.full((2, 1), jnp.nan)}
    >>> state = line.init(jax.random.key(0), batch)
    >>> after, metrics = line.step(state, batch)
    >>> int(after.step), int(metrics["refused"].total), float(metrics["loss"].weight)
    (1, 1, 0.0)
    """
    return decided(trial(inner, limit))


def trial(inner: Learner, limit: int = 10) -> Trial:
    """The two learners of which a guard chooses one at each step."""

    def init(key: Key, batch: Batch) -> TrainState:
        state = inner.init(key, batch)
        shape = state.key.shape
        if any(leaf.shape[: len(shape)] != shape for leaf in jax.tree.leaves(state.params)):
            raise error(
                "guard",
                expected=f"parameters with all {shape} members on their leading axes",
                got="a sweep whose members are in groups",
                fix="leave this guard out: a sweep guards each of its members itself",
            )
        none = jnp.full(shape, -1, jnp.int32)
        zero = jnp.zeros(shape, jnp.int32)
        return put(state, "guard", Refusals(zero, zero, none, none))

    def taken(state: TrainState, batch: Batch, *, axis: Any = None) -> tuple[TrainState, Metrics]:
        before, counts = take(state, "guard")
        after, metrics = inner.step(before, batch, axis=axis)
        seen = [jnp.isfinite(metrics[name].total) for name in ("loss", "gradient_norm")]
        counts = _counted(counts, reduce(jnp.logical_and, seen), state.step, limit)
        return put(after, "guard", counts), metrics | {"refused": _refused(counts, 0)}

    def refused(state: TrainState, like: Batch, *, axis: Any = None) -> tuple[TrainState, Metrics]:
        rest, counts = take(state, "guard")
        nothing = jax.tree.map(jnp.zeros_like, like)
        counts = _counted(counts, jnp.zeros(counts.total.shape, bool), state.step, limit)
        after = put(rest.replace(step=rest.step + 1), "guard", counts)
        return after, nothing | {"refused": _refused(counts, 1)}

    whole = hidden(inner, "guard", init, taken)
    return Trial(whole, whole._replace(step=refused))


def decided(tried: Trial) -> Learner:
    """A learner whose steps are taken, or refused where they may not stand."""

    def step(state: TrainState, batch: Batch, *, axis: Any = None) -> tuple[TrainState, Metrics]:
        after, metrics = tried.taken.step(state, batch, axis=axis)
        kept, nothing = tried.refused.step(state, metrics)
        good = may_stand(state, after)
        return chosen(good, after, kept), tree.where(good, metrics, nothing)

    return tried.taken._replace(step=step)


def chosen(mask: jax.Array, yes: TrainState, no: TrainState) -> TrainState:
    """The contents of one state or the other, for each member; step and key are those of `yes`."""
    return yes.replace(**tree.where(mask, _content(yes), _content(no)))


def may_stand(before: TrainState, after: TrainState, small: int = SMALL) -> jax.Array:
    """Whether steps that were taken may stand; one answer for each member.

    No loss and no gradient was counted as refused, and no number has ceased to be finite. Leaves of
    up to `small` numbers are copied to be looked at together: after each step large ones cost more
    time so, and compile in less.
    """
    good = after.extra["guard"].total == before.extra["guard"].total
    was, now = _numbers(before), _numbers(after)
    members = good.ndim

    def are_fine() -> jax.Array:
        return _are_fine(good, _together(was, small, members), _together(now, small, members))

    # Devices that hold members say nothing to each other. A GPU waits for its host at each branch.
    if members > 0 or target.platform() == "gpu":
        return are_fine()
    return lax.cond(_all_finite(good, _together(now, small)), lambda: jnp.array(True), are_fine)


def _content(state: TrainState) -> dict[str, Any]:
    names = ("params", "model_state", "opt_state", "extra")
    return {name: getattr(state, name) for name in names}


def _refused(counts: Refusals, value: int) -> Mean:
    shape = counts.total.shape
    return Mean(jnp.full(shape, value, jnp.int32), jnp.ones(shape, jnp.int32))


def _all_finite(good: jax.Array, leaves: list[jax.Array]) -> jax.Array:
    """Whether `good` holds and every number is finite: 0 times it is then 0, and else NaN.

    A product reads a leaf three times as fast as a reduction to one boolean does on CPU. Each
    product is given the result of the one before, as they would else compete for threads.
    """
    zero = jnp.where(good, 0.0, jnp.nan).astype(jnp.float32)
    for leaf in leaves:
        zeros = jnp.full(leaf.shape[:1], zero.astype(leaf.dtype))
        products = jnp.tensordot(zeros, leaf, min(leaf.ndim, 1))
        zero = products.sum().astype(jnp.float32)
    return zero == 0


def _are_fine(good: jax.Array, before: list[jax.Array], after: list[jax.Array]) -> jax.Array:
    """Whether `good` holds and no number has ceased to be finite, for each member.

    One that was not finite before (a "best so far" that starts at infinity) may stay as it was.
    """
    # In lax: of jax.numpy each operation would be traced as a function, for every shape anew.
    for was, now in zip(before, after, strict=True):
        both_nan = lax.bitwise_and(lax.ne(was, was), lax.ne(now, now))
        fine = lax.bitwise_or(lax.is_finite(now), lax.bitwise_or(lax.eq(was, now), both_nan))
        good = good & lax.reduce_and(fine, range(good.ndim, now.ndim))
    return good


def _numbers(state: TrainState) -> list[jax.Array]:
    """All that must be finite: not the sums of metrics, of which some may be undefined."""
    content = _content(take(state, "window")[0] if "window" in state.extra else state)
    numbers = []
    for leaf in jax.tree.leaves(content):
        if tree.is_key(leaf) or not leaf.size:
            continue
        if jnp.iscomplexobj(leaf):
            numbers += [leaf.real, leaf.imag]
        elif tree.is_float(leaf):
            numbers.append(leaf)
    return numbers


def _together(leaves: list[jax.Array], most: int, members: int = 0) -> list[jax.Array]:
    """The same numbers in fewer leaves on CPU: those of a type that are small stand in one.

    Each leaf that is looked at is two or three kernels, compiled one by one; a transformer has a
    hundred small ones. Elsewhere a leaf may lie on many devices, and would be gathered.
    """
    if target.platform() != "cpu":
        return leaves
    large: list[jax.Array] = []
    small: dict[Any, list[jax.Array]] = {}
    for leaf in leaves:
        if prod(leaf.shape[members:]) > most:
            large.append(leaf)
        else:
            flat = jnp.reshape(leaf, (*leaf.shape[:members], -1))
            small.setdefault(leaf.dtype, []).append(flat)
    return large + [lax.concatenate(several, members) for several in small.values()]


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
