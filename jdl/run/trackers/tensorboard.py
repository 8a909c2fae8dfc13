"""TensorBoard's event file, through tensorboardX."""

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
    """The events of a run, in its directory."""
    return TensorBoard(run_dir.events)


class TensorBoard:
    """TensorBoard's event file, through tensorboardX; without that package nothing is written.

    It is written in place, as the file of rows is: tensorboardX's own queue would cost more than
    the writing, and its threads can be lost to a profiler that starts when they do.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self._file: Any = None
        self._absent = importlib.util.find_spec("tensorboardX") is None
        if self._absent:
            log.debug('no TensorBoard events: pip install "jdl-jax[tensorboard]" writes them')

    def write(self, row: Row) -> None:
        """Add the numbers of a row, as one event; it is on the disk after `sync` or `close`."""
        if self._absent:
            return
        step, split = row["step"], row["split"]
        each = [
            {"tag": re.sub(r"[^-/\w.]", "_", f"{split}/{name}"), "simple_value": value}
            for name, value in scalars_of(row).items()
            if name != "step"
        ]
        with explain_write_errors(self.folder):
            if self._file is None:
                self._file = self._open(step)
            self._file.write_event(_event(step, summary={"value": each}))

    def _open(self, step: int) -> Any:
        before = len(list(self.folder.glob("events.*")))
        self.folder.mkdir(parents=True, exist_ok=True)
        # Its name holds a second only, in which a run may begin, end and be resumed.
        file = _event_writer()(str(self.folder / "events"), f".{before}" if before else "")
        if before:
            # A resumed run writes its steps again: TensorBoard then drops what it saw after them.
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
    """tensorboardX's event files, without the PyTorch that it imports for one type annotation.

    Where PyTorch is installed that takes more than a second of a run.
    """
    unused = "torch" not in sys.modules
    if unused:
        sys.modules["torch"] = None  # pyright: ignore[reportArgumentType]
    try:
        from tensorboardX.event_file_writer import EventsWriter
    finally:
        if unused:
            del sys.modules["torch"]
    return EventsWriter
