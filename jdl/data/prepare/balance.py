"""Unequal classes: weights for the loss, or examples repeated or left out, with a report.

Balance the training part only: validation and test keep the classes as they come.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jdl.core.errors import error
from jdl.data.arrays import as_arrays, check_labels
from jdl.data.records import Arrays, Report


def class_weights(labels: Any, classes: int | None = None) -> np.ndarray:
    r"""$w_k = n / (K n_k)$ for each class: equal total weight, mean weight 1 over the examples.

    For `jdl.tasks.class_weighted_loss`. Raises `InputError` for a class without examples.

    >>> class_weights(np.array([0, 0, 0, 1]))
    array([0.6666667, 2.       ], dtype=float32)
    """
    counts = _counts(labels, classes)
    return (counts.sum() / (len(counts) * counts)).astype(np.float32)


def oversample(
    data: Mapping[str, Any], seed: int = 0, *, mark: str | None = None
) -> tuple[Arrays, Report]:
    """Repeat examples of the smaller classes until each is as large as the largest.

    All examples stay, in their order, and the repeated ones, drawn with that seed, follow. Each
    is repeated as often as the others of its class, to within one. Split before, never after: a
    copy in the test part is a leak. `mark` is the name of an array to add, float32 [n]: 1 for
    what was there before, 0 for its copies.

    >>> data, report = oversample({"x": np.ones((4, 1), np.float32), "y": np.array([0, 0, 0, 1])})
    >>> print(report)
    4 examples oversampled to 6
      class 0: 3
      class 1, before: 1
      class 1: 3
    """

    def drawn(rows: np.ndarray, counts: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        whole, rest = divmod(int(counts.max()), len(rows))
        return np.concatenate([np.tile(rows, whole), draw.permutation(rows)[:rest]])

    made, report = _resampled(data, "oversampled", drawn, seed)
    if mark is not None:
        made[mark] = (np.arange(len(made["y"])) < len(data["y"])).astype(np.float32)
    return made, report


def undersample(data: Mapping[str, Any], seed: int = 0) -> tuple[Arrays, Report]:
    """Leave out examples of the larger classes, drawn with that seed, down to the smallest.

    >>> data, report = undersample({"x": np.ones((4, 1), np.float32), "y": np.array([0, 0, 0, 1])})
    >>> np.bincount(data["y"]).tolist()
    [1, 1]
    """

    def drawn(rows: np.ndarray, counts: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        return draw.permutation(rows)[: counts.min()]

    return _resampled(data, "undersampled", drawn, seed)


def make_rare(
    data: Mapping[str, Any], classes: Sequence[int], kept: int, seed: int = 0
) -> tuple[Arrays, Report]:
    """Make some classes rare: of each, `kept` examples drawn with that seed stay.

    For experiments on imbalance. The examples come back in random order.

    >>> few, report = make_rare({"x": np.ones((6, 1)), "y": np.array([0, 0, 0, 1, 1, 1])}, [1], 1)
    >>> np.bincount(few["y"]).tolist()
    [3, 1]
    """
    arrays, counts = _labelled(data)
    y = arrays["y"]
    order = np.random.default_rng(seed).permutation(len(y))
    place = np.empty(len(y), int)
    for k in range(len(counts)):
        of_class = y[order] == k
        place[of_class] = np.arange(counts[k])
    rows = order[~np.isin(y[order], list(classes)) | (place < kept)]
    report = Report(
        f"{len(y)} examples thinned to {len(rows)}",
        {},
        {f"class {k}": int(n) for k, n in enumerate(np.bincount(y[rows])) if k in classes},
    )
    return {name: value[rows] for name, value in arrays.items()}, report


def first_per_class(data: Mapping[str, Any], each: int) -> Arrays:
    """The first `each` examples of every class, class by class: for learning from few labels.

    >>> first_per_class({"x": np.arange(5.0), "y": np.array([1, 0, 1, 0, 1])}, 2)["x"].tolist()
    [1.0, 3.0, 0.0, 2.0]
    """
    arrays, counts = _labelled(data)
    rows = [np.flatnonzero(arrays["y"] == label)[:each] for label in range(len(counts))]
    return {name: value[np.concatenate(rows)] for name, value in arrays.items()}


def _resampled(data: Mapping[str, Any], verb: str, drawn: Callable, seed: int) -> Any:
    arrays, counts = _labelled(data)
    labels = arrays["y"]
    draw = np.random.default_rng(seed)
    groups = [drawn(np.flatnonzero(labels == k), counts, draw) for k in range(len(counts))]
    rows = np.sort(np.concatenate(groups))
    # Copies go behind the originals, so that the first rows are the data as it was.
    first = np.unique(rows, return_index=True)[1]
    rows = np.concatenate([rows[first], np.delete(rows, first)])
    after = np.bincount(labels[rows], minlength=len(counts))
    shown = {}
    for k, (one, other) in enumerate(zip(counts, after, strict=True)):
        shown |= {f"class {k}, before": int(one)} if one != other else {}
        shown[f"class {k}"] = int(other)
    report = Report(f"{len(labels)} examples {verb} to {len(rows)}", {}, shown)
    return {name: value[rows] for name, value in arrays.items()}, report


def _labelled(data: Mapping[str, Any]) -> tuple[Arrays, np.ndarray]:
    """The arrays, and how many examples each class has."""
    arrays = as_arrays(data, notice=False)
    if "y" not in arrays:
        raise error(
            'data["y"]',
            expected="class labels",
            got=f"entries {', '.join(arrays)}",
            fix='give the labels as "y"',
        )
    return arrays, _counts(arrays["y"], None)


def _counts(labels: Any, classes: int | None) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or labels.size == 0 or labels.min() < 0:
        raise error(
            "labels",
            expected="class numbers from 0, shape [n]",
            got=f"{labels.dtype} of shape {list(labels.shape)}",
            fix="number the classes, e.g. with jdl.data.encode.label_encoder",
        )
    counts = np.bincount(labels, minlength=classes or 0)
    if classes is not None:
        check_labels(labels, classes, "labels")
    if (counts == 0).any():
        raise error(
            "labels",
            expected=f"examples of each of {len(counts)} classes",
            got=f"none of class {np.flatnonzero(counts == 0)[0]}",
            fix="take a larger training part, split it in proportion, or leave the class out",
        )
    return counts
