"""The executor: the compiled steps of a run and their dispatch."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

from jdl.core import lowering
from jdl.core.types import Learner, Metrics, TrainState
from jdl.run.evaluate import evaluator
from jdl.run.execution.batches import ResidentBatches, StreamedBatches
from jdl.run.execution.gc_pause import gc_paused
from jdl.run.execution.host_memory import return_freed_pages
from jdl.run.execution.placement import mesh_of, readable_sharding
from jdl.run.execution.trace import trace_steps
from jdl.run.execution.training_form import looped_learner
from jdl.run.setup import TrainingSetup
from jdl.run.telemetry.recompilation import CompilationMonitor

DISPATCHES_IN_FLIGHT = 2
"""Most dispatches that Python may be ahead of the device."""

CUDA_GRAPH = "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,DYNAMIC_SLICE_FUSION,WHILE,CONDITIONAL"
"""The commands that XLA may put into a CUDA graph: its default ones, and loops and branches."""


class Executor:
    """The compiled steps and the compiled evaluation of a run.

    `step` is the number of steps dispatched; reading it does not wait for the device.
    """

    def __init__(self, setup: TrainingSetup, state: TrainState):
        feed, clock = setup.feed, setup.clock
        self.step = int(state.step)
        self._mode, self._clock, self._report = setup.dispatch, clock, setup.report_phase
        self._in_flight: deque[tuple[str, Any]] = deque()
        if feed.is_resident:
            self._batches = ResidentBatches(feed, state)
        else:
            self._batches = StreamedBatches(feed, state, self._mode.steps, clock)
        clock.program = self._program = self._compile(setup, state)
        self._evaluate = evaluator(setup.learner, state, setup.valid, feed.batch_size, clock)
        self._report("training", self.step)

    def advance(self, state: TrainState, until: int) -> tuple[TrainState, Metrics]:
        """Dispatch the next steps, at most up to step `until`, without waiting for them.

        The metrics are the sums over the current window, after the last of these steps.
        """
        end, metrics = min(self.step + self._mode.steps, until), {}
        with self._clock.span("compute"):
            while self.step < end:
                data, last = self._batches.at(self.step)
                if self._mode.kind == "loop":
                    count = min(end, last) - self.step
                    state, metrics = self._program(state, data, count)
                    self.step += count
                else:
                    state, metrics = self._program(state, data)
                    self.step += 1
        self._limit_queue("compute", metrics)
        self._report("training", self.step)
        return state, metrics

    def evaluate(self, state: TrainState) -> dict[str, list[Metrics]]:
        """Evaluate without waiting; returns the metrics of each batch by validation set."""
        self._report("evaluation", self.step)
        with self._clock.span("evaluate"):
            parts = self._evaluate(state)
        self._limit_queue("evaluate", parts)
        return parts

    def _limit_queue(self, category: str, values: Any) -> None:
        """Wait for older dispatches, so that at most `DISPATCHES_IN_FLIGHT` are in flight."""
        self._in_flight.append((category, values))
        while len(self._in_flight) > DISPATCHES_IN_FLIGHT:
            name, oldest = self._in_flight.popleft()
            with self._clock.span(name):
                jax.block_until_ready(oldest)

    def _compile(self, setup: TrainingSetup, state: TrainState) -> CompilationMonitor:
        """The compiled steps. If the shapes are known, they are compiled before the data set is on
        the device, which lowers the peak of memory."""
        feed_into, is_loop = self._batches.feed_into, self._mode.kind == "loop"
        if is_loop:
            learner = looped_learner(setup.inner, setup.guard, setup.options.log_every, feed_into)
        else:
            learner = feed_into(setup.learner)
        # Pinned, so that the state that a step returns never makes the next step recompile.
        pinned = jax.tree.map(lambda x: x.sharding, state) if mesh_of(state) else None
        program = jax.jit(
            learner.step if is_loop else _single_step_program(learner),
            static_argnames="axis",
            donate_argnums=(0,),
            out_shardings=(pinned, readable_sharding(state)) if pinned else None,
            compiler_options=_whole_loop_options() if is_loop else None,
        )
        names = ("state", "data", "n") if is_loop else ("state", "data")
        monitor = CompilationMonitor(program, self._clock, *names)
        if self._batches.shapes is not None:
            shapes = (state, self._batches.shapes)
            monitor.compile(*shapes, 1) if is_loop else monitor.compile(*shapes)
            return_freed_pages()  # the memory of compiling, before the program takes its own
        return monitor


@contextmanager
def compile_steps(setup: TrainingSetup, state: TrainState) -> Iterator[Executor]:
    """The executor of a run that begins or resumes at `state`."""
    with gc_paused():
        executor = Executor(setup, state)
    del state  # it is donated to the first step
    profile = setup.run_dir.profile if setup.run_dir else None
    with trace_steps(executor, profile, setup.options.profile), setup.clock.span("other"):
        yield executor


def _single_step_program(learner: Learner) -> Any:
    """The step for a program without a loop; what is traced inside can ask for this."""

    def step(state: TrainState, data: Any, *, axis: Any = None) -> tuple[TrainState, Metrics]:
        with lowering.lowering_for(single_step=True):
            return learner.step(state, data, axis=axis)

    return step


def _whole_loop_options() -> dict[str, Any] | None:
    """On CUDA: put the whole loop into a CUDA graph, else each iteration waits for the host."""
    if lowering.cuda_capability() == 0:
        return None
    return {"xla_gpu_enable_command_buffer": CUDA_GRAPH}
