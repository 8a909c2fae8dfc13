"""How a learner is put together for a run: traced once, summed, guarded, fed."""

import jax
import jax.numpy as jnp

from jdl.core.lowering import in_single_step_program
from jdl.core.types import Batch, Key, Learner, Metrics, PyTree, TrainState
from jdl.data.feed import masked
from jdl.learn.guard import count_invalid, guard
from jdl.learn.transforms import feed_from, separate
from jdl.learn.window import window


def trained_learner(inner: Learner, limit: int, every: int) -> Learner:
    """`inner` with the sums of a run and, unless `limit` is 0, with its guard."""
    if not limit:
        return window(inner, every)
    # Shapes are those of the step without its guard, which takes longer to trace.
    counted = window(count_invalid(inner, limit), every)
    return window(guard(inner, limit), every)._replace(init=counted.init)


def from_index_table(inner: Learner) -> Learner:
    """A learner whose steps take the set and a table of the rows of several batches.

    Data are `{"first": step, "rows": [k, B], "set": ...}` and, where not all rows count,
    `"mask": [k, B]`. Row i of the table is the batch of step first + i.
    """

    def batch_of(state: TrainState, data: PyTree) -> Batch:
        place = state.step - data["first"]
        batch = jax.tree.map(lambda x: jnp.take(x, data["rows"][place], axis=0), data["set"])
        if "mask" in data:
            batch = {**batch, "mask": masked(batch.get("mask"), data["mask"][place], jnp)}
        return separate(batch)

    def init(key: Key, data: PyTree) -> TrainState:
        first = jax.tree.map(lambda x: jnp.take(x, data["rows"][0], axis=0), data["set"])
        return inner.init(key, first)

    return feed_from(inner, batch_of)._replace(init=init)


def from_stack(inner: Learner) -> Learner:
    """A learner whose steps take several batches, `{"first": step, "stack": [k, B, ...]}`.

    The batch of step first + i is number i of the stack.
    """

    def batch_of(state: TrainState, data: PyTree) -> Batch:
        place = state.step - data["first"]
        return separate(jax.tree.map(lambda x: x[place], data["stack"]))

    def init(key: Key, data: PyTree) -> TrainState:
        return inner.init(key, jax.tree.map(lambda x: x[0], data["stack"]))

    return feed_from(inner, batch_of)._replace(init=init)


def cache_trace(inner: Learner) -> Learner:
    """The same learner; Python runs through its `init` and `step` once for each kind of inputs.

    A run needs the shapes of both before it compiles them. What was traced is put in place as it
    is, so that the compiled program is the same. A program without a loop around the step may be
    traced in another form, so a step that is promised to be alone is traced by itself.
    """

    def step(
        state: TrainState, batch: Batch, *, axis: str | None = None
    ) -> tuple[TrainState, Metrics]:
        return traced[in_single_step_program()](state, batch, axis=axis)

    def lone_step(
        state: TrainState, batch: Batch, *, axis: str | None = None
    ) -> tuple[TrainState, Metrics]:
        return inner.step(state, batch, axis=axis)  # another function: JAX knows traces by it

    traced = {
        alone: jax.jit(call, static_argnames="axis", inline=True)
        for alone, call in ((False, inner.step), (True, lone_step))
    }
    return inner._replace(init=jax.jit(inner.init, inline=True), step=step)
