"""Learner -> Learner: an exponential moving average of the weights."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.core import Tracer

from jdl.core import tree
from jdl.core.errors import error
from jdl.core.nouns import check_learner
from jdl.core.types import Axis, Batch, Key, Learner, Metrics, PyTree, TrainState
from jdl.learn.extra import evaluate_with_own_weights, evaluation_weights, inner_state


@struct.dataclass
class EmaState:
    """The average, and the number of steps in it."""

    count: PyTree
    """int32, one per leaf of the average, because groups of a sweep differ in their members."""
    weights: PyTree
    """The average, in float32 or wider: a bfloat16 one would stop short of its limit."""
    inner: PyTree


def ema(inner: Learner, decay: float) -> Learner:
    r"""Evaluate and predict with an exponential moving average of the weights.

    $a_t = a_{t-1} + \frac{1 - d}{1 - d^t} (w_t - a_{t-1})$ with the decay $d$: step $k$ has a
    weight proportional to $d^{t-k}$, and the weights sum to one from the first step on.
    Floating-point model state, such as batch statistics, is averaged with the parameters. The
    average is over the weights that `inner` evaluates with: its average if `inner` is an `ema`, its
    best weights if it is a `keep_best`. It is kept in float32 or wider.

    Raises `InputError` unless `inner` is a `Learner`, and for a `decay` outside [0, 1).

    >>> import jdl, optax
    >>> model = jdl.from_linen(jdl.models.MLP(features=(), outputs=1))
    >>> line = jdl.jit(ema(jdl.learner(jdl.regression(model), optax.sgd(0.1)), decay=0.9))
    >>> batch = {"x": jnp.ones((2, 1)), "y": jnp.ones((2, 1))}
    >>> state, _ = line.step(line.init(jax.random.key(0), batch), batch)
    >>> params, _ = state.extra.weights  # after one step the average is that step's weights
    >>> bool((params["output"]["kernel"] == state.params["output"]["kernel"]).all())
    True

    Polyak and Juditsky 1992, "Acceleration of stochastic approximation by averaging"; the bias
    correction is from Kingma and Ba 2015, "Adam".
    """
    check_learner(inner, "ema: inner")
    _check_decay(decay)

    def init(key: Key, batch: Batch) -> TrainState:
        state = inner.init(key, batch)
        # Copies, because a donated step would delete buffers that the average shares.
        weights = jax.tree.map(_wide_copy, evaluation_weights(state))
        axes = len(state.members)
        count = jax.tree.map(lambda x: jnp.zeros(x.shape[:axes], jnp.int32), weights)
        return state.replace(extra=EmaState(count, weights, state.extra))

    def step(state: TrainState, batch: Batch, *, axis: Axis = None) -> tuple[TrainState, Metrics]:
        before: EmaState = state.extra
        state, metrics = inner.step(inner_state(state), batch, axis=axis)
        count = jax.tree.map(lambda c: c + 1, before.count)

        def move(count: jax.Array, average: jax.Array, new: jax.Array) -> jax.Array:
            if not tree.is_float(new):
                return new
            # expm1 and log1p, because 1 - d ** t loses its digits when d is close to 1.
            rate = (1 - decay) / -jnp.expm1(count * jnp.log1p(-(1 - decay)))
            per_leaf = rate.reshape(rate.shape + (1,) * (new.ndim - rate.ndim))
            return (average + per_leaf * (new - average)).astype(average.dtype)

        average = jax.tree.map(move, count, before.weights, evaluation_weights(state))
        return state.replace(extra=EmaState(count, average, state.extra)), metrics

    return evaluate_with_own_weights(inner)._replace(init=init, step=step)


def _wide_copy(leaf: jax.Array) -> jax.Array:
    is_float = tree.is_float(leaf)
    return jnp.array(leaf, jnp.promote_types(leaf.dtype, jnp.float32) if is_float else None)


def _check_decay(decay: Any) -> None:
    if not isinstance(decay, Tracer) and not 0 <= decay < 1:
        raise error(
            "ema: decay",
            expected="a number of at least 0 and below 1",
            got=repr(decay),
            fix="choose 0.99 to 0.9999, as is usual",
        )
