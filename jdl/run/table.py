"""Numbers of several seeds as a table of text."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def table(rows: Mapping[str, Mapping[str, Any]], corner: str = "", digits: int = 4) -> str:
    """Mean and standard deviation over seeds, for each row and column, aligned.

    A cell holds numbers (n,), shown as "mean ± standard deviation", or one number. All rows have
    the columns of the first.

    >>> print(table({"plain": {"loss": [0.5, 0.7]}, "dropout": {"loss": 0.25}}, "net", digits=2))
    net      loss
    plain    0.60 ± 0.10
    dropout  0.25
    """
    columns = list(next(iter(rows.values())))
    cells = [[corner, *columns]]
    for name, row in rows.items():
        cells.append([name, *[_shown(row[column], digits) for column in columns]])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    padded = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in cells
    )
    return "\n".join(line.rstrip() for line in padded)


def _shown(values: Any, digits: int) -> str:
    mean = f"{np.mean(values):.{digits}f}"
    return mean if np.ndim(values) == 0 else f"{mean} ± {np.std(values):.{digits}f}"
