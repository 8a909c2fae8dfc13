"""Learner -> Learner: compile the functions, run many steps in one dispatch, gather batches."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jdl.core.errors import check_count
from jdl.core.nouns import check_learner
from jdl.core.types import Axis, Batch, GradsAndAux, Key, Learner, Metrics, PyTree, TrainState


def jit(inner: Learner, donate: bool = False) -> Learner:
    """Compile every function of a learner with `jax.jit`.

    With `donate=True`, `step` reuses the memory of its input state, which is deleted.

    Raises `InputError` unless `inner` is a `Learner`.

    >>> import jdl, optax
    >>> model = jdl.from_linen(jdl.models.MLP(features=(), outputs=1))
    >>> compiled = jdl.jit(jdl.learner(jdl.regression(model), optax.sgd(0.1)))
    >>> batch = {"x": jnp.ones((2, 1)), "y": jnp.ones((2, 1))}
    >>> state, metrics = compiled.step(compiled.init(jax.random.key(0), batch), batch)
    >>> int(state.step)
    1
    """
    check_learner(inner, "jit: inner")
    return inner._replace(
        init=jax.jit(inner.init),
        step=jax.jit(inner.step, static_argnames="axis", donate_argnums=(0,) if donate else ()),
        evaluate=jax.jit(inner.evaluate),
        predict=jax.jit(inner.predict),
        gradient=inner.gradient and jax.jit(inner.gradient, static_argnames="axis"),
    )


def resident(
    inner: Learner, order: Callable[[jax.Array, int], jax.Array], batch_size: int
) -> Learner:
    """Pass the whole data set to `step`, which gathers its own batch on the device.

    The set is a dict of arrays (examples, ...), an argument of the compiled program rather than a
    constant in it. `order(step, batch_size)` returns the indices (batch_size,) of the batch, such
    as `jdl.data.Order(n, seed)`. `evaluate` and `predict` still take batches. Raises `InputError`
    unless `batch_size` is an integer of at least 1.

    >>> import jdl, optax
    >>> model = jdl.from_linen(jdl.models.MLP(features=(), outputs=1))
    >>> line = jdl.learner(jdl.regression(model), optax.sgd(0.1))
    >>> line = jdl.jit(resident(line, jdl.data.Order(10, seed=0), batch_size=4))
    >>> data = {"x": jnp.ones((10, 1)), "y": jnp.ones((10, 1))}
    >>> state, metrics = line.step(line.init(jax.random.key(0), data), data)
    >>> print(metrics["loss"].weight)
    4.0
    """

    check_count("resident: batch_size", batch_size)

    def gather(state: TrainState, data: Batch) -> Batch:
        rows = order(state.step, batch_size)
        return separate(jax.tree.map(lambda x: jnp.take(x, rows, axis=0), data))

    def init(key: Key, data: Batch) -> TrainState:
        return inner.init(key, jax.tree.map(lambda x: x[:batch_size], data))

    return feed_from(inner, gather)._replace(init=init)


def feed_from(inner: Learner, batch_of: Callable[[TrainState, PyTree], Batch]) -> Learner:
    """Let `step` and `gradient` take `data`, and train on the batch `batch_of(state, data)`.

    `data` is any pytree of arrays. `init`, `evaluate` and `predict` still take batches.

    >>> import jdl, optax
    >>> model = jdl.from_linen(jdl.models.MLP(features=(), outputs=1))
    >>> line = jdl.learner(jdl.regression(model), optax.sgd(0.1))
    >>> line = jdl.jit(feed_from(line, lambda state, x: {"x": x, "y": 2 * x}))
    >>> x = jnp.ones((4, 1))
    >>> state, metrics = line.step(line.init(jax.random.key(0), {"x": x, "y": x}), x)
    >>> print(metrics["loss"].weight)
    4.0
    """

    def step(state: TrainState, data: PyTree, *, axis: Axis = None) -> tuple[TrainState, Metrics]:
        return inner.step(state, batch_of(state, data), axis=axis)

    def gradient(state: TrainState, data: PyTree, *, axis: Axis = None) -> GradsAndAux:
        return inner.gradient(state, batch_of(state, data), axis=axis)  # type: ignore

    return inner._replace(step=step, gradient=inner.gradient and gradient)


def separate(batch: Batch) -> Batch:
    """Keep XLA from fusing the code that gathers a batch into the step.

    A fused step would differ in the last bits from one whose batch is an argument. The arrays and
    their shapes stay the same.

    >>> separate({"x": jnp.ones((2, 1))})["x"].shape
    (2, 1)
    """
    return jax.lax.optimization_barrier(batch)


def loop(inner: Learner) -> Learner:
    """Run `n` steps in one dispatch: `step(state, batch, n) -> (state, metrics of the last step)`.

    `n`, an int32 scalar, is traced: one program runs any number of steps, and a run has the same
    bits however it is split into dispatches. Every step sees the same batch unless you put
    `resident` inside. Put `window` inside to sum the metrics over the steps.

    >>> import jdl, optax
    >>> model = jdl.from_linen(jdl.models.MLP(features=(), outputs=1))
    >>> line = jdl.jit(loop(jdl.learner(jdl.regression(model), optax.sgd(0.1))))
    >>> batch = {"x": jnp.ones((4, 1)), "y": jnp.ones((4, 1))}
    >>> state, metrics = line.step(line.init(jax.random.key(0), batch), batch, 5)
    >>> int(state.step)
    5
    """

    def step(
        state: TrainState, batch: Batch, n: Any = 1, *, axis: Axis = None
    ) -> tuple[TrainState, Metrics]:
        def body(_: Any, carry: Any) -> Any:
            state, _ = carry
            return inner.step(state, batch, axis=axis)

        shapes = jax.eval_shape(lambda s: inner.step(s, batch, axis=axis)[1], state)
        no_metrics = jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), shapes)
        return jax.lax.fori_loop(0, n, body, (state, no_metrics))

    return inner._replace(step=step)
