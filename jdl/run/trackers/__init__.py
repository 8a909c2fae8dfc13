"""Trackers, which receive each row of the log; one module for each, and one line in `TRACKERS`."""

from collections.abc import Iterable
from importlib import import_module
from typing import Protocol

from jdl.core.errors import check_one_of
from jdl.core.types import Row
from jdl.run.storage.run_dir import RunDir

TRACKERS = {
    "tensorboard": "jdl.run.trackers.tensorboard",
}
"""The module of each tracker, which defines `open_tracker(run_dir) -> Tracker`."""


class Tracker(Protocol):
    """Receives each row of a run's log. A subclass must define `write` only."""

    def write(self, row: Row) -> None:
        """Record one row: `step`, `epoch`, `split`, and metrics, each a number or a list."""
        ...

    def sync(self) -> None:
        """Make every row durable; called before a checkpoint is written."""
        return None

    def close(self) -> None:
        """Finish; called when the run ends."""
        return None


def open_trackers(names: Iterable[str], run_dir: RunDir) -> list[Tracker]:
    """The trackers with these names, for a run in `run_dir`; `InputError` for an unknown name."""
    modules = [TRACKERS[check_one_of("track", name, TRACKERS)] for name in names]
    return [import_module(module).open_tracker(run_dir) for module in modules]
