"""How a run reaches the device: one step or many steps for each dispatch, batches or the whole set.

The form changes the time a run takes and, in the last bits, its numbers; so it is chosen once,
by measuring (`jdl.run.execution.autotune`), before step 1.
"""

import gc
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jdl.core import lowering
from jdl.core.lowering import single_step_program
from jdl.core.types import Batch, Learner, Metrics, PyTree, TrainState
from jdl.data.feed import Feed
from jdl.data.prefetch import prefetch, stacks_of_batches
from jdl.learn.transforms import loop
from jdl.run.execution.host_memory import return_freed_pages
from jdl.run.execution.placement import (
    local_batch,
    mesh_of,
    placed_shapes,
    placement,
    readable_sharding,
)
from jdl.run.execution.training_form import cache_trace, from_index_table, from_stack
from jdl.run.telemetry.clock import TimeBreakdown
from jdl.run.telemetry.recompilation import CompilationMonitor


class DispatchMode(NamedTuple):
    """`form` "step" (one step a dispatch) or "loop" (up to `size` steps in a while loop)."""

    form: str
    size: int


MAX_STEPS_PER_DISPATCH = 1024
"""Steps of a dispatch, at most."""

STACK_BYTES = 2**25
"""Batches of a stream are moved to the device in stacks of up to this size."""

CUDA_GRAPH_COMMANDS = (
    "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,DYNAMIC_SLICE_FUSION,WHILE,CONDITIONAL"
)
"""What may become part of a CUDA graph: XLA's own kinds of kernels, and loops and branches."""

MAX_TABLE_ROWS = 2**20
"""Rows of the set that are found at once, at most."""

Advance = Callable[[TrainState, int, int], tuple[TrainState, Metrics, int]]


class Executor:
    """The compiled steps of a run over one feed, in both forms; compiled when first used.

    `looped(feed_into)` is the learner of many steps, where it is another one than a loop of the
    steps of `learner`.
    """

    def __init__(
        self,
        learner: Learner,
        feed: Feed,
        state: TrainState,
        accounts: TimeBreakdown | None = None,
        looped: Callable[[Callable[[Learner], Learner]], Learner] | None = None,
    ):
        self.feed = feed
        self.accounts = accounts or TimeBreakdown()
        self.shapes: Any = None
        if feed.is_resident:
            self._put, self._set = placement(state), None
            size = self._table_size()
            table = {  # its shapes, without making it
                name: np.broadcast_to(value, (size, *value.shape[1:])) if np.ndim(value) else value
                for name, value in self._table(0, 1).items()
            }
            self.shapes = placed_shapes(state, {"set": feed.data, **table})
            one = self._fed(learner)
        else:
            one = learner
            self._rows, self._put_rows = local_batch(state, feed.batch_size)
        many = loop(self._fed(learner)) if looped is None else looped(self._fed)
        # Pinned, so that the state a step returns never makes the next step compile anew.
        pinned = jax.tree.map(lambda x: x.sharding, state) if mesh_of(state) else None
        out = (pinned, readable_sharding(state)) if pinned else None
        options = {"donate_argnums": (0,), "out_shardings": out}
        self._one = jax.jit(_alone(one), static_argnames="axis", **options)
        self._many = jax.jit(many.step, static_argnames="axis", **options, **_in_one_graph())
        self.watched = {
            "step": CompilationMonitor(self._one, self.accounts, "state", "batch"),
            "loop": CompilationMonitor(self._many, self.accounts, "state", "data", "n"),
        }

    def _fed(self, learner: Learner) -> Learner:
        """The learner whose step finds its own batch in what a loop is given."""
        if self.feed.is_resident:
            return cache_trace(from_index_table(learner))
        return cache_trace(from_stack(learner))

    def advance(self, dispatch: DispatchMode, start: int) -> Advance:
        """A function `(state, step, boundary) -> (state, metrics, step)`: the next few steps."""
        given = self._ordered(start) if self.feed.is_resident else self._streamed(dispatch, start)
        program = self.watched[dispatch.form]

        def run(state: TrainState, step: int, boundary: int) -> tuple[TrainState, Metrics, int]:
            end = min(step + dispatch.size, boundary)
            if dispatch.form == "loop":
                data, last = given(step)
                end = min(end, last)
                state, metrics = program(state, data, end - step)
                return state, metrics, end
            metrics: Metrics = {}
            for number in range(step, end):
                state, metrics = program(state, given(number)[0])
            return state, metrics, end

        return run

    def _ordered(self, start: int) -> Callable[[int], tuple[PyTree, int]]:
        """The whole set with the rows of a step and of those to come, and the step they end at."""
        data, end = None, start

        def given(step: int) -> tuple[PyTree, int]:
            nonlocal data, end
            if step >= end:
                data = self.resident(step)
                end = step + len(data["rows"])
            return data, end

        return given

    def resident(self, first: int) -> dict[str, Any]:
        """What `tabled` takes, for as many steps as a table holds."""
        if self._set is None:
            self._set = self._put(self.feed.data)
        return {"set": self._set, **self._put(self._table(first, self._table_size()))}

    def _put_away(self) -> None:
        if self._set is not None:
            self._set = None
            # JAX gives memory of numpy's back when the collector comes by.
            gc.collect(0)
            return_freed_pages()

    def _table_size(self) -> int:
        return int(np.clip(MAX_TABLE_ROWS // self.feed.batch_size, 1, MAX_STEPS_PER_DISPATCH))

    def _table(self, first: int, size: int) -> dict[str, Any]:
        rows, mask = self.feed.rows(np.arange(first, first + size))
        table = {"rows": rows, "first": np.int32(first)}
        return table if mask is None else {**table, "mask": mask}

    def _streamed(self, dispatch: DispatchMode, start: int) -> Callable[[int], tuple[PyTree, int]]:
        """The same of a stream: a stack of batches on the device, or one batch for single steps.

        The next stack is put together on the host while the program runs.
        """
        loops = dispatch.form == "loop"
        size = self._stack_size(dispatch.size) if loops else 1
        made = prefetch(stacks_of_batches(self.feed, start, size, self._rows))
        data, end = None, start

        def given(step: int) -> tuple[PyTree, int]:
            nonlocal data, end
            if step >= end:
                with self.accounts.span("data"):
                    stack = next(made)
                    if loops:
                        data = {"first": np.int32(end), "stack": self._put_rows(stack, 1)}
                    else:
                        data = self._put_rows({key: x[0] for key, x in stack.items()})
                end += size
            return data, end

        return given

    def _stack_size(self, size: int) -> int:
        """As many batches as wanted, as long as a stack of them stays small."""
        each = self.feed.nbytes // self.feed.size * self.feed.batch_size
        return int(np.clip(STACK_BYTES // max(1, each), 1, size))

    def text(self, state: TrainState, form: str) -> str:
        """The program of a form, to know it again by; of a stream always that of a single step.

        It is lowered for this; JAX compiles it later without doing that again.
        """
        if self.shapes is None:
            lowered = self._one.lower(state, self.feed.batch(0))
        else:
            lowered = self.watched[form].call.lower(*self._given(form, state))
        # Without the numbers of large constants: they may be those of a whole network.
        module: Any = lowered.compiler_ir()
        return module.operation.get_asm(large_elements_limit=16)

    def _given(self, form: str, state: TrainState) -> tuple[Any, ...]:
        """What the program of a form takes, for as many steps as its third argument says."""
        return (state, self.shapes) if form == "step" else (state, self.shapes, 1)

    def flops(self, state: TrainState) -> float | None:
        """The arithmetic of one turn of the loop, as XLA counts it before compiling, if it can."""
        if self.shapes is None:
            return None
        try:
            cost: Any = self._many.lower(*self._given("loop", state)).cost_analysis()
            return cost["flops"]
        except (NotImplementedError, KeyError, TypeError):
            return None

    def compile(self, form: str, state: TrainState) -> None:
        """Compile, and give back the memory that this took before the program takes its own.

        Meanwhile the set does not lie on the device: its bytes are no part of the peak then.
        """
        if self.shapes is None:
            return
        given = self._given(form, state)
        if self.watched[form].is_new(*given):
            self._put_away()
            self.watched[form].compile(*given)
            return_freed_pages()


def _in_one_graph() -> dict[str, Any]:
    """On an NVIDIA device a loop is launched whole: each of its turns else waits for the host."""
    if lowering.cuda_capability() == 0:
        return {}
    return {"compiler_options": {"xla_gpu_enable_command_buffer": CUDA_GRAPH_COMMANDS}}


def _alone(learner: Learner) -> Callable[..., tuple[TrainState, Metrics]]:
    """The step of a program that holds no loop, and says so to what is traced in it."""

    def step(state: TrainState, batch: Batch, *, axis: Any = None) -> tuple[TrainState, Metrics]:
        with single_step_program():
            return learner.step(state, batch, axis=axis)

    return step
