"""Where the numbers of a run go: a file of rows, and TensorBoard."""

import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from jdl.core.errors import error, from_json
from jdl.core.types import Row
from jdl.run.storage.files import explain_write_errors, write_bytes

log = logging.getLogger("jdl")


def read_metrics(path: Path) -> list[Row]:
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
        with explain_write_errors(self.path):
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                _drop_torn_line(self.path)
                self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115
            self._file.write(line)

    def sync(self) -> None:
        """Make every row durable."""
        if self._file is not None:
            with explain_write_errors(self.path):
                self._file.flush()
                os.fsync(self._file.fileno())

    def cut(self, step: int) -> list[Row]:
        """Keep the rows up to a step (atomically), and return them: how a run resumes."""
        self.close()
        rows = [row for row in read_metrics(self.path) if row.get("step", 0) <= step]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        with explain_write_errors(self.path):
            if self.path.exists():
                write_bytes(self.path, text.encode())
        return rows

    def close(self) -> None:
        """Make every row durable and release the file."""
        self.sync()
        if self._file is not None:
            self._file.close()
            self._file = None


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


def scalars_of(row: Row) -> dict[str, float]:
    """The plain numbers of a row; a list over members becomes its mean and `_std`.

    >>> scalars_of({"step": 3, "split": "train", "loss": [1.0, 3.0]})
    {'step': 3, 'loss': 2.0, 'loss_std': 1.0}
    """
    numbers: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, int | float):
            numbers[name] = value
        elif isinstance(value, list) and np.ndim(value) == 1:
            finite = [v for v in value if math.isfinite(v)] or [math.nan]
            numbers |= {name: float(np.mean(finite)), f"{name}_std": float(np.std(finite))}
    return numbers
