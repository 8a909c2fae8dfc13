"""What a run will do, worked out and checked before anything is trained or written."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jdl.core import tree
from jdl.core.errors import error
from jdl.core.lowering import platform
from jdl.core.types import Learner, PyTree, TrainState
from jdl.data.feed import Feed
from jdl.data.records import Data
from jdl.learn.extra import find_records, inner_state
from jdl.learn.guard import GuardState
from jdl.learn.window import WindowState
from jdl.run.checks import (
    Arrays,
    check_learner,
    check_options,
    count_steps,
    resolve_data,
)
from jdl.run.distributed.collectives import (
    check_consistent,
    check_uses_all_processes,
    is_multiprocess,
)
from jdl.run.early_stopping import Best
from jdl.run.execution.dispatch import DispatchMode, choose_dispatch
from jdl.run.execution.gc_pause import gc_paused
from jdl.run.execution.host_memory import return_freed_pages
from jdl.run.execution.placement import mesh_of
from jdl.run.execution.training_form import cache_trace, trained_learner
from jdl.run.storage.run_dir import RunDir
from jdl.run.telemetry.clock import TimeBreakdown

log = logging.getLogger("jdl")

PhaseCallback = Callable[[str, int, bool], Any]


@dataclass(frozen=True)
class Options:
    """How a run is carried out and watched."""

    log_every: int = 50
    """Steps that one row of the log sums up."""
    evaluate_every: int | None = None
    """Steps between evaluations; about one epoch when left out."""
    save_seconds: float = 60.0
    """Seconds between checkpoints, where the run has a directory."""
    dispatch: str = "auto"
    """"step" or "loop": one step or many for each call of the compiled program; "auto" chooses by
    what the step computes."""
    guard: int = 10
    """End the run after this many skipped steps in a row; 0 leaves the learner unguarded."""
    bar: bool = True
    """Show progress."""
    track: tuple[str, ...] = ("tensorboard",)
    """Trackers that are told each row, besides the run's own log (`jdl.run.trackers`)."""
    profile: int = 0
    """Leave a trace of so many steps, after the first ones, in the run's directory `profile`."""
    on_phase: PhaseCallback | None = None
    """Called with what comes next, such as ("training", step, False); the last argument says
    whether it may take long. The watchdog of several processes listens to it."""


@dataclass(frozen=True)
class TrainingSetup:
    """What a run will do: its learner and data, when to log, to evaluate and to stop."""

    inner: Learner
    """The caller's learner, traced once."""
    learner: Learner
    """The same as it trains: with the run's sums and its guard."""
    feed: Feed
    valid: Arrays | None
    best: Best | None
    epochs: float
    seed: int
    total_steps: int
    evaluate_every: int | None
    options: Options
    guard: int
    """The limit of the run's own guard; 0 where it has none, or the learner brings its own."""
    run_dir: RunDir | None
    clock: TimeBreakdown

    @cached_property
    def dispatch(self) -> DispatchMode:
        """How many steps go into one dispatch. What is wrong with a step shows here."""
        sample = self.feed.batch(0)
        shapes = jax.eval_shape(self.inner.init, tree.any_key(), sample)
        return choose_dispatch(self.inner.step, shapes, sample, self.options.dispatch)

    def caller_state(self, state: TrainState) -> TrainState:
        """The state of a run as the caller's learner knows it: without the run's own records."""
        return inner_state(inner_state(state) if self.guard else state)

    def report_phase(self, phase: str, step: int, slow: bool = False) -> None:
        """Tell whoever watches this run what comes next."""
        if self.options.on_phase is not None:
            self.options.on_phase(phase, step, slow)

    @property
    def steps_per_epoch(self) -> float:
        """Steps in an epoch; batches may cross its end."""
        return self.feed.size / self.feed.batch_size

    def next_boundary(self, step: int) -> int:
        """The next step at which something is noted; the same however a run is cut."""
        periods = [self.options.log_every, *([self.evaluate_every] if self.evaluate_every else [])]
        return min([self.total_steps] + [(step // every + 1) * every for every in periods])

    def logs(self, step: int) -> bool:
        """Whether a row of training metrics ends at this step."""
        return step % self.options.log_every == 0 or step == self.total_steps

    def evaluates(self, step: int) -> bool:
        """Whether the validation set is evaluated at this step."""
        return self.evaluate_every is not None and (
            step % self.evaluate_every == 0 or step == self.total_steps
        )

    def is_over(self, step: int) -> bool:
        """Whether all steps are taken or patience has run out.

        Patience is asked at boundaries only, so that every cut of a run agrees.
        """
        if step >= self.total_steps:
            return True
        is_boundary = step > 0 and self.next_boundary(step - 1) == step
        return self.best is not None and is_boundary and self.best.is_over(step)

    def fingerprint(self) -> dict[str, Any]:
        """What must be the same for a run to be resumed, as far as `fit` knows it."""
        return {
            "examples": self.feed.size,
            "batch_size": self.feed.batch_size,
            "feed_seed": self.feed.seed,
            # 4 and 4.0 are the same run.
            "epochs": int(self.epochs) if self.epochs == int(self.epochs) else self.epochs,
            "seed": self.seed,
            "best": None if self.best is None else self.best.rule,
            "patience": None if self.best is None else self.best.patience,
            "log_every": self.options.log_every,
            "dispatch": self.options.dispatch,
            "evaluate_every": self.evaluate_every,
        }


def prepare(
    learner: Learner,
    data: Arrays | Data | Feed,
    valid: Arrays | None = None,
    *,
    batch_size: int = 128,
    seed: int = 0,
    start: TrainState | None = None,
    **how: Any,
) -> tuple[TrainingSetup, TrainState]:
    """Check what `fit` was given; the setup of the run, and its state before step 1.

    Whatever is wrong with model, data, task or options shows here, as an `InputError`.
    """
    clock = TimeBreakdown()
    with clock, gc_paused():
        feed, valid = resolve_data(data, valid, batch_size, seed)
        setup = make_setup(learner, feed, valid, seed=seed, clock=clock, **how)
        if is_multiprocess():  # before anything that could fail in one of them alone
            identity = setup.run_dir.identity() if setup.run_dir else {}
            check_consistent({"fit": setup.fingerprint()} | identity)
        state = init_state(setup.learner, feed, seed)
        if start is not None:
            state = start_from(start, state)
        check_learner(learner, setup.caller_state(state), feed, valid)  # not traced: it sees values
        _ = setup.dispatch  # which traces the step
    if is_multiprocess():
        check_uses_all_processes(mesh_of(state))
    return setup, state


def make_setup(
    learner: Learner,
    feed: Feed,
    valid: Arrays | None = None,
    *,
    epochs: float = 10,
    seed: int = 0,
    run_dir: str | Path | RunDir | None = None,
    best: str | None = None,
    patience: int | None = None,
    options: Options | None = None,
    clock: TimeBreakdown | None = None,
) -> TrainingSetup:
    """Check the options of a run and put its learner together; nothing is computed."""
    options = options or Options()
    check_options(valid, epochs, best, patience, options)
    inner = cache_trace(learner)
    shapes = jax.eval_shape(inner.init, tree.any_key(), feed.batch(0))
    if find_records(shapes.extra, WindowState):
        log.warning("the learner sums its metrics itself (window): each row averages running sums")
    # A guard of its own keeps its own limit.
    guard = 0 if find_records(shapes.extra, GuardState) else options.guard
    steps_per_epoch = feed.size / feed.batch_size
    evaluate_every = options.evaluate_every or max(1, round(steps_per_epoch))
    return TrainingSetup(
        inner=inner,
        learner=trained_learner(inner, guard, options.log_every),
        feed=feed,
        valid=valid,
        best=Best(best or "min loss", patience) if best or patience else None,
        epochs=epochs,
        seed=seed,
        total_steps=count_steps(epochs, steps_per_epoch),
        evaluate_every=None if valid is None else evaluate_every,
        options=options,
        guard=guard,
        run_dir=RunDir(run_dir) if isinstance(run_dir, str | Path) else run_dir,
        clock=clock or TimeBreakdown(),
    )


RUN_ONCE_OPTIONS = {"xla_backend_optimization_level": "1"}
"""How a program that runs once is compiled on CPU: random numbers take LLVM 2 s at its best."""


def init_state(learner: Learner, feed: Feed, seed: int) -> TrainState:
    """The state before step 1, made by one compiled program."""

    def init(seed: Any, batch: Any) -> TrainState:
        return learner.init(jax.random.key(seed), batch)

    if not (isinstance(seed, Integral) and -(2**63) <= seed < 2**63):
        raise error(
            "seed",
            expected="an integer of at most 64 bits",
            got=repr(seed),
            fix="give a whole number, such as 0",
        )
    compiled = jax.jit(init, compiler_options=RUN_ONCE_OPTIONS if platform() == "cpu" else None)
    # As `key` would take it; in 32 bits JAX keeps the lower ones.
    state = compiled(np.int64(seed), feed.batch(0))
    return_freed_pages()
    return state


def start_from(start: TrainState, state: TrainState) -> TrainState:
    """`state` with copies of the weights of `start`, which must have the same leaves."""
    return state.replace(
        params=_copy_like("params", start.params, state.params),
        model_state=_copy_like("model_state", start.model_state, state.model_state),
    )


def _copy_like(name: str, given: PyTree, like: PyTree) -> PyTree:
    mine, wanted = tree.flatten(given), tree.flatten(like)
    for leaf in dict.fromkeys([*wanted, *mine]):
        got = mine[leaf].shape if leaf in mine else "no such leaf"
        want = wanted[leaf].shape if leaf in wanted else "no such leaf"
        if got != want:
            raise error(
                f"start: {name}/{leaf}",
                expected=str(want),
                got=str(got),
                fix="start from a run of the same model",
            )
    return jax.tree.map(_copy_to_devices_of, like, given)


def _copy_to_devices_of(like: jax.Array, value: Any) -> jax.Array:
    """A copy in the type of `like` and on its devices, whichever devices the value is on."""
    where = like.sharding if like.committed else None
    return jax.device_put(np.array(value, like.dtype, copy=True), where)
