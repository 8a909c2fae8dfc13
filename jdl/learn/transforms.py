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
    """Give `step` the whole set; it gathers its own batch, chosen by `train.step`.

    `order(step, batch_size) -> indices`, such as `jdl.data.Order(n, seed)`. The set is an argument
    of the compiled program, not a constant inside it. Evaluation and prediction take batches.
    """

    def step(train: TrainState, data: Batch, *, axis: Any = None) -> tuple[TrainState, Metrics]:
        batch = _gathered(data, order(train.step, batch_size))
        return inner.step(train, _apart(batch), axis=axis)

    def init(key: Key, data: Batch) -> TrainState:
        return inner.init(key, jax.tree.map(lambda x: x[:batch_size], data))

    return inner._replace(init=init, step=step)


def tabled(inner: Learner) -> Learner:
    """As `resident`, where the rows of several batches were found beforehand.

    Data are `{"first": step, "rows": [k, B], "set": ...}`: of the set, row i of the table is the
    batch of step first + i. Finding a place in an order takes a loop of unknown length, at each
    turn of which a GPU waits for its host; a table serves many steps.
    """

    def step(train: TrainState, data: Batch, *, axis: Any = None) -> tuple[TrainState, Metrics]:
        batch = _gathered(data["set"], data["rows"][train.step - data["first"]])
        return inner.step(train, _apart(batch), axis=axis)

    def init(key: Key, data: Batch) -> TrainState:
        return inner.init(key, _gathered(data["set"], data["rows"][0]))

    return inner._replace(init=init, step=step)


def stacked(inner: Learner) -> Learner:
    """Give `step` several batches, `{"first": step of the first one, "stack": [k, B, ...]}`.

    It takes the one whose turn it is by `train.step`. Evaluation and prediction take batches.
    """

    def step(train: TrainState, data: Batch, *, axis: Any = None) -> tuple[TrainState, Metrics]:
        batch = jax.tree.map(lambda x: x[train.step - data["first"]], data["stack"])
        return inner.step(train, _apart(batch), axis=axis)

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

    def step(train: TrainState, batch: Batch, *, axis: Any = None) -> tuple[TrainState, Metrics]:
        return traced[is_alone()](train, batch, axis=axis)

    def lone_step(
        train: TrainState, batch: Batch, *, axis: Any = None
    ) -> tuple[TrainState, Metrics]:
        return inner.step(train, batch, axis=axis)  # another function: JAX knows traces by it

    options: Any = {"static_argnames": "axis", "inline": True}
    traced = {False: jax.jit(inner.step, **options), True: jax.jit(lone_step, **options)}
    return inner._replace(init=jax.jit(inner.init, inline=True), step=step)


def window(inner: Learner, every: int) -> Learner:
    """Add metrics up on the device; the sum starts anew after each multiple of `every` steps.

    `step` returns the sum since the last such multiple. It belongs to the state, in float32 and in
    the order of the steps, so that cutting a run into pieces does not change a bit of it.
    """

    def init(key: Key, batch: Batch) -> TrainState:
        train = inner.init(key, batch)
        _, metrics = jax.eval_shape(inner.step, train, batch)
        zero = jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), metrics)
        return put(train, "window", zero)

    def step(train: TrainState, batch: Batch, *, axis: Any = None) -> tuple[TrainState, Metrics]:
        train, so_far = take(train, "window")
        fresh = jax.lax.rem(train.step, train.step.dtype.type(every)) == 0
        so_far = tree.where(fresh, jax.tree.map(jnp.zeros_like, so_far), so_far)
        train, metrics = inner.step(train, batch, axis=axis)
        total = tree.add(so_far, metrics)
        return put(train, "window", total), total

    return hidden(inner, "window", init, step)


def loop(inner: Learner) -> Learner:
    """Run `n` steps in one dispatch: `step(train, batch, n) -> (train, metrics of the last step)`.

    `n` is traced, so one executable serves every number of steps, and a run has the same bits
    however it is cut into dispatches. Put `resident` inside, or each step sees the same batch, and
    `window` inside to get the sum of the metrics.
    """

    def step(
        train: TrainState, batch: Batch, n: Any = 1, *, axis: Any = None
    ) -> tuple[TrainState, Metrics]:
        def body(_: Any, carry: Any) -> Any:
            train, _ = carry
            return inner.step(train, batch, axis=axis)

        shapes = jax.eval_shape(lambda t: inner.step(t, batch, axis=axis)[1], train)
        nothing = jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), shapes)
        return jax.lax.fori_loop(0, n, body, (train, nothing))

    return inner._replace(step=step)


def ema(inner: Learner, decay: float) -> Learner:
    r"""Evaluate and predict with an exponential moving average of the weights.

    $a_t = a_{t-1} + \frac{1 - d}{1 - d^t} (w_t - a_{t-1})$: weights $d^{t-k}$ over the steps taken,
    summing to one from the first step on. Floating state (batch statistics) is averaged with them
    (Polyak & Juditsky 1992; the correction is that of Kingma & Ba 2015).
    """

    def init(key: Key, batch: Batch) -> TrainState:
        train = inner.init(key, batch)
        averaged, members = (train.params, train.state), train.key.ndim
        # One for each member of each leaf: the groups of a sweep have members of their own.
        count = jax.tree.map(lambda x: jnp.zeros(x.shape[:members], jnp.int32), averaged)
        # Copies: the average must not share buffers with weights that a step donates.
        average = jax.tree.map(jnp.copy, averaged)
        return put(train, "ema", {"count": count, "average": average})

    def step(train: TrainState, batch: Batch, *, axis: Any = None) -> tuple[TrainState, Metrics]:
        train, memory = take(train, "ema")
        train, metrics = inner.step(train, batch, axis=axis)
        count = jax.tree.map(lambda c: c + 1, memory["count"])

        def move(count: Any, average: Any, new: Any) -> Any:
            if not tree.is_float(new):
                return new
            # Not 1 - d ** t, which loses its digits when d is close to 1.
            rate = (1 - decay) / -jnp.expm1(count * jnp.log1p(-(1 - decay)))
            per_leaf = rate.reshape(rate.shape + (1,) * (new.ndim - rate.ndim))
            return (average + per_leaf * (new - average)).astype(new.dtype)

        average = jax.tree.map(move, count, memory["average"], (train.params, train.state))
        return put(train, "ema", {"count": count, "average": average}), metrics

    def averaged(train: TrainState) -> TrainState:
        train, memory = take(train, "ema")
        params, state = memory["average"]
        return train.replace(params=params, state=state)

    return Learner(
        init,
        step,
        lambda train, batch: inner.evaluate(averaged(train), batch),
        lambda train, batch: inner.predict(averaged(train), batch),
    )


def take(train: TrainState, name: str) -> tuple[TrainState, PyTree]:
    """A transform's entry of `extra`, and the state without it."""
    rest = {key: value for key, value in train.extra.items() if key != name}
    return train.replace(extra=rest), train.extra[name]


def put(train: TrainState, name: str, value: PyTree) -> TrainState:
    """The state with a transform's entry in `extra`."""
    return train.replace(extra=train.extra | {name: value})


def hidden(inner: Learner, name: str, init: Any, step: Any) -> Learner:
    """The learner whose evaluation and prediction do not see this transform's entry."""
    return Learner(
        init,
        step,
        lambda train, batch: inner.evaluate(take(train, name)[0], batch),
        lambda train, batch: inner.predict(take(train, name)[0], batch),
    )
