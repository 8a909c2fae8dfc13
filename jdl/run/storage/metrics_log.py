"""Where the numbers of a run go: a file of rows, and TensorBoard."""

import importlib.util
import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from jdl.core.errors import error, from_json
from jdl.run.storage.run_dir import cannot_write, write_bytes

log = logging.getLogger("jdl")
Row = dict[str, Any]
CLOCKS = ("time", "seconds", "per_second", "wait")


def is_clock(name: str) -> bool:
    """Whether a number of this name depends on the clock, and so differs from run to run.

    >>> is_clock("steps_per_second"), is_clock("loss")
    (True, False)
    """
    return any(word in name for word in CLOCKS)


def without_clocks(row: Mapping[str, Any]) -> Row:
    """A row without what depends on the clock: equal for equal runs.

    >>> without_clocks({"step": 50, "loss": 0.5, "seconds": 1.25})
    {'step': 50, 'loss': 0.5}
    """
    return {name: value for name, value in row.items() if not is_clock(name)}


def read(path: Path) -> list[Row]:
    """The rows of a `metrics.jsonl`; no file is no rows.

    A last line without its end is what a killed process leaves, and is left out. Any other line
    that cannot be read is an `InputError`.
    """
    path = Path(path)
    _refuse_devices(path)
    try:
        *lines, _ = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = from_json(line)
        except ValueError as bad:
            row = bad
        if not isinstance(row, dict) or type(row.get("step", 0)) is not int:
            raise error(
                f"{path}, line {number}",
                expected="a JSON object",
                got=repr(line[:40].decode(errors="replace")),
                fix="delete the line, or restore the file from a backup",
            )
        rows.append(row)
    return rows


class MetricsLog:
    """`metrics.jsonl`: one JSON object a row, floats by `repr`, so that reading gives them back.

    Rows may hold numbers, strings and nested lists (arrays become lists). NaN and infinity are
    written as `NaN` and `Infinity`, which JavaScript and JSON proper do not know, but Python,
    pandas and the reader of this file do.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self._file: TextIO | None = None

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row; it is on the disk after `sync` or `close`."""
        line = json.dumps(row, default=_as_list) + "\n"
        with _writing(self.path):
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                _drop_torn_line(self.path)
                self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115
            self._file.write(line)

    def sync(self) -> None:
        """Make every row durable."""
        if self._file is not None:
            with _writing(self.path):
                self._file.flush()
                os.fsync(self._file.fileno())

    def cut(self, step: int) -> list[Row]:
        """Keep the rows up to a step (atomically), and return them: how a run resumes."""
        self.close()
        rows = [row for row in read(self.path) if row.get("step", 0) <= step]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        with _writing(self.path):
            if self.path.exists():
                write_bytes(self.path, text.encode())
        return rows

    def close(self) -> None:
        """Make every row durable and release the file."""
        self.sync()
        if self._file is not None:
            self._file.close()
            self._file = None


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """What the system refuses to write is said plainly."""
    try:
        yield
    except OSError as bad:
        raise cannot_write(path, bad) from bad


def _as_list(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a row holds numbers, strings and lists, not {type(value).__name__}")


def _refuse_devices(path: Path) -> None:
    """A device, or a pipe, could be read for ever."""
    if path.exists() and not path.is_file():
        raise error(
            f"{path}",
            expected="a file",
            got="a folder, a device or a pipe",
            fix="remove it, or restore the file from a backup",
        )


def _drop_torn_line(path: Path) -> None:
    """A row after a torn line would be lost with it."""
    _refuse_devices(path)
    if path.exists():
        content = path.read_bytes()
        if content and not content.endswith(b"\n"):
            os.truncate(path, content.rfind(b"\n") + 1)


class Events:
    """TensorBoard's event file, through tensorboardX; without that package nothing is written.

    It is written in place, as the file of rows is: tensorboardX's own queue would cost more than
    the writing, and its threads can be lost to a profiler that starts when they do.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self._file: Any = None
        self._absent = importlib.util.find_spec("tensorboardX") is None
        if self._absent:
            log.info('no TensorBoard events: pip install "jdl-jax[tensorboard]" writes them')

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add the numbers of a step, as one event; it is on the disk after `sync` or `close`."""
        if self._absent:
            return
        each = [
            {"tag": re.sub(r"[^-/\w.]", "_", name), "simple_value": value}
            for name, value in values.items()
        ]
        with _writing(self.folder):
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
            with _writing(self.folder):
                self._file.flush()

    def close(self) -> None:
        """Make every event durable and release the file."""
        if self._file is not None:
            with _writing(self.folder):
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
