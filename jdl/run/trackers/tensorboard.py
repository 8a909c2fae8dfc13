"""TensorBoard event files, through tensorboardX."""

import importlib.util
import re
import sys
import time
from pathlib import Path
from typing import Any

from jdl.core.types import Row
from jdl.run.storage.files import explain_write_errors
from jdl.run.storage.metrics_log import log, scalars_of
from jdl.run.storage.run_dir import RunDir


def open_tracker(run_dir: RunDir) -> "TensorBoard":
    """The tracker that writes to `events/` in the run directory."""
    return TensorBoard(run_dir.events)


class TensorBoard:
    """Writes TensorBoard events, if tensorboardX is installed.

    Events are written in the calling thread: the queue of tensorboardX takes longer than writing,
    and a profiler that starts at the same time may lose its threads.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self._file: Any = None
        self._absent = importlib.util.find_spec("tensorboardX") is None
        if self._absent:
            log.debug('no TensorBoard events; for these: pip install "jdl-jax[tensorboard]"')

    def write(self, row: Row) -> None:
        """Add the scalars of a row as one event; it is on disk after `sync` or `close`."""
        if self._absent:
            return
        step, split = row["step"], row["split"]
        summaries = [
            {"tag": re.sub(r"[^-/\w.]", "_", f"{split}/{name}"), "simple_value": value}
            for name, value in scalars_of(row).items()
            if name != "step"
        ]
        with explain_write_errors(self.folder):
            if self._file is None:
                self._file = self._open(step)
            self._file.write_event(_event(step, summary={"value": summaries}))

    def _open(self, step: int) -> Any:
        before = len(list(self.folder.glob("events.*")))
        self.folder.mkdir(exist_ok=True)
        # Names have a resolution of a second, in which a run may end and be resumed.
        file = _event_writer()(str(self.folder / "events"), f".{before}" if before else "")
        if before:
            # A resumed run writes some steps again; TensorBoard then drops the old ones.
            file.write_event(_event(step, session_log={"status": "START"}))
        return file

    def sync(self) -> None:
        """Make every event durable."""
        if self._file is not None:
            with explain_write_errors(self.folder):
                self._file.flush()

    def close(self) -> None:
        """Make every event durable and release the file."""
        if self._file is not None:
            with explain_write_errors(self.folder):
                self._file.close()
            self._file = None


def _event(step: int, **content: Any) -> Any:
    from tensorboardX.proto.event_pb2 import (
        Event,  # pyright: ignore[reportAttributeAccessIssue]
    )

    return Event(wall_time=time.time(), step=step, **content)


def _event_writer() -> Any:
    """The event writer of tensorboardX, imported without PyTorch.

    tensorboardX imports PyTorch for one type annotation, which takes more than a second.
    """
    unused = "torch" not in sys.modules
    if unused:
        sys.modules["torch"] = None  # pyright: ignore[reportArgumentType]
    try:
        from tensorboardX.event_file_writer import EventsWriter
    finally:
        if unused:
            sys.modules.pop("torch", None)  # another thread may have been first
    return EventsWriter
