"""CSV files with typed columns; an error names file, line and column."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jdl.core.errors import InputError, did_you_mean, error
from jdl.core.paths import user_path
from jdl.data.readers.binary import unreadable

_TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def read_csv(
    path: str | Path, types: Mapping[str, type] | type, *, delimiter: str = ","
) -> dict[str, np.ndarray]:
    r"""Read the columns of a CSV file whose first line holds their names; each has shape (n,).

    `types` gives the type of each column to read, `int`, `float`, `bool` or `str`; a single type
    applies to every column. An empty cell is nan in a float column and "" in a text column. The
    file must be UTF-8 and quoted as in RFC 4180.

    Raises `InputError`, naming file and line, for a cell that does not match its type, rows of
    different lengths, missing or repeated columns, and a file that cannot be read.

    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "flowers.csv"
    >>> _ = file.write_text("kind,length\nrose,3.5\niris,\n")
    >>> read_csv(file, {"length": float, "kind": str})["length"]
    array([3.5, nan])
    """
    path = user_path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = _lines(csv.reader(file, delimiter=delimiter, strict=True), path)
            header = _header(next(lines, None), path)
            column_types = _column_types(types, header, path)
            columns: dict[str, list[Any]] = {name: [] for name in column_types}
            for number, row in lines:
                if len(row) != len(header):
                    expected = f"{len(header)} cells, as in the header"
                    raise _wrong(path, number, expected, str(len(row)))
                for name, kind in column_types.items():
                    cell = row[header.index(name)].strip()
                    columns[name].append(_cell(cell, kind, path, number, name))
    except (OSError, UnicodeDecodeError) as reason:
        raise unreadable(path, reason, "a CSV file in UTF-8") from None
    if not next(iter(columns.values())):
        raise error(
            str(path),
            expected="at least one row after the header",
            got="none",
            fix="check the file",
        )
    return {name: _array(columns[name], kind, path, name) for name, kind in column_types.items()}


def stack_columns(table: Mapping[str, np.ndarray], columns: Sequence[str]) -> np.ndarray:
    """Stack numeric columns of a table: float32 (n, columns), ready for training.

    Raises `InputError` for a column that is missing or not numeric.

    >>> stack_columns({"a": np.array([1, 2]), "b": np.array([0.5, 0.0])}, ["b", "a"]).tolist()
    [[0.5, 1.0], [0.0, 2.0]]
    """
    for name in columns:
        if name not in table or table[name].dtype.kind not in "iufb":
            missing = name not in table
            raise error(
                f'column "{name}"',
                expected="a numeric column",
                got="no such column" if missing else f"{table[name].dtype}",
                fix=did_you_mean(name, table) if missing else "encode it first (jdl.data.encode)",
            )
    return np.stack([table[name].astype(np.float32) for name in columns], axis=1)


def _lines(reader: Any, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Non-empty rows, each with the number of its first line."""
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
        raise error(str(path), expected="a header line", got="an empty file", fix="check the file")
    number, names = first[0], [name.strip() for name in first[1]]
    if len(set(names)) < len(names) or "" in names:
        twice = next(name for name in names if names.count(name) > 1 or not name)
        got = f'"{twice}"' if twice else "no name"
        raise _wrong(path, number, "a different name for each column", got)
    return names


def _column_types(
    types: Mapping[str, type] | type, header: list[str], path: Path
) -> dict[str, type]:
    column_types = dict(types) if isinstance(types, Mapping) else dict.fromkeys(header, types)
    if not column_types or any(kind not in _TYPE_NAMES for kind in column_types.values()):
        raise error(
            "types",
            expected="int, float, bool or str, or a dict of them by column",
            got=repr(types),
            fix='for example {"age": float, "name": str}',
        )
    for name in column_types:
        if name not in header:
            raise error(
                f'{path}, column "{name}"',
                expected=f"one of the columns {', '.join(header)}",
                got=name,
                fix=did_you_mean(name, header),
            )
    return column_types


def _cell(cell: str, kind: type, path: Path, number: int, name: str) -> Any:
    try:
        if kind is bool:
            return _BOOLEANS[cell.lower()]
        # Python parses 1_000 as 1000; CSV writers do not mean that.
        if kind in (int, float) and "_" in cell:
            raise ValueError
        return float("nan") if kind is float and not cell else kind(cell)
    except (ValueError, KeyError):
        got = f'"{cell}"' if cell else "an empty cell"
        raise _wrong(path, number, f'{_TYPE_NAMES[kind]} in column "{name}"', got) from None


def _array(values: list[Any], kind: type, path: Path, name: str) -> np.ndarray:
    try:
        return np.array(values, np.str_ if kind is str else np.int64 if kind is int else kind)
    except OverflowError:
        raise error(
            f'{path}, column "{name}"',
            expected="whole numbers that fit in 64 bits",
            got="a larger one",
            fix="read the column as float or str",
        ) from None


def _wrong(path: Path, number: int, expected: str, got: str) -> InputError:
    return error(f"{path}, line {number}", expected=expected, got=got, fix="correct that line")
