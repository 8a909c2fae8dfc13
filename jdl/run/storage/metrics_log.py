"""`metrics.jsonl`: the rows of a run's log."""

import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from jdl.core.errors import error, from_json
from jdl.core.paths import user_path
from jdl.core.spread import mean_and_deviation
from jdl.core.types import Row
from jdl.run.storage.files import explain_write_errors, write_bytes

log = logging.getLogger("jdl")


def read_metrics(path: Path) -> list[Row]:
    """The rows of a `metrics.jsonl`; empty if there is no file.

    An incomplete last line, which a killed process leaves, is ignored. Raises `InputError` for any
    other line that cannot be read.
    """
    path = user_path(path)
    _check_is_file(path)
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
                expected='a JSON object with an integer "step"',
                got=repr(line[:40].decode(errors="replace")),
                fix="delete the line, or restore the file from a backup",
            )
        rows.append(row)
    return rows


class MetricsLog:
    """Writes `metrics.jsonl`: one JSON object for each row, with floats that read back exactly.

    Rows may hold numbers, strings and nested lists; arrays become lists. NaN and infinity are
    written as `NaN` and `Infinity`: not strict JSON, but Python and pandas read them.
    """

    def __init__(self, path: Path):
        self.path = user_path(path)
        self._file: TextIO | None = None

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row; it is on disk after `sync` or `close`."""
        line = json.dumps(row, default=_as_list) + "\n"
        with explain_write_errors(self.path):
            if self._file is None:
                _drop_torn_line(self.path)
                self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115
            self._file.write(line)

    def sync(self) -> None:
        """Make every row durable."""
        if self._file is not None:
            with explain_write_errors(self.path):
                self._file.flush()
                os.fsync(self._file.fileno())

    def cut(self, step: int, keep: Callable[[Row], bool] = lambda row: True) -> list[Row]:
        """Drop the rows after a step, and others that `keep` refuses; return the rest.

        The file is replaced atomically. Used when resuming.
        """
        self.close()
        rows = read_metrics(self.path)
        rows = [row for row in rows if row.get("step", 0) <= step and keep(row)]
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


def _check_is_file(path: Path) -> None:
    """Raise for anything else, because reading a device or a pipe might never end."""
    if path.exists() and not path.is_file():
        raise error(
            f"{path}",
            expected="a file",
            got="a directory, a device or a pipe",
            fix="remove it, or restore the file from a backup",
        )


def _drop_torn_line(path: Path) -> None:
    """Cut off an incomplete last line, which would make the next row unreadable."""
    _check_is_file(path)
    if path.exists():
        content = path.read_bytes()
        if content and not content.endswith(b"\n"):
            os.truncate(path, content.rfind(b"\n") + 1)


def scalars_of(row: Row) -> dict[str, float]:
    """The scalars of a row; a list over members becomes its mean and a `_std` (n - 1).

    >>> scalars_of({"step": 3, "split": "train", "loss": [1.0, 3.0]})
    {'step': 3, 'loss': 2.0, 'loss_std': 1.4142135623730951}
    """
    scalars: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, int | float):
            scalars[name] = value
        elif isinstance(value, list) and np.ndim(value) == 1:
            scalars[name], deviation = mean_and_deviation(value)
            if deviation is not None:
                scalars[f"{name}_std"] = deviation
    return scalars
