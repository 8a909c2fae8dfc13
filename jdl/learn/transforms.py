"""Learner -> Learner: compile, repeat, feed from the device, average.

Each maps all four functions, owns one entry of `TrainState.extra`, takes it out before it calls the
inner step and puts it back after.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jdl.core import tree
from jdl.core.alone import is_alone
from jdl.core.types import Batch, Key, Learner, Metrics, PyTree, TrainState


def jit(inner: Learner, donate: bool = False) -> Learner:
    """Compile all four functions.

    `donate` lets `step` reuse the memory of the state it is given, which is gone afterwards.
    """
    given = (0,) if donate else ()
    return Learner(
        jax.jit(inner.init),
        jax.jit(inner.step, static_argnames="axis", donate_argnums=given),
        jax.jit(inner.evaluate),
        jax.jit(inner.predict),
    )


def resident(inner: Learner, order: Callable[..., jax.Array], batch_size: int) -> Learner:
    """Give `step` the whole set; it gathers its own batch, chosen by `state.step`.

    `order(step, batch_size) -> indices`, such as `jdl.data.Order(n, seed)`. The set is an argument
    of the compiled program, not a constant inside it. Evaluation and prediction take batches.
    """

    def step(state: TrainState, data: Batch, *, axis: Any = None) -> tuple[TrainState, Metrics]:
        batch = _gathered(data, order(state.step, batch_size))
        return inner.step(state, _apart(batch), axis=axis)

    def init(key: Key, data: Batch) -> TrainState:
        return inner.init(key, jax.tree.map(lambda x: x[:batch_size], data))

    return inner._replace(init=init, step=step)


def tabled(inner: Learner) -> Learner:
    """As `resident`, where the rows of several batches were found beforehand.

    Data are `{"first": step, "rows": [k, B], "set": ...}`: of the set, row i of the table is the
    batch of step first + i. Finding a place in an order takes a loop of unknown length, at each
    turn of which a GPU waits for its host; a table serves many steps.
    """

    def step(state: TrainState, data: Batch, *, axis: Any = None) -> tuple[TrainState, Metrics]:
        batch = _gathered(data["set"], data["rows"][state.step - data["first"]])
        return inner.step(state, _apart(batch), axis=axis)

    def init(key: Key, data: Batch) -> TrainState:
        return inner.init(key, _gathered(data["set"], data["rows"][0]))

    return inner._replace(init=init, step=step)


def stacked(inner: Learner) -> Learner:
    """Give `step` several batches, `{"first": step of the first one, "stack": [k, B, ...]}`.

    It takes the one whose turn it is by `state.step`. Evaluation and prediction take batches.
    """

    def step(state: TrainState, data: Batch, *, axis: Any = None) -> tuple[TrainState, Metrics]:
        batch = jax.tree.map(lambda x: x[state.step - data["first"]], data["stack"])
        return inner.step(state, _apart(batch), axis=axis)

    def init(key: Key, data: Batch) -> TrainState:
        return inner.init(key, jax.tree.map(lambda x: x[0], data["stack"]))

    return inner._replace(init=init, step=step)


def _gathered(data: Batch, rows: jax.Array) -> Batch:
    return jax.tree.map(lambda x: jnp.take(x, rows, axis=0), data)


def _apart(batch: Batch) -> Batch:
    """Keeps the step's own program the same wherever its batch came from.

    One that was gathered beside it would else be fused into it, and differ in the last bits.
    """
    return jax.lax.optimization_barrier(batch)


def traced_once(inner: Learner) -> Learner:
    """The same learner; Python runs through its `init` and `step` once for each kind of inputs.

    A run needs the shapes of both before it compiles them. What was traced is put in place as it
    is, so that the compiled program is the same. A program without a loop around the step may be
    traced in another form, so a step that is promised to be alone is traced apart.
    """

    def step(state: TrainState, batch: Batch, *, axis: Any = None) -> tuple[TrainState, Metrics]:
        return traced[is_alone()](state, batch, axis=axis)

    def lone_step(
        state: TrainState, batch: Batch, *, axis: Any = None
    ) -> tuple[TrainState, Metrics]:
        return inner.step(state, batch, axis=axis)  # another function: JAX knows traces by it

    options: Any = {"static_argnames": "axis", "inline": True}
    traced = {False: jax.jit(inner.step, **options), True: jax.jit(lone_step, **options)}
    return inner._replace(init=jax.jit(inner.init, inline=True), step=step)


def window(inner: Learner, every: int) -> Learner:
    """Add metrics up on the device; the sum starts anew after each multiple of `every` steps.

    `step` returns the sum since the last such multiple. It belongs to the state, in float32 and in
    the order of the steps, so that cutting a run into pieces does not change a bit of it.
    """

    def init(key: Key, batch: Batch) -> TrainState:
        state = inner.init(key, batch)
        _, metrics = jax.eval_shape(inner.step, state, batch)
        zero = jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), metrics)
        return put(state, "window", zero)

    def step(state: TrainState, batch: Batch, *, axis: Any = None) -> tuple[TrainState, Metrics]:
        state, so_far = take(state, "window")
        fresh = jax.lax.rem(state.step, state.step.dtype.type(every)) == 0
        so_far = tree.where(fresh, jax.tree.map(jnp.zeros_like, so_far), so_far)
        state, metrics = inner.step(state, batch, axis=axis)
        total = tree.add(so_far, metrics)
        return put(state, "window", total), total

    return hidden(inner, "window", init, step)


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

        shapes = jax.eval_shape(lambda t: inner.step(t, batch, axis=axis)[1], state)
        nothing = jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), shapes)
        return jax.lax.fori_loop(0, n, body, (state, nothing))

    return inner._replace(step=step)


def ema(inner: Learner, decay: float) -> Learner:
    r"""Evaluate and predict with an exponential moving average of the weights.

    $a_t = a_{t-1} + \frac{1 - d}{1 - d^t} (w_t - a_{t-1})$: weights $d^{t-k}$ over the steps taken,
    summing to one from the first step on. Floating model state (batch statistics) is averaged with
    them (Polyak & Juditsky 1992; the correction is that of Kingma & Ba 2015).
    """

    def init(key: Key, batch: Batch) -> TrainState:
        state = inner.init(key, batch)
        averaged, members = (state.params, state.model_state), state.key.ndim
        # One for each member of each leaf: the groups of a sweep have members of their own.
        count = jax.tree.map(lambda x: jnp.zeros(x.shape[:members], jnp.int32), averaged)
        # Copies: the average must not share buffers with weights that a step donates.
        average = jax.tree.map(jnp.copy, averaged)
        return put(state, "ema", {"count": count, "average": average})

    def step(state: TrainState, batch: Batch, *, axis: Any = None) -> tuple[TrainState, Metrics]:
        state, memory = take(state, "ema")
        state, metrics = inner.step(state, batch, axis=axis)
        count = jax.tree.map(lambda c: c + 1, memory["count"])

        def move(count: Any, average: Any, new: Any) -> Any:
            if not tree.is_float(new):
                return new
            # Not 1 - d ** t, which loses its digits when d is close to 1.
            rate = (1 - decay) / -jnp.expm1(count * jnp.log1p(-(1 - decay)))
            per_leaf = rate.reshape(rate.shape + (1,) * (new.ndim - rate.ndim))
            return (average + per_leaf * (new - average)).astype(new.dtype)

        average = jax.tree.map(move, count, memory["average"], (state.params, state.model_state))
        return put(state, "ema", {"count": count, "average": average}), metrics

    def averaged(state: TrainState) -> TrainState:
        state, memory = take(state, "ema")
        params, model_state = memory["average"]
        return state.replace(params=params, model_state=model_state)

    return Learner(
        init,
        step,
        lambda state, batch: inner.evaluate(averaged(state), batch),
        lambda state, batch: inner.predict(averaged(state), batch),
    )


def take(state: TrainState, name: str) -> tuple[TrainState, PyTree]:
    """A transform's entry of `extra`, and the state without it."""
    rest = {key: value for key, value in state.extra.items() if key != name}
    return state.replace(extra=rest), state.extra[name]


def put(state: TrainState, name: str, value: PyTree) -> TrainState:
    """The state with a transform's entry in `extra`."""
    return state.replace(extra=state.extra | {name: value})


def hidden(inner: Learner, name: str, init: Any, step: Any) -> Learner:
    """The learner whose evaluation and prediction do not see this transform's entry."""
    return Learner(
        init,
        step,
        lambda state, batch: inner.evaluate(take(state, name)[0], batch),
        lambda state, batch: inner.predict(take(state, name)[0], batch),
    )
