"""Learner -> Learner: metrics summed on the device."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jdl.core import tree
from jdl.core.types import Batch, Key, Learner, Metrics, PyTree, TrainState
from jdl.learn.extra import below, inner_state


@struct.dataclass
class WindowState:
    """The sum of the metrics since the last multiple of `every` steps."""

    sums: Metrics
    inner: PyTree


def window(inner: Learner, every: int) -> Learner:
    """Add metrics up on the device; the sum starts anew after each multiple of `every` steps.

    `step` returns the sum since the last such multiple. It belongs to the state, in float32 and in
    the order of the steps, so that cutting a run into pieces does not change a bit of it. `fit`
    does this by itself; a window around a window adds up running sums.
    """

    def init(key: Key, batch: Batch) -> TrainState:
        state = inner.init(key, batch)
        _, metrics = jax.eval_shape(inner.step, state, batch)
        zero = jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), metrics)
        return state.replace(extra=WindowState(zero, state.extra))

    def step(state: TrainState, batch: Batch, *, axis: Any = None) -> tuple[TrainState, Metrics]:
        is_new = jax.lax.rem(state.step, state.step.dtype.type(every)) == 0
        before = state.extra.sums
        before = tree.where(is_new, jax.tree.map(jnp.zeros_like, before), before)
        state, metrics = inner.step(inner_state(state), batch, axis=axis)
        sums = tree.add(before, metrics)
        return state.replace(extra=WindowState(sums, state.extra)), sums

    return below(inner)._replace(init=init, step=step)
