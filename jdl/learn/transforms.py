"""Learner -> Learner: compile, repeat, feed from the device."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jdl.core.types import Batch, Key, Learner, Metrics, TrainState


def jit(inner: Learner, donate: bool = False) -> Learner:
    """Compile every function of a learner.

    `donate` lets `step` reuse the memory of the state it is given, which is gone afterwards.

    >>> import jdl, optax
    >>> model = jdl.from_linen(jdl.models.MLP(features=(), outputs=1))
    >>> compiled = jdl.jit(jdl.learner(jdl.regression(model), optax.sgd(0.1)))
    >>> batch = {"x": jnp.ones((2, 1)), "y": jnp.ones((2, 1))}
    >>> state, metrics = compiled.step(compiled.init(jax.random.key(0), batch), batch)
    >>> int(state.step)
    1
    """
    return inner._replace(
        init=jax.jit(inner.init),
        step=jax.jit(inner.step, static_argnames="axis", donate_argnums=(0,) if donate else ()),
        evaluate=jax.jit(inner.evaluate),
        predict=jax.jit(inner.predict),
        gradient=inner.gradient and jax.jit(inner.gradient, static_argnames="axis"),
    )


def resident(inner: Learner, order: Callable[..., jax.Array], batch_size: int) -> Learner:
    """Give `step` the whole set; it gathers its own batch, chosen by `state.step`.

    `order(step, batch_size) -> indices`, such as `jdl.data.Order(n, seed)`. The set is an argument
    of the compiled program, not a constant inside it. Evaluation and prediction take batches.
    """

    def gather(state: TrainState, data: Batch) -> Batch:
        rows = order(state.step, batch_size)
        return separate(jax.tree.map(lambda x: jnp.take(x, rows, axis=0), data))

    def init(key: Key, data: Batch) -> TrainState:
        return inner.init(key, jax.tree.map(lambda x: x[:batch_size], data))

    return feed_from(inner, gather)._replace(init=init)


def feed_from(inner: Learner, batch_of: Callable[[TrainState, Any], Batch]) -> Learner:
    """A learner whose steps take `data`, of which `batch_of(state, data)` is their batch.

    `init`, `evaluate` and `predict` take batches, as before.
    """

    def step(state: TrainState, data: Any, *, axis: Any = None) -> tuple[TrainState, Metrics]:
        return inner.step(state, batch_of(state, data), axis=axis)

    def gradient(state: TrainState, data: Any, *, axis: Any = None) -> Any:
        return inner.gradient(state, batch_of(state, data), axis=axis)  # type: ignore

    return inner._replace(step=step, gradient=inner.gradient and gradient)


def separate(batch: Batch) -> Batch:
    """Keep the program of a step the same wherever its batch came from.

    XLA would else fuse what gathers a batch into the step, which then differs in the last bits.
    """
    return jax.lax.optimization_barrier(batch)


def loop(inner: Learner) -> Learner:
    """Run `n` steps in one dispatch: `step(state, batch, n) -> (state, metrics of the last step)`.

    `n` is traced, so one executable serves every number of steps, and a run has the same bits
    however it is cut into dispatches. Put `resident` inside, or each step sees the same batch, and
    `window` inside to get the sum of the metrics.
    """

    def step(
        state: TrainState, batch: Batch, n: Any = 1, *, axis: Any = None
    ) -> tuple[TrainState, Metrics]:
        def body(_: Any, carry: Any) -> Any:
            state, _ = carry
            return inner.step(state, batch, axis=axis)

        shapes = jax.eval_shape(lambda s: inner.step(s, batch, axis=axis)[1], state)
        nothing = jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), shapes)
        return jax.lax.fori_loop(0, n, body, (state, nothing))

    return inner._replace(step=step)
