"""What a run records: rows of metrics, the best weights, checkpoints.

Metrics are read from the device one boundary late, when they have long been computed, so that
training never waits for the log; only the first row is read at once. The best weights and early
stopping are decided at fixed steps, whenever the metrics were read.
"""

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from typing import Any

import jax
import numpy as np

from jdl import metrics as measure
from jdl.core import tree
from jdl.core.errors import Diverged, InputError, error
from jdl.core.types import Metrics, Row, TrainState
from jdl.data.feed import Feed
from jdl.learn.extra import find_records
from jdl.learn.guard import GuardState
from jdl.optim.plateau import observe_evaluation, rate_factors
from jdl.run.distributed.collectives import (
    check_consistent,
    check_shared,
    is_process_0,
    on_process_0,
)
from jdl.run.distributed.signals import Signals
from jdl.run.early_stopping import Best, recall
from jdl.run.evaluate import add_on_host
from jdl.run.identity.same_run import begin_run, log_schedule_change
from jdl.run.named_sets import join
from jdl.run.setup import TrainingSetup
from jdl.run.storage.checkpoint import Checkpoints
from jdl.run.storage.leaf_io import is_distributed
from jdl.run.storage.metrics_log import MetricsLog, scalars_of
from jdl.run.telemetry import sessions
from jdl.run.telemetry.progress import ProgressBar
from jdl.run.trackers import Tracker, open_trackers

log = logging.getLogger("jdl")

Parts = Mapping[str, list[Metrics]]
"""The metrics of batches, by validation set."""

LogCallback = Callable[[dict[str, Any]], Any]

SAME_DISK = "check the disk of the run directory, which every process must see alike"

CALLBACK_FAILED = 1000
"""The request to stop after a callback raised, among the numbers of signals, which are lower."""


@contextmanager
def open_run(
    setup: TrainingSetup, state: TrainState, log_callback: LogCallback | None
) -> Iterator[tuple[TrainState, "Recorder", Signals]]:
    """The state to begin from or resume at, the run's recorder, and the signals it receives.

    The block holds the lock of the run directory; its end closes all files.
    """
    run_dir, old_schedule = setup.run_dir, None
    with run_dir.lock() if run_dir and is_process_0() else nullcontext():
        if run_dir is not None:
            old_schedule = on_process_0(lambda: begin_run(setup, run_dir))
            check_shared(run_dir.path, run_dir.exists())
        recorder = Recorder(setup, log_callback)
        signals = Signals(terminate=run_dir is not None)
        with closing(recorder), setup.clock, signals:
            state = recorder.resume(state)
            if old_schedule is not None and is_process_0():
                log_schedule_change(setup, old_schedule, state)
            yield state, recorder, signals


class Recorder:
    """The log, the best weights and the checkpoints of one run."""

    def __init__(self, setup: TrainingSetup, log_callback: LogCallback | None = None):
        self.best, self.best_state = setup.best, None
        self._setup, self._clock = setup, setup.clock
        self._rows = RowWriter(setup, log_callback)
        self._queue: list[tuple[int, str, Parts, Any]] = []
        self._counts: list[GuardState] = []
        run_dir = setup.run_dir
        self.checkpoints = Checkpoints(run_dir.checkpoints) if run_dir else None
        # Process 0 alone writes the log; every process saves its part of the state.
        self._times = run_dir.times if run_dir and is_process_0() else None
        self._sessions = sessions.read(run_dir.times) if run_dir else []
        self._first = self._last = 0
        self._began = self._saved = time.monotonic()
        self._window: tuple[int, float, float] | None = None

    @property
    def failed(self) -> int | None:
        """The request to stop, if the caller's `log` raised in this process."""
        return None if self._rows.failure is None else CALLBACK_FAILED

    def raise_callback_error(self, stop: int | None, step: int) -> None:
        """Raise the error of the caller's `log`, naming it, after the run was saved.

        `stop` is what stopped the run: another process may hold the error.
        """
        failure, run_dir = self._rows.failure, self._setup.run_dir
        if failure is None and stop != CALLBACK_FAILED:
            return
        if failure is None:
            raise RuntimeError(f"a log callback raised in another process, up to step {step}")
        saved = f"is saved in {run_dir.given}" if run_dir else "was not saved: there is no run_dir"
        failure.add_note(
            f"raised by log={_name(self._rows.callback)}, called by jdl.fit; "
            f"the run up to step {step} {saved}"
        )
        raise failure

    @property
    def rows(self) -> list[Row]:
        """The log so far."""
        return self._rows.written

    def resume(self, state: TrainState) -> TrainState:
        """Restore the newest good checkpoint and cut the log back to it; `state` if none exists."""
        state = self._resume(state)
        self._first = self._last = int(state.step)
        self._clock.devices = len(state.step.sharding.device_set)
        self._counts = copy_guard_states(state)
        return state

    def _resume(self, state: TrainState) -> TrainState:
        if self.checkpoints is None or not on_process_0(self.checkpoints.steps):
            self._rows.cut(-1)
            if self._setup.parent is not None:  # the run must not begin again without its parent
                self._save(int(state.step), state, wait=True)
            return state
        target = state
        state, step = self.checkpoints.restore(target)
        check_consistent({"step": step}, "newest good checkpoint", SAME_DISK)
        self._rows.cut(step)
        if self.best is not None:
            self.best_state = self._resume_best(self.best, self.checkpoints, step, target)
        return state

    def _resume_best(
        self, best: Best, checkpoints: Checkpoints, step: int, target: TrainState
    ) -> TrainState | None:
        """The best state up to a step; None if there is none, or if it cannot be restored."""
        saved, evaluates = on_process_0(checkpoints.saved_best), self._setup.evaluates
        recall(best, self.rows, saved, lambda at: at <= step and evaluates(at))
        # A kill after a checkpoint, or fewer epochs before, left another step in best.json.
        on_process_0(lambda: checkpoints.mark_best(best.step, best.value))
        if best.step is None:
            return None
        try:
            return checkpoints.restore(target, best.step)[0]
        except InputError as bad:
            log.warning("the best weights so far cannot be restored: %s", bad)
            return None

    def training(self, step: int, metrics: Metrics, state: TrainState) -> None:
        """Queue the metrics of a window of steps, which `read` turns into a row."""
        now, waited = time.perf_counter(), self._clock.seconds["data"]
        rate = tree.copy(rate_factors(state.opt_state)) if self._setup.has_rate else []
        timings: dict[str, Any] = {"learning_rate": rate}
        if self._window is not None and step > self._window[0]:
            first, began, before = self._window
            timings["steps_per_second"] = (step - first) / (now - began)
            if waited:
                timings["wait_share"] = (waited - before) / (now - began)
        timings["seconds"] = time.monotonic() - self._began
        self._window = (step, now, waited)
        self._queue.append((step, "train", {"": [metrics]}, timings))

    def evaluation(self, step: int, parts: Parts, state: TrainState) -> TrainState:
        """Queue the metrics of an evaluation, with a copy of its state if it may be the best.

        Returns the state for the next step. Only an optimizer that follows evaluations makes it
        wait for this one; a checkpoint of this step, the best one included, has the changed state.
        """
        if self._setup.plateaus:
            with self._clock.span("evaluate"):
                values = evaluation_values(parts)
            state = state.replace(opt_state=observe_evaluation(state.opt_state, values))
        candidate = None if self.best is None else tree.copy(state)
        self._queue.append((step, "valid", parts, candidate))
        return state

    def read(self) -> None:
        """Turn queued metrics into rows, and send these to file, trackers, screen and `log`."""
        queue, self._queue = self._queue, []
        for step, split, parts, more in queue:
            epoch = step / self._setup.steps_per_epoch
            row: Row = {"step": step, "epoch": epoch, "split": split}
            with self._clock.span("compute" if split == "train" else "evaluate"):
                row |= evaluation_values(parts)
            if split == "train":
                row |= _with_rate(more)
            with self._slow_phase("logging", step):  # a tracker may import its package
                self._rows.write(row)
            if split == "valid" and self.best is not None and self.best.see(row):
                self.best_state = more
                self._save(step, more)

    def check_divergence(self, state: TrainState, wait: bool = False) -> None:
        """Raise `Diverged` if too many steps in a row were skipped up to the boundary before.

        The counts of `state` are checked in the next call, or now with `wait`.
        """
        counts, self._counts = self._counts, copy_guard_states(state)
        for each in [counts, self._counts] if wait else [counts]:
            check_guard_states(each, self._setup.feed, self._setup.guard)

    def progress(self, step: int) -> None:
        """Update the progress bar; read the first row at once, to show early that the run works."""
        self._last = step
        self._rows.bar.at(step)
        if not self.rows:
            self.read()

    def is_save_due(self) -> bool:
        """Whether it is time for a checkpoint."""
        seconds = self._setup.options.save_seconds
        return self.checkpoints is not None and time.monotonic() - self._saved >= seconds

    def save(self, step: int, state: TrainState, wait: bool = False) -> None:
        """Write a checkpoint, after all rows up to its step are in the log."""
        self.read()
        if self.checkpoints is not None:
            with self._clock.span("compute"):
                jax.block_until_ready(state)  # else the wait would count as saving
            self._save(step, state, wait, times=True)
            self._saved = time.monotonic()
        if wait:
            self._setup.report_phase("finishing", step, slow=True)

    def _save(self, step: int, state: TrainState, wait: bool = False, times: bool = False) -> None:
        """Save a checkpoint; the log is flushed first, because a resumed run relies on it."""
        run_dir = self._setup.run_dir
        if self.checkpoints is None or run_dir is None:
            return
        best: dict[str, Any] = {}
        if self.best is not None:
            best = {"best": self.best.step == step, "value": self.best.value}
            # The best one again if epochs grow, and the evaluation at the end no longer counts.
            best["protected"] = self.best.step_before(self._setup.total_steps)
        with self._clock.span("save"), self._slow_phase("saving", step):
            run_dir.check_not_removed()
            self._rows.flush()
            self.checkpoints.save(step, state, wait=wait, **best)
            if times:
                self._write_times()

    @contextmanager
    def _slow_phase(self, name: str, step: int) -> Iterator[None]:
        """In the block, this process may keep others waiting, as for a disk that takes seconds."""
        self._setup.report_phase(name, step, slow=True)
        yield
        self._setup.report_phase("training", step)

    def _write_times(self) -> None:
        if self._times is not None:
            program = self._clock.program
            flops = None if program is None else program.flops()
            now = sessions.session(self._clock, self._first, self._last, flops)
            sessions.write(self._times, self._sessions, now)

    def close(self) -> None:
        """Finish pending writes and close the files."""
        self._rows.bar.close()
        run_dir = self._setup.run_dir
        if self.checkpoints is not None and run_dir is not None:
            run_dir.check_not_removed()
            with self._clock.span("save"):
                self.checkpoints.wait()
            self._write_times()
        self._rows.close()


class RowWriter:
    """Sends each row to `metrics.jsonl`, the progress bar, the caller's `log` and the trackers."""

    def __init__(self, setup: TrainingSetup, log_callback: LogCallback | None):
        run_dir = setup.run_dir if is_process_0() else None
        self._setup = setup
        self.written: list[Row] = []
        self.bar = ProgressBar(setup.total_steps, shown=setup.options.bar and is_process_0())
        self._file = MetricsLog(run_dir.metrics) if run_dir else None
        self.callback = log_callback
        self.failure: Exception | None = None
        self._trackers: list[Tracker] = []
        if run_dir is not None:
            self._trackers = open_trackers(setup.options.track, run_dir)

    def cut(self, step: int) -> None:
        """Drop the rows after a step, and those that this run does not write, on disk too."""
        self.written = on_process_0(
            lambda: self._file.cut(step, self._setup.writes) if self._file else []
        )

    def write(self, row: Row) -> None:
        """Send one row to file, bar, callback and trackers."""
        self.written.append(row)
        values = scalars_of(row)
        if self._file is not None:
            self._file.append(row)
        self.bar.show(row["step"], row["split"], values)
        if self.callback is not None and self.failure is None:
            self._call(self.callback, {"split": row["split"], **values})
        for tracker in self._trackers:  # last: their packages are imported for the first row
            tracker.write(row)

    def _call(self, callback: LogCallback, values: dict[str, Any]) -> None:
        """Call the caller's `log`; keep its error until the run is saved, and then call it no more.

        A KeyboardInterrupt, from a second Ctrl-C, is raised at once.
        """
        try:
            callback(values)
        except Exception as failure:
            self.failure = failure

    def flush(self) -> None:
        """Make every row durable."""
        for sink in (self._file, *self._trackers):
            if sink is not None:
                sink.sync()

    def close(self) -> None:
        """Make every row durable and release the files."""
        for sink in (self._file, *self._trackers):
            if sink is not None:
                sink.close()


def evaluation_values(parts: Parts) -> Row:
    """The values of metrics, summed over the batches of each set; waits for the device."""
    row: Row = {}
    for name, batches in parts.items():
        values = measure.compute(add_on_host(batches))
        values = {"loss": values["loss"], **values}
        row |= {join(name, metric): value for metric, value in values.items()}
    return row


def _with_rate(more: Row) -> Row:
    """The timings of a row, after the learning rate if it is known."""
    factors = more.pop("learning_rate")
    if not factors or any(map(is_distributed, factors)):
        return more
    rate = np.prod(np.stack([np.asarray(x, np.float64) for x in factors]), 0)
    return {"learning_rate": rate.tolist(), **more}


def check_callback(callback: Any) -> None:
    """Raise `InputError` unless `log` is a function or None."""
    if callback is not None and not callable(callback):
        raise error(
            "log",
            expected="a function of one row, a dict of scalars",
            got=repr(callback),
            fix="pass log=print, for example",
        )


def _name(callback: Any) -> str:
    return getattr(callback, "__qualname__", type(callback).__name__)


def copy_guard_states(state: TrainState) -> list[GuardState]:
    """A copy of the counts of every `guard` in a state, which survives its donation."""
    records: Any = find_records(state.extra, GuardState)
    return tree.copy([dataclasses.replace(counts, inner=None) for counts in records])


def check_guard_states(counts: Sequence[GuardState], feed: Feed, limit: int) -> None:
    """Raise `Diverged` if every member skipped too many steps in a row.

    The guard's own limit decides; `limit`, for the message, is 0 if the learner has its own guard.
    """
    if not counts:
        return
    failed = np.concatenate([np.ravel(np.asarray(count.failed)) for count in counts])
    if (failed < 0).any():
        return
    first = int(failed.min())
    rows = feed.rows(first)[0].tolist()
    examples = ", ".join(map(str, rows[:16])) + (", ..." if len(rows) > 16 else "")
    raise Diverged(
        f"training diverged: in {limit or 'too many'} steps in a row the loss or gradient was "
        "NaN or infinite\n"
        f"  first bad step: {first}\n"
        f"  its batch:      examples {examples}\n"
        "  fix:            lower the learning rate, clip the gradient, or check these examples;\n"
        "                  the state has the weights from before that step"
    )
