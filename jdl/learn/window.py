"""Learner -> Learner: metrics summed on the device."""

import jax
import jax.numpy as jnp
from flax import struct

from jdl.core import tree
from jdl.core.errors import check_count
from jdl.core.nouns import check_learner
from jdl.core.types import Axis, Batch, Key, Learner, Metrics, PyTree, TrainState
from jdl.learn.extra import below, inner_state
from jdl.learn.training_metrics import refuse_samples, summable


@struct.dataclass
class WindowState:
    """The sums of the metrics since the last multiple of `every` steps."""

    sums: Metrics
    inner: PyTree


def window(inner: Learner, every: int) -> Learner:
    """Sum metrics on the device over windows of `every` steps.

    `step` returns the sums since the last multiple of `every` steps. They are part of the state and
    are added in the order of the steps, so splitting a run into dispatches does not change a bit of
    them. Sums have the shapes of the metrics and are floats of at least 32 bits. `fit` applies this
    by itself. `init` raises `InputError` if the metrics of `inner.step` hold `Samples`, which do
    not add up.

    Raises `InputError` unless `inner` is a `Learner` and `every` an integer of at least 1.

    >>> import jdl, optax
    >>> model = jdl.from_linen(jdl.models.MLP(features=(), outputs=1))
    >>> line = jdl.jit(window(jdl.learner(jdl.regression(model), optax.sgd(0.1)), every=2))
    >>> batch = {"x": jnp.ones((4, 1)), "y": jnp.ones((4, 1))}
    >>> state = line.init(jax.random.key(0), batch)
    >>> for _ in range(3):  # the weight counts examples
    ...     state, metrics = line.step(state, batch)
    ...     print(metrics["loss"].weight)
    4.0
    8.0
    4.0
    """
    check_learner(inner, "window: inner")
    check_count("window: every", every)

    def init(key: Key, batch: Batch) -> TrainState:
        state = inner.init(key, batch)
        _, metrics = jax.eval_shape(inner.step, state, batch)
        refuse_samples(metrics)
        sums = jax.eval_shape(summable, metrics)
        zero = jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), sums)
        return state.replace(extra=WindowState(zero, state.extra))

    def step(state: TrainState, batch: Batch, *, axis: Axis = None) -> tuple[TrainState, Metrics]:
        is_new = jax.lax.rem(state.step, state.step.dtype.type(every)) == 0
        before = state.extra.sums
        before = tree.where(is_new, jax.tree.map(jnp.zeros_like, before), before)
        state, metrics = inner.step(inner_state(state), batch, axis=axis)
        sums = tree.add(before, summable(metrics))
        return state.replace(extra=WindowState(sums, state.extra)), sums

    return below(inner)._replace(init=init, step=step)
