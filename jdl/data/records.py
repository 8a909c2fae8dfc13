"""`Data`, which every loader returns, and `Report`, which cleaning and checks return."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from jdl.core.errors import check_range, error
from jdl.core.reprs import describe_arrays

Arrays = dict[str, np.ndarray]

MAX_TOTAL_STEPS = 2**31 - 1

SPLIT_NAMES = {"train": "train", "training": "train", "test": "test", "testing": "test"} | (
    dict.fromkeys(("valid", "validation", "val", "dev"), "valid")
)
"""What the splits are called in files and folders, and their names in jdl."""


def count_steps(epochs: float, examples: int, batch_size: int) -> int:
    """The number of steps of a run, rounded up, and at least 1.

    Raises `InputError` for more than 2**31 - 1 steps.

    >>> count_steps(epochs=1, examples=50, batch_size=8)
    7
    """
    # The tolerance keeps a product such as 0.1 * 3 * 10 from adding a step.
    total = max(1, math.ceil(epochs * examples / batch_size - 1e-9))
    if total > MAX_TOTAL_STEPS:
        raise error(
            "epochs",
            expected=f"at most {MAX_TOTAL_STEPS} steps in total",
            got=f"{epochs:g} epochs of {examples / batch_size:g} steps each",
            fix="lower epochs, or raise batch_size",
        )
    return total


class Data(NamedTuple):
    """A data set in three splits, with metadata.

    `train` and `valid` are dicts of arrays: `x` float32 (n, ...), and `y` int32 (n,) for classes or
    float32 (n, k) for regression. `test` is a function that returns such a dict, so that the test
    split is read only when you call it. `info` holds `name`, `classes` (None for regression),
    `shape` (of one example), `sizes`, `scaler`, `source`, `licence` and `seed`.

    >>> x = np.zeros((4, 2), np.float32)
    >>> data = Data({"x": x}, {"x": x[:1]}, lambda: {"x": x[:2]}, {"name": "zeros"})
    >>> data.train["x"].shape, data.test()["x"].shape
    ((4, 2), (2, 2))
    """

    train: Arrays
    valid: Arrays
    test: Callable[[], Arrays]
    info: dict[str, Any]

    def __repr__(self) -> str:
        classes = self.info.get("classes")
        shown = {
            "name": self.info.get("name"),
            "train": describe_arrays(self.train),
            "valid": describe_arrays(self.valid) if self.valid else None,
            "classes": classes,
        }
        return f"Data({'; '.join(f'{k}: {v}' for k, v in shown.items() if v is not None)})"

    def steps(self, epochs: float, batch_size: int) -> int:
        """The number of steps that `fit` takes in `epochs` epochs, rounded up, for a schedule.

        Raises `InputError` for a batch size below 1 and for negative epochs.

        >>> Data({"x": np.zeros((10, 2))}, {}, dict, {}).steps(epochs=3, batch_size=4)
        8
        """
        check_range("batch_size", batch_size, 1)
        check_range("epochs", epochs, 0)
        return count_steps(epochs, len(next(iter(self.train.values()))), batch_size)


def read_test_split(data: Any) -> Arrays | None:
    """The test split of a `Data`; None if it is empty, and for data without one.

    >>> read_test_split(Data({"x": np.zeros(4)}, {}, dict, {})) is None
    True
    """
    read: Any = getattr(data, "test", None)
    examples: Any = read() if callable(read) else read
    return examples or None


@dataclass(frozen=True)
class Report:
    """What a function found or changed in a data set; `print` shows it as text.

    >>> print(Report("duplicates in 9 examples", {"dropped": (3, 7)}, {"contradicting": 0}))
    duplicates in 9 examples
      dropped: 2 (rows 3, 7)
      contradicting: 0
    """

    title: str
    rows: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Indices of the examples concerned, by finding or change."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Other counts, by name."""
    shown: int = field(default=10, repr=False)
    """How many indices of each kind `print` shows; `rows` holds them all."""

    def __str__(self) -> str:
        lines = [f"  {name}: {len(rows)}{self._listing(rows)}" for name, rows in self.rows.items()]
        lines += [f"  {name}: {count}" for name, count in self.counts.items()]
        return "\n".join([self.title, *lines])

    def _listing(self, rows: tuple[int, ...]) -> str:
        if not rows:
            return ""
        more = ", ..." if len(rows) > self.shown else ""
        return f" (rows {', '.join(map(str, rows[: self.shown]))}{more})"
