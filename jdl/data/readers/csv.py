"""CSV files with typed columns; an error names file, line and column."""

import csv
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jdl.core.errors import InputError, did_you_mean, error
from jdl.core.paths import user_path
from jdl.data.arrays import to_float32
from jdl.data.readers.binary import unreadable

_TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_NAMES_SHOWN = 20
_PADDING = 64
"""A text column whose array takes this many times the memory of its characters is refused..."""
_PADDED_BYTES = 2**28
"""...if it takes more than this: numpy gives every cell the room of the longest one."""


def read_csv(
    path: str | Path, types: Mapping[str, type] | type, *, delimiter: str = ","
) -> dict[str, np.ndarray]:
    r"""Read the columns of a CSV file whose first line holds their names; each has shape (n,).

    `types` gives the type of each column to read, `int`, `float`, `bool` or `str`; a single type
    applies to every column. An empty cell is nan in a float column and "" in a text column; so is
    an empty line in a file of one column. In other files empty lines are skipped. The file must be
    UTF-8 and quoted as in RFC 4180.

    Raises `InputError`, naming file and line, for a cell that does not match its type, a number too
    large for float64, rows of different lengths, missing or repeated columns, and a file that
    cannot be read.

    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "flowers.csv"
    >>> _ = file.write_text("kind,length\nrose,3.5\niris,\n")
    >>> read_csv(file, {"length": float, "kind": str})["length"]
    array([3.5, nan])
    """
    path = user_path(path)
    _check_delimiter(delimiter)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = read_rows(csv.reader(file, delimiter=delimiter, strict=True), path)
            header = _header(next((line for line in lines if line[1]), None), path)
            column_types = _column_types(types, header, path)
            places = {name: place for place, name in enumerate(header)}
            wanted = [(name, kind, places[name], []) for name, kind in column_types.items()]
            for number, row in lines:
                if not row:
                    if len(header) > 1:
                        continue
                    row = [""]
                if len(row) != len(header):
                    expected = f"{len(header)} cells, as in the header"
                    raise _wrong(path, number, expected, str(len(row)))
                for name, kind, place, cells in wanted:
                    cells.append(_cell(row[place].strip(), kind, path, number, name))
    except (OSError, UnicodeDecodeError) as reason:
        raise unreadable(path, reason, "a CSV file in UTF-8") from None
    if not wanted[0][-1]:
        raise error(
            str(path),
            expected="at least one row after the header",
            got="none",
            fix="check the file",
        )
    return {name: _array(cells, kind, path, name) for name, kind, _, cells in wanted}


def stack_columns(table: Mapping[str, np.ndarray], columns: Sequence[str]) -> np.ndarray:
    """Stack numeric columns of a table: float32 (n, columns), ready for training.

    Raises `InputError` for a column that is missing or not numeric, and for a value that float32
    cannot hold.

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
    return np.stack([to_float32(table[name], f'column "{name}"') for name in columns], axis=1)


def read_rows(reader: Any, path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a `csv.reader`, each with the number of its first line; empty lines are []."""
    while True:
        number = reader.line_num + 1
        try:
            yield number, next(reader)
        except StopIteration:
            return
        except csv.Error as reason:
            if "field limit" in str(reason):
                raise error(
                    f"{path}, line {number}",
                    expected=f"cells of at most {csv.field_size_limit():,} characters, Python's "
                    "limit for CSV files",
                    got="a longer one",
                    fix="close the quotation mark that is left open, shorten the cell, or call "
                    "csv.field_size_limit(2**24) first",
                ) from None
            raise _wrong(path, number, "cells quoted as in RFC 4180", str(reason)) from None


def _check_delimiter(delimiter: Any) -> None:
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n':
        raise error(
            "delimiter",
            expected="one character that is no quotation mark and no line end",
            got=repr(delimiter),
            fix='pass delimiter=";" or delimiter="\\t", for example',
        )


def _header(first: tuple[int, list[str]] | None, path: Path) -> list[str]:
    if first is None:
        raise error(str(path), expected="a header line", got="an empty file", fix="check the file")
    number, names = first[0], [name.strip() for name in first[1]]
    counts = Counter(names)
    if len(counts) < len(names) or "" in counts:
        twice = next(name for name in names if counts[name] > 1 or not name)
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
    known = set(header)
    for name in column_types:
        if name not in known:
            more = len(header) - _NAMES_SHOWN
            listing = ", ".join(header[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
            raise error(
                f'{path}, column "{name}"',
                expected=f"one of the columns {listing}",
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
        value = float("nan") if kind is float and not cell else kind(cell)
    except (ValueError, KeyError):
        got = f'"{cell}"' if cell else "an empty cell"
        raise _wrong(path, number, f'{_TYPE_NAMES[kind]} in column "{name}"', got) from None
    if kind is float and math.isinf(value) and "inf" not in cell.lower():
        raise _wrong(path, number, f'a number that fits in 64 bits in column "{name}"', cell)
    return value


def _array(values: list[Any], kind: type, path: Path, name: str) -> np.ndarray:
    if kind is str:
        _check_padding(values, f'{path}, column "{name}"')
    try:
        return np.array(values, np.str_ if kind is str else np.int64 if kind is int else kind)
    except OverflowError:
        raise error(
            f'{path}, column "{name}"',
            expected="whole numbers that fit in 64 bits",
            got="a larger one",
            fix="read the column as float or str",
        ) from None


def _check_padding(cells: list[str], where: str) -> None:
    """Raise `InputError` if a few long cells would make the array of all far larger than them."""
    lengths = [len(cell) for cell in cells]
    longest, characters = max(lengths), sum(lengths)
    size = len(cells) * longest * np.dtype("U1").itemsize
    if size > max(_PADDED_BYTES, _PADDING * np.dtype("U1").itemsize * characters):
        raise error(
            where,
            expected="text cells of similar length, because each takes the room of the longest",
            got=f"one of {longest:,} characters in row {lengths.index(longest) + 1}, and "
            f"{characters / len(cells):.0f} on average: {size / 2**30:.1f} GiB for "
            f"{len(cells):,} rows",
            fix="shorten that cell, or read the other columns only: types={...}",
        )


def _wrong(path: Path, number: int, expected: str, got: str) -> InputError:
    return error(f"{path}, line {number}", expected=expected, got=got, fix="correct that line")
