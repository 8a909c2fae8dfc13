"""Plain text tables, shapes, sizes, and rows of a log without their timings."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jdl.core.spread import mean_and_deviation
from jdl.core.types import Row

TIMING_WORDS = ("time", "seconds", "per_second", "wait")


def seed_table(rows: Mapping[str, Mapping[str, Any]], corner: str = "", digits: int = 4) -> str:
    """A text table of the mean and standard deviation over seeds, with aligned columns.

    A cell is an array (seeds,), shown as "mean ± standard deviation" (with n - 1; one seed has
    none), or a scalar. All rows need the columns of the first. `corner` heads the column of row
    names.

    >>> rows = {"plain": {"loss": [0.5, 0.7]}, "dropout": {"loss": 0.25}}
    >>> print(seed_table(rows, "net", digits=2))
    net      loss
    plain    0.60 ± 0.14
    dropout  0.25
    """
    columns = list(next(iter(rows.values())))
    cells = [[corner, *columns]]
    for name, row in rows.items():
        cells.append([name, *[_cell(row[column], digits) for column in columns]])
    return "\n".join(line.rstrip() for line in align_columns(cells, last=str.ljust))


def _cell(values: Any, digits: int) -> str:
    mean, deviation = mean_and_deviation(np.atleast_1d(values))
    text = f"{mean:.{digits}f}"
    return text if deviation is None else f"{text} ± {deviation:.{digits}f}"


def align_columns(
    lines: Sequence[Sequence[str]], last: Callable[[str, int], str] = str.rjust
) -> list[str]:
    """Format rows of cells as lines with aligned columns; by default the last is right-aligned.

    >>> align_columns([("leaf", "size"), ("kernel", "8")])
    ['leaf    size', 'kernel     8']
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    sides = [str.ljust] * (len(widths) - 1) + [last]

    def aligned(line: Sequence[str]) -> str:
        cells = zip(sides, line, widths, strict=True)
        return "  ".join(side(cell, width) for side, cell, width in cells)

    return list(map(aligned, lines))


def format_shape(sizes: Sequence[int]) -> str:
    """Format a shape as text.

    >>> format_shape((3, 4)), format_shape(())
    ('3x4', 'scalar')
    """
    return "x".join(map(str, sizes)) or "scalar"


def format_bytes(count: int) -> str:
    """Format a number of bytes in decimal units.

    >>> format_bytes(900136), format_bytes(12)
    ('900.1 kB', '12 bytes')
    """
    if count < 1000:
        return f"{count} bytes"
    value = count / 1000
    for unit in ("kB", "MB", "GB"):
        if value < 999.95:
            return f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def is_timing(name: str) -> bool:
    """Whether a value of this name depends on the clock, and so differs from run to run.

    >>> is_timing("steps_per_second"), is_timing("loss")
    (True, False)
    """
    return any(word in name for word in TIMING_WORDS)


def metrics_of(row: Mapping[str, Any]) -> Row:
    """The metrics of a row: without timings, step, epoch and split.

    >>> metrics_of({"step": 50, "epoch": 1.0, "split": "train", "loss": 0.5, "seconds": 1.25})
    {'loss': 0.5}
    """
    position = ("step", "epoch", "split")
    return {name: value for name, value in without_timings(row).items() if name not in position}


def without_timings(row: Mapping[str, Any]) -> Row:
    """A row without its timings, so that equal runs have equal rows.

    >>> without_timings({"step": 50, "loss": 0.5, "seconds": 1.25})
    {'step': 50, 'loss': 0.5}
    """
    return {name: value for name, value in row.items() if not is_timing(name)}
