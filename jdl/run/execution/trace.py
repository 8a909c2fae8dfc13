"""A trace of a few steps, for TensorBoard's profiler (XProf) and Perfetto."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from jdl.core.errors import error
from jdl.core.types import TrainState

log = logging.getLogger("jdl")
WARM_UP_DISPATCHES = 1
"""Dispatches before a trace: the first one compiles."""


@contextmanager
def trace_steps(executor: Any, folder: Path | None, steps: int) -> Iterator[None]:
    """Within, so many steps of the executor, after the first dispatch, leave a trace in `folder`.

    Each dispatch is marked by the number of its first step and waited for, so that the trace shows
    what the device did. What is computed stays the same: only where a run is cut into dispatches
    may differ. With 0 steps nothing happens. Raises `InputError` without a folder.
    """
    if steps == 0:
        yield
        return
    if folder is None or steps < 0:
        raise error(
            "profile",
            expected="a number of steps to trace, and a run directory to leave the trace in",
            got="a run without a directory" if folder is None else str(steps),
            fix="give run_dir=..." if folder is None else "pass --run.profile 10",
        )
    trace = _Trace(executor, folder, steps)
    executor.advance = trace.advance
    try:
        yield
    finally:
        trace.stop()
        if trace.left == steps:
            log.warning("no trace: the run ended with its first dispatch, which compiles")


def _without_python() -> jax.profiler.ProfileOptions:
    """Python's own calls are left out: following them slows what is traced.

    The hook for them is also set in every thread, and a thread that begins just then may be lost.
    """
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    return options


class _Trace:
    def __init__(self, executor: Any, folder: Path, steps: int):
        self._executor, self._folder, self.left = executor, folder, steps
        self._advance, self._before = executor.advance, WARM_UP_DISPATCHES
        self._is_on = False

    def advance(self, state: TrainState, until: int) -> Any:
        if self._before or not self.left:
            self._before = max(0, self._before - 1)
            return self._advance(state, until)
        if not self._is_on:
            jax.block_until_ready(state)
            jax.profiler.start_trace(str(self._folder), profiler_options=_without_python())
            self._is_on = True
        first = self._executor.step
        with jax.profiler.StepTraceAnnotation("train", step_num=first):
            results = self._advance(state, min(until, first + self.left))
            jax.block_until_ready(results[1])
        self.left -= self._executor.step - first
        if not self.left:
            self.stop()
        return results

    def stop(self) -> None:
        if self._is_on:
            self._is_on = False
            jax.profiler.stop_trace()
