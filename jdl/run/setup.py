"""The setup of a run, checked before anything is trained or written."""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jdl.core import tree
from jdl.core.errors import error
from jdl.core.lowering import platform
from jdl.core.nouns import check_learner, describe
from jdl.core.paths import user_path
from jdl.core.types import Learner, Row, TrainState
from jdl.data.feed import Feed
from jdl.data.records import Data, count_steps
from jdl.learn.extra import find_records, inner_state
from jdl.learn.guard import GuardState
from jdl.learn.window import WindowState
from jdl.optim.plateau import PlateauRule, plateaus, rate_factors
from jdl.run.checks import (
    Arrays,
    check_labels_of_batches,
    check_on_data,
    check_options,
    check_plateau,
    resolve_data,
    warn_of_unread_entries,
)
from jdl.run.distributed.collectives import (
    check_consistent,
    check_uses_all_processes,
    is_multiprocess,
    on_process_0,
)
from jdl.run.early_stopping import Best
from jdl.run.execution.dispatch import DispatchMode, choose_dispatch
from jdl.run.execution.gc_pause import gc_paused
from jdl.run.execution.host_memory import return_freed_pages
from jdl.run.execution.placement import mesh_of
from jdl.run.execution.training_form import cache_trace, trained_learner
from jdl.run.fork import Parent, check_only_one_begin, start_fork
from jdl.run.identity.fingerprint import Fingerprint, take_fingerprint
from jdl.run.identity.processes import check_same_start, check_same_state
from jdl.run.start import check_finite_weights, start_from
from jdl.run.storage.files import to_json
from jdl.run.storage.foreign import check_not_foreign
from jdl.run.storage.run_dir import RunDir
from jdl.run.telemetry.clock import TimeBreakdown

log = logging.getLogger("jdl")

PhaseCallback = Callable[[str, int, bool], Any]
"""`on_phase(phase, step, slow)`."""


@dataclass(frozen=True)
class Options:
    """Options of `fit` for logging, evaluation, checkpoints and dispatch.

    >>> options = Options(log_every=100, bar=False)
    >>> options.save_seconds
    60.0
    """

    log_every: int = 50
    """Steps between rows of the log. A row holds the metrics over all of these steps."""
    evaluate_every: int | None = None
    """Steps between evaluations; None: about one epoch."""
    save_seconds: float = 60.0
    """Seconds between checkpoints, for a run with a directory."""
    dispatch: str = "auto"
    """"step": one training step for each call of the compiled program; "loop": many; "auto":
    chosen from what the step computes."""
    guard: int = 10
    """Raise `Diverged` after this many skipped steps in a row; 0: no guard."""
    bar: bool = True
    """Show a progress bar."""
    track: tuple[str, ...] = ("tensorboard",)
    """Trackers that receive each row, in addition to `metrics.jsonl` (see `jdl.run.trackers`)."""
    profile: int = 0
    """Steps to trace with the profiler, after the first dispatch; needs a run directory, and
    writes to its `profile/`."""
    on_phase: PhaseCallback | None = None
    """Called as `on_phase(phase, step, slow)` before each phase, such as ("training", 100, False).
    `slow` is True for a phase that may take long. The watchdog of several processes uses it."""


@dataclass(frozen=True)
class TrainingSetup:
    """The learner and data of a run, and the steps at which it logs, evaluates and stops."""

    inner: Learner
    """The caller's learner, traced once."""
    learner: Learner
    """The learner that trains: `inner` with the run's `window` and `guard`."""
    feed: Feed
    valid: Arrays | None
    best: Best | None
    epochs: float
    seed: int
    total_steps: int
    evaluate_every: int | None
    options: Options
    guard: int
    """The limit of the run's own guard; 0 if it is off, or if the learner has its own."""
    run_dir: RunDir | None
    clock: TimeBreakdown
    plateaus: tuple[PlateauRule, ...] = ()
    """The rules by which the optimizer reacts to evaluations."""
    has_rate: bool = False
    """Whether the optimizer's state holds the learning rate, for rows of training."""
    parent: Parent | None = None
    """The run that this one was forked from."""

    @cached_property
    def dispatch(self) -> DispatchMode:
        """How the steps are dispatched. This traces the step, so errors of the step show here."""
        sample = self.feed.batch(0)
        shapes = jax.eval_shape(self.inner.init, tree.any_key(), sample)
        return choose_dispatch(self.inner.step, shapes, sample, self.options.dispatch)

    def caller_state(self, state: TrainState) -> TrainState:
        """The state for the caller's learner: without the records of the run's transforms."""
        return inner_state(inner_state(state) if self.guard else state)

    def report_phase(self, phase: str, step: int, slow: bool = False) -> None:
        """Call `on_phase`."""
        if self.options.on_phase is not None:
            self.options.on_phase(phase, step, slow)

    @property
    def steps_per_epoch(self) -> float:
        """Steps in an epoch; need not be an integer, because a batch may cross an epoch's end."""
        return self.feed.size / self.feed.batch_size

    def next_boundary(self, step: int) -> int:
        """The next step that logs or evaluates. It does not depend on dispatches or resumes."""
        periods = [self.options.log_every, *([self.evaluate_every] if self.evaluate_every else [])]
        return min([self.total_steps] + [(step // every + 1) * every for every in periods])

    def logs(self, step: int) -> bool:
        """Whether this step writes a row of training metrics."""
        return step % self.options.log_every == 0 or step == self.total_steps

    def evaluates(self, step: int) -> bool:
        """Whether the validation set is evaluated at this step."""
        return self.evaluate_every is not None and (
            step % self.evaluate_every == 0 or step == self.total_steps
        )

    def writes(self, row: Row) -> bool:
        """Whether this run writes such a row.

        The last rows of a run whose `epochs` were fewer need not lie at steps that log or evaluate.
        """
        split, step = row.get("split"), row.get("step", 0)
        return not (
            (split == "train" and not self.logs(step))
            or (split == "valid" and not self.evaluates(step))
        )

    def is_over(self, step: int) -> bool:
        """Whether all steps are done or patience has run out.

        Patience counts at boundaries only, so an interrupted run stops at the same step.
        """
        if step >= self.total_steps:
            return True
        is_boundary = step > 0 and self.next_boundary(step - 1) == step
        return self.best is not None and is_boundary and self.best.is_over(step)

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """The data and the program of the run, which must not change when it is resumed."""
        return take_fingerprint(self.inner, self.feed, self.valid, self.total_steps)

    def settings(self) -> dict[str, Any]:
        """The settings of `fit` that must not change when a run is resumed."""
        return {
            "examples": self.feed.size,
            "batch_size": self.feed.batch_size,
            "feed_seed": self.feed.seed,
            # 4 and 4.0 are the same run.
            "epochs": int(self.epochs) if self.epochs == int(self.epochs) else self.epochs,
            "seed": int(self.seed),
            "best": None if self.best is None else self.best.rule,
            "patience": None if self.best is None else self.best.patience,
            "log_every": self.options.log_every,
            "dispatch": self.options.dispatch,
            "evaluate_every": self.evaluate_every,
            **({"reduce_on_plateau": [*map(asdict, self.plateaus)]} if self.plateaus else {}),
        }


def prepare(
    learner: Learner,
    data: Arrays | Data | Feed,
    valid: Arrays | None = None,
    *,
    batch_size: int = 128,
    seed: int = 0,
    start: TrainState | None = None,
    fork: str | Path | None = None,
    **how: Any,
) -> tuple[TrainingSetup, TrainState]:
    """Check the arguments of `fit`; return the setup of the run and its first state.

    Raises `InputError` for anything wrong with model, data, task or options.
    """
    check_learner(learner, "fit: learner")
    if fork is not None:
        check_only_one_begin(start)
    clock = TimeBreakdown()
    with clock, gc_paused():
        feed, valid = resolve_data(data, valid, batch_size, seed)
        setup = make_setup(learner, feed, valid, seed=seed, clock=clock, **how)
        run_dir = setup.run_dir
        if run_dir is not None:
            on_process_0(lambda: check_not_foreign(run_dir))
        if is_multiprocess():  # before anything that could fail in one process only
            identity = setup.run_dir.identity() if setup.run_dir else {}
            given = {"guard": setup.options.guard, "profile": setup.options.profile}
            given |= {"start": start is not None, "fork": fork and str(fork)}
            check_consistent({"fit": setup.settings() | given} | identity)
        check_same_start(setup, start)  # before anything is compiled
        state = init_state(setup.learner, feed, seed)
        if start is not None:
            state = start_from(start, state)
        if fork is not None:
            state, parent = start_fork(fork, setup, state)
            setup = replace(setup, parent=parent)
            check_finite_weights("fork", state)
        own = setup.caller_state(state)
        check_on_data(learner, own, feed, valid)  # outside jit: sees values
        warn_of_unread_entries(setup.inner, own, feed.batch(0))
        _ = setup.dispatch  # traces the step
        if setup.run_dir:
            _ = setup.fingerprint
    check_same_state(state)
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
    """Check the options of a run and build its learner; nothing is computed."""
    if not isinstance(run_dir, RunDir | None):
        run_dir = RunDir(user_path(run_dir, "run_dir"))
    options = options or Options()
    if not isinstance(options, Options):
        raise error(
            "options",
            expected="a jdl.Options",
            got=describe(options),
            fix="pass options=jdl.Options(log_every=100)",
        )
    check_options(valid, epochs, best, patience, options)
    # Numbers of NumPy overflow, and those of few bits round.
    epochs, patience = to_json(epochs), to_json(patience)
    options = replace(
        options,
        log_every=to_json(options.log_every),
        evaluate_every=to_json(options.evaluate_every),
    )
    inner = cache_trace(learner)
    shapes = jax.eval_shape(inner.init, tree.any_key(), feed.batch(0))
    feed = check_labels_of_batches(inner, shapes, feed)
    if find_records(shapes.extra, WindowState):
        log.warning(
            "the learner has a window of its own: each row of the log averages its running sums; "
            "remove jdl.learn.window, fit adds one"
        )
    rules = tuple(state.rule for state in plateaus(shapes.opt_state))
    for rule in rules:
        check_plateau(rule.by, valid)
    # A guard of the learner keeps its own limit.
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
        total_steps=count_steps(epochs, feed.size, feed.batch_size),
        evaluate_every=None if valid is None else evaluate_every,
        options=options,
        guard=guard,
        run_dir=run_dir,
        clock=clock or TimeBreakdown(),
        plateaus=rules,
        has_rate=bool(rate_factors(shapes.opt_state)),
    )


RUN_ONCE_OPTIONS = {"xla_backend_optimization_level": "1"}
"""Compiler options on CPU for a program that runs once; full optimization of random numbers takes
LLVM 2 s."""


def init_state(learner: Learner, feed: Feed, seed: int) -> TrainState:
    """The state before step 1, computed by one compiled program."""

    def init(seed: Any, batch: Any) -> TrainState:
        return learner.init(jax.random.key(seed), batch)

    if not (isinstance(seed, Integral) and -(2**63) <= seed < 2**63):
        raise error(
            "seed",
            expected="a signed 64-bit integer",
            got=repr(seed),
            fix="pass an integer, such as seed=0",
        )
    compiled = jax.jit(init, compiler_options=RUN_ONCE_OPTIONS if platform() == "cpu" else None)
    # As `jax.random.key` takes it: with x64 off JAX keeps the lower 32 bits.
    state = compiled(np.int64(seed), feed.batch(0))
    return_freed_pages()
    return state
