"""What a run writes down: rows of numbers, the best weights, checkpoints.

Values are read from the device one boundary late, when they have long been computed, so that
training never waits for its own log; only the first row is read at once. What is decided from
them, the best weights and an early end, is decided at fixed steps, never when a read happens to
arrive.
"""

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jdl import metrics as measure
from jdl.core import tree
from jdl.core.errors import Diverged, InputError
from jdl.core.types import Metrics, Row, TrainState
from jdl.learn.extra import find_records
from jdl.learn.guard import GuardState
from jdl.run.distributed.collectives import check_consistent, is_process_0, on_process_0
from jdl.run.distributed.watchdog import report_phase
from jdl.run.early_stopping import Best
from jdl.run.progress import ProgressBar
from jdl.run.storage.checkpoint import Checkpoints
from jdl.run.storage.metrics_log import MetricsLog, scalars_of
from jdl.run.storage.run_dir import RunDir
from jdl.run.telemetry import sessions
from jdl.run.telemetry.clock import TimeBreakdown
from jdl.run.telemetry.recompilation import CompilationMonitor
from jdl.run.trackers.tensorboard import TensorBoard

log = logging.getLogger("jdl")


def add_on_host(parts: Sequence[Metrics]) -> Metrics:
    """The sum of metrics in float64 and int64, exact over any number of batches."""
    wide = {"f": np.float64, "i": np.int64, "u": np.uint64}
    # What is in the host's own memory is read in a tenth of the time that `device_get` takes.
    host = list(parts) if jax.default_backend() == "cpu" else jax.device_get(list(parts))

    def total(*leaves: Any) -> Any:
        values = [np.asarray(leaf) for leaf in leaves]
        return sum(value.astype(wide.get(value.dtype.kind, value.dtype)) for value in values)

    return jax.tree.map(total, *host)


class Recorder:
    """The log, the best weights and the checkpoints of one run."""

    def __init__(
        self,
        folder: RunDir | None,
        best: Best | None,
        tell: Callable[[dict[str, float]], Any] | None,
        bar: ProgressBar,
        per_epoch: float,
        accounts: TimeBreakdown | None = None,
    ):
        self.accounts = accounts or TimeBreakdown()
        self.program: CompilationMonitor | None = None
        """The program of a step, for its arithmetic."""
        self.rows: list[Row] = []
        self.best, self.best_state = best, None
        self._tell, self._bar, self._per_epoch = tell, bar, per_epoch
        self._queue: list[tuple[int, str, list[Metrics], Any]] = []
        # Of several processes the first one writes; all of them save their parts of the state.
        writes = folder is not None and is_process_0()
        self._file = MetricsLog(folder.metrics) if folder and writes else None
        self._events = TensorBoard(folder.path / "events") if folder and writes else None
        self.checkpoints = Checkpoints(folder.checkpoints) if folder else None
        self._times = folder.times if folder and writes else None
        self._sessions = sessions.read(folder.times) if folder else []
        self._first = self._last = 0
        self._began = self._saved = time.monotonic()
        self._clock: tuple[int, float, float] | None = None

    def resume(self, state: TrainState) -> TrainState:
        """The newest good checkpoint, with the log cut back to it; `state` where there is none."""
        state = self._resumed(state)
        self._first = self._last = int(state.step)
        self.accounts.devices = len(state.step.sharding.device_set)
        return state

    def _resumed(self, state: TrainState) -> TrainState:
        if self.checkpoints is None or not on_process_0(self.checkpoints.steps):
            if self._file is not None:
                self._file.cut(-1)
            return state
        target = state
        state, step = self.checkpoints.restore(target)
        check_consistent({"the newest good checkpoint": step})
        self.rows = on_process_0(lambda: self._file.cut(step) if self._file else [])
        if self.best is not None:
            for row in self.rows:
                if row["split"] == "valid":
                    self.best.see(row)
            if self.best.step is not None:
                try:
                    self.best_state, _ = self.checkpoints.restore(target, self.best.step)
                except InputError as gone:
                    log.warning("the best weights so far are lost: %s", gone)
        return state

    def training(self, step: int, metrics: Metrics) -> None:
        """Note the sums over a window of steps, to be read later."""
        now, waited = time.perf_counter(), self.accounts.seconds["data"]
        clocks = {}
        if self._clock is not None and step > self._clock[0]:
            first, began, before = self._clock
            clocks["steps_per_second"] = (step - first) / (now - began)
            if waited:
                clocks["wait_share"] = (waited - before) / (now - began)
        clocks["seconds"] = time.monotonic() - self._began
        self._clock = (step, now, waited)
        self._queue.append((step, "train", [metrics], clocks))

    def evaluation(self, step: int, parts: list[Metrics], state: TrainState) -> None:
        """Note the parts of an evaluation; its weights are kept until it is known to be best."""
        candidate = None if self.best is None else tree.copy(state)
        self._queue.append((step, "valid", parts, candidate))

    def read(self) -> None:
        """Turn what was noted into rows, and send them to file, events, screen and `log`."""
        queue, self._queue = self._queue, []
        for step, split, parts, more in queue:
            row: Row = {"step": step, "epoch": step / self._per_epoch, "split": split}
            with self.accounts.span("compute" if split == "train" else "evaluate"):
                host = add_on_host(parts)  # waits for the device
            numbers = measure.compute(host)
            row |= {"loss": numbers["loss"], **numbers}
            if split == "train":
                row |= more
            self._write(row)
            if split == "valid" and self.best is not None and self.best.see(row):
                self.best_state = more
                self._keep(step, more, best=True)

    def _write(self, row: Row) -> None:
        self.rows.append(row)
        numbers = scalars_of(row)
        if self._file is not None:
            self._file.append(row)
        self._bar.show(row["step"], row["split"], numbers)
        if self._tell is not None:
            self._tell({"split": row["split"], **numbers})
        if self._events is not None:  # last: its package is imported for the first row
            self._events.scalars(
                row["step"], {f"{row['split']}/{k}": v for k, v in numbers.items()}
            )

    def progress(self, step: int) -> None:
        """Move the bar."""
        self._last = step
        self._bar.at(step)

    def save_due(self, seconds: float) -> bool:
        """Whether it is time for a checkpoint."""
        return self.checkpoints is not None and time.monotonic() - self._saved >= seconds

    def save(self, step: int, state: TrainState, wait: bool = False) -> None:
        """Write a checkpoint; everything up to its step is in the log before it exists."""
        self.read()
        if self.checkpoints is None:
            return
        with self.accounts.span("compute"):
            jax.block_until_ready(state)  # which saving would wait for
        is_best = self.best is not None and self.best.step == step
        self._keep(step, state, best=is_best, wait=wait)
        self._write_times()
        self._saved = time.monotonic()

    def _write_times(self) -> None:
        if self._times is not None:
            work = None if self.program is None else self.program.flops()
            now = sessions.session(self.accounts, self._first, self._last, work)
            sessions.write(self._times, self._sessions, now)

    def _keep(self, step: int, state: TrainState, best: bool, wait: bool = False) -> None:
        """A run may be gone on with from a checkpoint, so its log has to be complete first."""
        if self.checkpoints is None:
            return
        with self.accounts.span("save"):
            for sink in (self._file, self._events):
                if sink is not None:
                    sink.sync()
            report_phase("saving", step, slow=True)
            self.checkpoints.save(step, state, best=best, wait=wait)
            report_phase("training", step)

    def close(self) -> None:
        """Finish what is being written."""
        self._bar.close()
        if self.checkpoints is not None:
            with self.accounts.span("save"):
                self.checkpoints.wait()
            self._write_times()
        for sink in (self._file, self._events):
            if sink is not None:
                sink.close()


def copy_skipped_steps(state: TrainState) -> list[GuardState]:
    """The counts of every `guard` in a state, copied so that they outlive its donation."""
    found: Any = [
        dataclasses.replace(guard, inner=None) for guard in find_records(state.extra, GuardState)
    ]
    return tree.copy(found)


def check_divergence(counts: list[GuardState], feed: Any, limit: int) -> None:
    """Raise `Diverged` when every member skipped too many steps in a row.

    That is `limit` times, or as often as the learner's own guard says where the limit is 0.
    """
    if not counts:
        return
    failed = np.concatenate([np.ravel(np.asarray(count.failed)) for count in counts])
    if (failed < 0).any():
        return
    first = int(failed.min())
    rows = feed.rows(first)[0].tolist()
    shown = ", ".join(map(str, rows[:16])) + (", ..." if len(rows) > 16 else "")
    raise Diverged(
        f"training diverged: {limit or 'too many'} steps in a row gave a loss or gradient "
        "that is not finite\n"
        f"  first bad step: {first}\n"
        f"  its batch:      examples {shown}\n"
        "  fix:            lower the learning rate, clip the gradient, or look at these examples;\n"
        "                  the weights are those from before that step"
    )
