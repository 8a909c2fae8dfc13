"""The learner as a run trains it: with cached traces, window, guard and loop."""

from collections.abc import Callable

import jax

from jdl.core.lowering import is_single_step
from jdl.core.types import Batch, Learner, Metrics, TrainState
from jdl.learn.guard import count_invalid, guard
from jdl.learn.transforms import loop
from jdl.learn.window import window
from jdl.run.execution.block_guard import guard_in_blocks


def trained_learner(inner: Learner, limit: int, every: int) -> Learner:
    """`inner` with the run's window and, unless `limit` is 0, its guard."""
    if not limit:
        return window(inner, every)
    # `init` without the guard's step, which takes longer to trace; the shapes are the same.
    counted = window(count_invalid(inner, limit), every)
    return window(guard(inner, limit), every)._replace(init=counted.init)


def looped_learner(
    inner: Learner, limit: int, every: int, feed_into: Callable[[Learner], Learner]
) -> Learner:
    """The same with many steps in one program: `step(state, data, n)`."""
    if not limit:
        return loop(feed_into(window(inner, every)))
    return guard_in_blocks(feed_into(inner), limit, every)


def cache_trace(inner: Learner) -> Learner:
    """The same learner, with `init` and `step` traced once for each kind of inputs.

    A run needs the shapes of both before it compiles them. Traces are inlined, so the compiled
    program is the same. A single-step program (`is_single_step`) is traced separately, because it
    may compute some operations in another way.
    """

    def step(
        state: TrainState, batch: Batch, *, axis: str | None = None
    ) -> tuple[TrainState, Metrics]:
        return traced[is_single_step()](state, batch, axis=axis)

    def single_step(
        state: TrainState, batch: Batch, *, axis: str | None = None
    ) -> tuple[TrainState, Metrics]:
        return inner.step(state, batch, axis=axis)  # JAX caches traces by function: needs its own

    traced = {
        single: jax.jit(call, static_argnames="axis", inline=True)
        for single, call in ((False, inner.step), (True, single_step))
    }
    return inner._replace(init=jax.jit(inner.init, inline=True), step=step)
