"""Integer labels that do not number the classes from 0, such as years."""

import logging

import numpy as np

from jdl.core.errors import error
from jdl.data.records import Arrays

_log = logging.getLogger("jdl")


def number_labels(parts: dict[str, Arrays], where: str) -> tuple[dict[str, Arrays], list[int]]:
    """Number the classes that occur in `parts["train"]`; return the old labels in this order too.

    Labels (n,) stay as they are, with an empty list, if 0 and at least half of the numbers up to
    the largest label occur; so do targets of other shapes. A line in the log says that labels were
    numbered. Raises `InputError` for a label that occurs in another part only.

    >>> years = {"train": {"y": np.array([1990, 2005, 1990])}}
    >>> parts, names = number_labels(years, "years")
    >>> parts["train"]["y"].tolist(), names
    ([0, 1, 0], [1990, 2005])
    """
    y = parts["train"].get("y")
    if y is None or y.ndim != 1 or y.dtype.kind not in "iu":
        return parts, []
    names = np.unique(y)
    if names[-1] <= 1 or (names[0] == 0 and 2 * len(names) >= names[-1] + 1):
        return parts, []
    numbered = {
        part: {**arrays, "y": _positions(names, arrays["y"], f'{where}["y"], {part} part')}
        for part, arrays in parts.items()
    }
    _log.warning(
        '%s["y"]: the %d labels from %d to %d are numbered from 0; info["labels"] holds them',
        where,
        len(names),
        names[0],
        names[-1],
    )
    return numbered, names.tolist()


def _positions(names: np.ndarray, labels: np.ndarray, where: str) -> np.ndarray:
    unknown = np.setdiff1d(labels, names)
    if len(unknown):
        raise error(
            where,
            expected="labels that occur in the training part",
            got=", ".join(map(str, unknown[:5].tolist())),
            fix="add examples of these classes to the training part, or leave them out",
        )
    return np.searchsorted(names, labels).astype(np.int32)
