"""Where rows of metrics go besides the run directory: one file a tracker, one line in the table."""

from collections.abc import Iterable
from importlib import import_module
from typing import Any, Protocol

from jdl.core.errors import check_one_of
from jdl.core.types import Row

TRACKERS = {
    "tensorboard": "jdl.run.trackers.tensorboard",
}
"""The module of each tracker, which has a function `open_tracker(run_dir) -> Tracker`."""


class Tracker(Protocol):
    """What is told each row of a run's log. A subclass with nothing to flush only has `write`."""

    def write(self, row: Row) -> None:
        """Take one row: `step`, `epoch`, `split`, and metrics that are numbers or lists."""
        ...

    def sync(self) -> None:
        """Make every row durable; a checkpoint is written next."""
        return None

    def close(self) -> None:
        """Finish; the run has ended."""
        return None


def open_trackers(names: Iterable[str], run_dir: Any) -> list[Tracker]:
    """The trackers of these names, for a run in `run_dir`."""
    modules = [TRACKERS[check_one_of("track", name, TRACKERS)] for name in names]
    return [import_module(module).open_tracker(run_dir) for module in modules]
