"""Profiling a few steps: a trace for TensorBoard's profiler (XProf) and Perfetto."""

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
"""Dispatches before a trace; the first one compiles."""


@contextmanager
def trace_steps(executor: Any, folder: Path | None, steps: int) -> Iterator[None]:
    """In the block, trace `steps` steps of the executor after its first dispatch, into `folder`.

    Each dispatch is labelled with its first step and waited for, so that the trace shows the
    device's work. Results do not change; dispatches may be shorter. With 0 steps nothing happens.
    Raises `InputError` for a negative number of steps, or without a folder.
    """
    if steps == 0:
        yield
        return
    if folder is None or steps < 0:
        raise error(
            "profile",
            expected="a number of steps of at least 0, and a run directory for the trace",
            got="a run without a directory" if folder is None else str(steps),
            fix="pass run_dir=..." if folder is None else "use profile=10 (--run.profile 10)",
        )
    trace = _Trace(executor, folder, steps)
    executor.advance = trace.advance
    try:
        yield
    finally:
        trace.stop()
        if trace.left == steps:
            log.warning(
                "no trace was written: the run ended with its first dispatch, which is not traced "
                "because it compiles; train for more steps"
            )


def _profile_options() -> jax.profiler.ProfileOptions:
    """Options that leave out Python's calls, because tracing these slows the program.

    The hook would also be set in every thread, and a thread that starts at that moment may be lost.
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
            jax.profiler.start_trace(str(self._folder), profiler_options=_profile_options())
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
