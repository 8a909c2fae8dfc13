"""Which form of dispatch is the faster one: a few real steps of each, timed before step 1."""

import time

import jax
import numpy as np

from jdl.core import lowering, tree
from jdl.core.types import TrainState
from jdl.run.distributed.collectives import broadcast
from jdl.run.execution.executor import MAX_STEPS_PER_DISPATCH, DispatchMode, Executor

SMALL = 5e7
"""Operations of a step below which dispatching alone may cost it as much."""

LARGE = 2**31
"""Bytes of a state from which a loop, which keeps it twice, is not the first form that is tried."""

CLOSE, LONG = 1.5, 20.0
"""Forms whose times differ by less are timed twice, for a run of more seconds: a machine that does
something else for a moment would else decide between them."""

SHORT = 1e-3
"""Seconds of a step in a loop below which a dispatch for each is not worth compiling."""

SLOW = 0.25
"""Seconds of a single step above which no loop is tried."""


def autotune(
    programs: Executor, state: TrainState, steps: float = np.inf, seconds: float = 0.4
) -> tuple[DispatchMode, bool]:
    """Time a few real steps in each form, on copies of the state, and take the faster one.

    A dispatch then takes about `seconds`: long enough that on CPU the memory of a program,
    mapped anew for each dispatch, weighs little; short enough to stop a run between two.
    The second form is not compiled where that would take longer than all `steps` of the run;
    then the choice is for runs as short as this one, and the second result is False.
    """
    first, second = ("loop", "step") if is_loop_likely(programs, state) else ("step", "loop")
    begin = time.perf_counter()
    programs.compile(first, state)
    compiling = broadcast(time.perf_counter() - begin)
    each = time_step(programs, first, state, seconds, enough=compiling / max(1, steps))
    spent = broadcast(time.perf_counter() - begin)
    if first == "loop" and each < SHORT:
        return _lasting("loop", each, seconds), True
    # Above this a loop gains little, and XLA's own form of a convolution can take 30 times as
    # long in one on CPU: not worth finding out. One look may have met a busy machine.
    if first == "step" and SLOW < each < 4 * SLOW:
        each = min(each, time_step(programs, first, state, seconds))
    if first == "step" and each > SLOW:
        return DispatchMode("step", 1), True
    if each * steps < spent:
        return _lasting(first, each, seconds), False
    most = _lasting("loop", each, seconds).size if second == "loop" else MAX_STEPS_PER_DISPATCH
    programs.compile(second, state)
    times = {first: each, second: time_step(programs, second, state, seconds, most)}
    if max(times.values()) < CLOSE * min(times.values()) and each * steps > LONG:
        for form in times:
            ceiling = most if form == second else MAX_STEPS_PER_DISPATCH
            times[form] = min(times[form], time_step(programs, form, state, seconds, ceiling))
    form = min(times, key=times.__getitem__)
    # A stream's program is compiled for its stack, and keeps the size it was measured with.
    if form == "loop" and programs.shapes is None:
        return DispatchMode("loop", most), True
    return _lasting(form, times[form], seconds), True


def is_loop_likely(programs: Executor, state: TrainState) -> bool:
    """Whether the loop is the form to try first, and often the only one.

    It is where a step has so little arithmetic that its dispatch may take longer, and as a CUDA
    graph but where a step holds loops itself.
    """
    if programs.shapes is None:
        return False
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    if lowering.cuda_capability() > 0 and size < LARGE:
        return True
    flops = programs.flops(state)
    return flops is not None and 0 < flops < SMALL


def time_step(
    programs: Executor,
    form: str,
    state: TrainState,
    seconds: float,
    ceiling: int = MAX_STEPS_PER_DISPATCH,
    enough: float = 0.0,
) -> float:
    """Seconds for one step, in dispatches that double until the time is up.

    Where it takes fewer than `enough`, nobody needs to know it better.
    """
    first = int(state.step)
    copy, n, each = tree.copy(state), 1, np.inf
    run = programs.advance(DispatchMode(form, ceiling), first)
    copy, metrics, step = run(copy, first, first + 1)
    jax.block_until_ready(metrics)
    while n <= ceiling:
        begin = time.perf_counter()
        copy, metrics, step = run(copy, step, step + n)
        jax.block_until_ready((copy, metrics))
        spent = broadcast(time.perf_counter() - begin)
        each, n = min(each, spent / n), n * 2
        # Enough of short steps is soon seen, and a short run should not be measured for longer.
        if each < enough or spent > seconds / (8 if each < SHORT else 2):
            break
    return each


def _lasting(form: str, each: float, seconds: float) -> DispatchMode:
    """As many steps, of `each` seconds, as take so long."""
    return DispatchMode(form, int(np.clip(seconds / each, 1, MAX_STEPS_PER_DISPATCH)))
