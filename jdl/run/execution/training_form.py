"""How a learner is put together for a run: traced once, summed, guarded, looped."""

from collections.abc import Callable

import jax

from jdl.core.lowering import is_single_step
from jdl.core.types import Batch, Learner, Metrics, TrainState
from jdl.learn.guard import count_invalid, guard
from jdl.learn.transforms import loop
from jdl.learn.window import window
from jdl.run.execution.block_guard import guard_in_blocks


def trained_learner(inner: Learner, limit: int, every: int) -> Learner:
    """`inner` with the sums of a run and, unless `limit` is 0, with its guard."""
    if not limit:
        return window(inner, every)
    # Shapes are those of the step without its guard, which takes longer to trace.
    counted = window(count_invalid(inner, limit), every)
    return window(guard(inner, limit), every)._replace(init=counted.init)


def looped_learner(
    inner: Learner, limit: int, every: int, feed_into: Callable[[Learner], Learner]
) -> Learner:
    """The same for many steps in one program: `step(state, data, n)`."""
    if not limit:
        return loop(feed_into(window(inner, every)))
    return guard_in_blocks(feed_into(inner), limit, every)


def cache_trace(inner: Learner) -> Learner:
    """The same learner; Python runs through its `init` and `step` once for each kind of inputs.

    A run needs the shapes of both before it compiles them. What was traced is put in place as it
    is, so that the compiled program is the same. A program without a loop around the step may be
    traced in another form, so a step that is promised to be alone is traced by itself.
    """

    def step(
        state: TrainState, batch: Batch, *, axis: str | None = None
    ) -> tuple[TrainState, Metrics]:
        return traced[is_single_step()](state, batch, axis=axis)

    def lone_step(
        state: TrainState, batch: Batch, *, axis: str | None = None
    ) -> tuple[TrainState, Metrics]:
        return inner.step(state, batch, axis=axis)  # another function: JAX knows traces by it

    traced = {
        alone: jax.jit(call, static_argnames="axis", inline=True)
        for alone, call in ((False, inner.step), (True, lone_step))
    }
    return inner._replace(init=jax.jit(inner.init, inline=True), step=step)
