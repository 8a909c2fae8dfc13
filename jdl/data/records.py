"""What loading gives, and what cleaning and checking report."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from jdl.core.errors import check_range

Arrays = dict[str, np.ndarray]


class Data(NamedTuple):
    """Three parts of a data set, and what is known about it.

    `train` and `valid` are dicts of arrays, {"x": float32 [n, ...], "y": int32 [n]} or, for
    regression, y float32 [n, k]. `test` is a function that returns such a dict, so that the test
    part is read only where the program says so. `info` holds `name`, `classes` (None for
    regression), `shape` (of one example), `sizes`, `scaler`, `source`, `licence` and `seed`.
    """

    train: Arrays
    valid: Arrays
    test: Callable[[], Arrays]
    info: dict[str, Any]

    def steps(self, epochs: float, batch_size: int) -> int:
        """Steps in that many passes over the training part, for a schedule; at least 1.

        >>> Data({"x": np.zeros((10, 2))}, {}, dict, {}).steps(epochs=3, batch_size=4)
        7
        """
        check_range("batch_size", batch_size, 1)
        return max(1, int(epochs * len(next(iter(self.train.values()))) // batch_size))


@dataclass(frozen=True)
class Report:
    """What a function found in a data set, or did to it; `print` shows it as a short text.

    >>> print(Report("duplicates in 9 examples", {"dropped": (3, 7)}, {"contradicting": 0}))
    duplicates in 9 examples
      dropped: 2 (rows 3, 7)
      contradicting: 0
    """

    title: str
    rows: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """What was found or done, and the numbers of the examples that it befell."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Further numbers by name."""
    shown: int = field(default=10, repr=False)
    """Row numbers of each kind that `print` shows; `rows` holds all of them."""

    def __str__(self) -> str:
        lines = [f"  {name}: {len(rows)}{self._listed(rows)}" for name, rows in self.rows.items()]
        lines += [f"  {name}: {number}" for name, number in self.counts.items()]
        return "\n".join([self.title, *lines])

    def _listed(self, rows: tuple[int, ...]) -> str:
        if not rows:
            return ""
        more = ", ..." if len(rows) > self.shown else ""
        return f" (rows {', '.join(map(str, rows[: self.shown]))}{more})"
