"""A trace of a few steps, for TensorBoard's profiler (XProf) and Perfetto."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from jdl.core.errors import error
from jdl.core.types import TrainState
from jdl.run.execution.executor import Advance

log = logging.getLogger("jdl")
WARM_UP_DISPATCHES = 1
"""Dispatches that go before a trace: the first one compiles."""


@contextmanager
def trace_steps(advance: Advance, folder: Path | None, steps: int) -> Iterator[Advance]:
    """`advance`, of whose steps so many, after the first dispatch, leave a trace in `folder`.

    Each dispatch is marked by the number of its first step and waited for, so that the trace shows
    what the device did. What is computed stays the same: only where a run is cut into dispatches
    may differ. With 0 steps it is `advance` itself. Raises `InputError` without a folder.
    """
    if steps == 0:
        yield advance
        return
    if folder is None or steps < 0:
        raise error(
            "profile",
            expected="a number of steps to trace, and a folder to leave the trace in",
            got="a run without a folder" if folder is None else str(steps),
            fix="give run_dir=..." if folder is None else "say --run.profile 10",
        )
    trace = _Trace(advance, folder, steps)
    try:
        yield trace
    finally:
        trace.stop()
        if trace.left == steps:
            log.warning("no trace: the run ended with its first dispatch, which compiles")


def _without_python() -> jax.profiler.ProfileOptions:
    """Python's own calls are left out: following them slows what is looked at.

    The hook for them is also set in every thread, and a thread that begins just then may be lost.
    """
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    return options


class _Trace:
    def __init__(self, advance: Advance, folder: Path, steps: int):
        self._advance, self._folder, self.left = advance, folder, steps
        self._before = WARM_UP_DISPATCHES
        self._on = False

    def __call__(self, state: TrainState, step: int, boundary: int) -> Any:
        if self._before or not self.left:
            self._before = max(0, self._before - 1)
            return self._advance(state, step, boundary)
        if not self._on:
            jax.block_until_ready(state)
            jax.profiler.start_trace(str(self._folder), profiler_options=_without_python())
            self._on = True
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            results = self._advance(state, step, min(boundary, step + self.left))
            jax.block_until_ready(results[1])
        self.left -= results[2] - step
        if not self.left:
            self.stop()
        return results

    def stop(self) -> None:
        if self._on:
            self._on = False
            jax.profiler.stop_trace()
