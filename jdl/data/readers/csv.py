"""CSV files with typed columns; a cell that does not fit names file, line and column."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jdl.core.errors import InputError, did_you_mean, error
from jdl.data.readers.binary import unreadable

_MEANT = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def read_csv(
    path: str | Path, types: Mapping[str, type] | type, *, delimiter: str = ","
) -> dict[str, np.ndarray]:
    r"""The columns of a CSV file whose first line names them.

    `types` says of each column that is wanted whether it holds `int`, `float`, `bool` or `str`;
    one type stands for every column. Empty cells are nan in a column of floats and "" in one of
    text; elsewhere they are an error, and so is everything that does not fit its type: nothing is
    guessed. UTF-8, quoted as in RFC 4180. Raises `InputError`, naming file and line, for ragged
    rows, wrong types, missing or repeated columns, and files that cannot be read.

    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "flowers.csv"
    >>> _ = file.write_text("kind,length\nrose,3.5\niris,\n")
    >>> read_csv(file, {"length": float, "kind": str})["length"]
    array([3.5, nan])
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = _lines(csv.reader(file, delimiter=delimiter, strict=True), path)
            header = _header(next(lines, None), path)
            wanted = _wanted(types, header, path)
            columns: dict[str, list[Any]] = {name: [] for name in wanted}
            for number, row in lines:
                if len(row) != len(header):
                    expected = f"{len(header)} cells, as in the first line"
                    raise _wrong(path, number, expected, str(len(row)))
                for name, kind in wanted.items():
                    cell = row[header.index(name)].strip()
                    columns[name].append(_cell(cell, kind, path, number, name))
    except (OSError, UnicodeDecodeError) as reason:
        raise unreadable(path, reason, "a CSV file in UTF-8") from None
    if not next(iter(columns.values())):
        raise error(
            str(path),
            expected="at least one line after the first, which names the columns",
            got="none",
            fix="check the file",
        )
    return {name: _array(columns[name], kind, path, name) for name, kind in wanted.items()}


def stack_columns(table: Mapping[str, np.ndarray], columns: Sequence[str]) -> np.ndarray:
    """Columns of numbers side by side: float32 [n, columns], to train on.

    >>> stack_columns({"a": np.array([1, 2]), "b": np.array([0.5, 0.0])}, ["b", "a"]).tolist()
    [[0.5, 1.0], [0.0, 2.0]]
    """
    for name in columns:
        if name not in table or table[name].dtype.kind not in "iufb":
            missing = name not in table
            raise error(
                f'column "{name}"',
                expected="a column of numbers",
                got="no such column" if missing else f"{table[name].dtype}",
                fix=did_you_mean(name, table) if missing else "encode it first (jdl.data.encode)",
            )
    return np.stack([table[name].astype(np.float32) for name in columns], axis=1)


def _lines(reader: Any, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows with the number of their first line; empty lines are passed over."""
    while True:
        number = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as reason:
            raise _wrong(path, number, "cells quoted as in RFC 4180", str(reason)) from None
        if row:
            yield number, row


def _header(first: tuple[int, list[str]] | None, path: Path) -> list[str]:
    if first is None:
        raise error(str(path), expected="a first line", got="an empty file", fix="check the file")
    number, names = first[0], [name.strip() for name in first[1]]
    if len(set(names)) < len(names) or "" in names:
        twice = next(name for name in names if names.count(name) > 1 or not name)
        got = f'"{twice}"' if twice else "no name"
        raise _wrong(path, number, "a name of its own for each column", got)
    return names


def _wanted(types: Mapping[str, type] | type, header: list[str], path: Path) -> dict[str, type]:
    wanted = dict(types) if isinstance(types, Mapping) else dict.fromkeys(header, types)
    if not wanted or any(kind not in _MEANT for kind in wanted.values()):
        raise error(
            "types",
            expected="int, float, bool or str, or a dict of them by column",
            got=repr(types),
            fix='for example {"age": float, "name": str}',
        )
    for name in wanted:
        if name not in header:
            raise error(
                f'{path}, column "{name}"',
                expected=f"one of the columns {', '.join(header)}",
                got=name,
                fix=did_you_mean(name, header),
            )
    return wanted


def _cell(cell: str, kind: type, path: Path, number: int, name: str) -> Any:
    try:
        if kind is bool:
            return _TRUTH[cell.lower()]
        # Python reads 1_000 as a thousand; no CSV writer means that.
        if kind in (int, float) and "_" in cell:
            raise ValueError
        return float("nan") if kind is float and not cell else kind(cell)
    except (ValueError, KeyError):
        got = f'"{cell}"' if cell else "an empty cell"
        raise _wrong(path, number, f'{_MEANT[kind]} in column "{name}"', got) from None


def _array(values: list[Any], kind: type, path: Path, name: str) -> np.ndarray:
    try:
        return np.array(values, np.str_ if kind is str else np.int64 if kind is int else kind)
    except OverflowError:
        raise error(
            f'{path}, column "{name}"',
            expected="whole numbers of at most 64 bits",
            got="a larger one",
            fix="read the column as float or str",
        ) from None


def _wrong(path: Path, number: int, expected: str, got: str) -> InputError:
    return error(f"{path}, line {number}", expected=expected, got=got, fix="correct that line")
