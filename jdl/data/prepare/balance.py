"""Imbalanced classes: weights for the loss, or examples repeated or dropped, with a report.

Balance the training split only; leave validation and test as they are.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jdl.core.errors import error
from jdl.data.arrays import as_arrays, check_labels
from jdl.data.records import Arrays, Report

Choose = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def class_weights(labels: ArrayLike, classes: int | None = None) -> np.ndarray:
    """Weights (K,) that give each class the same total weight: $w_k = n / (K n_k)$.

    $n_k$ is the number of `labels` (n,) of class k; the mean weight over the examples is 1, as with
    `class_weight="balanced"` in scikit-learn (King and Zeng 2001). Pass them to
    `jdl.tasks.class_weighted`. Raises `InputError` for a class without examples.

    >>> class_weights(np.array([0, 0, 0, 1]))
    array([0.6666667, 2.       ], dtype=float32)
    """
    counts = _counts(labels, classes)
    return (counts.sum() / (len(counts) * counts)).astype(np.float32)


def oversample(
    data: Mapping[str, Any], seed: int = 0, *, mark: str | None = None
) -> tuple[Arrays, Report]:
    """Repeat random examples of the smaller classes until all classes have equal size.

    `data` has arrays (n, ...), among them `y` (n,). All examples stay, in order, followed by the
    copies; within a class, examples are repeated equally often, to within one. Split before you
    oversample: a copy in the test split is a leak. `mark` names an array to add, float32 (n,), that
    is 1 for originals and 0 for copies. Raises `InputError` for missing or invalid labels.

    >>> data, report = oversample({"x": np.ones((4, 1), np.float32), "y": np.array([0, 0, 0, 1])})
    >>> print(report)
    4 examples oversampled to 6
      class 0: 3
      class 1, before: 1
      class 1: 3
    """

    def choose(rows: np.ndarray, counts: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        whole, rest = divmod(int(counts.max()), len(rows))
        return np.concatenate([np.tile(rows, whole), draw.permutation(rows)[:rest]])

    result, report = _resampled(data, "oversampled", choose, seed)
    if mark is not None:
        result[mark] = (np.arange(len(result["y"])) < len(data["y"])).astype(np.float32)
    return result, report


def undersample(data: Mapping[str, Any], seed: int = 0) -> tuple[Arrays, Report]:
    """Drop random examples of the larger classes until all classes have equal size.

    `data` has arrays (n, ...), among them `y` (n,). Raises `InputError` for missing or invalid
    labels.

    >>> data, report = undersample({"x": np.ones((4, 1), np.float32), "y": np.array([0, 0, 0, 1])})
    >>> np.bincount(data["y"]).tolist()
    [1, 1]
    """

    def choose(rows: np.ndarray, counts: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        return draw.permutation(rows)[: counts.min()]

    return _resampled(data, "undersampled", choose, seed)


def make_rare(
    data: Mapping[str, Any], classes: Sequence[int], kept: int, seed: int = 0
) -> tuple[Arrays, Report]:
    """Keep only `kept` random examples of each of the given classes, to study imbalance.

    `data` has arrays (n, ...), among them `y` (n,). The examples come back in random order. Raises
    `InputError` for missing or invalid labels, and for a negative count.

    >>> few, report = make_rare({"x": np.ones((6, 1)), "y": np.array([0, 0, 0, 1, 1, 1])}, [1], 1)
    >>> np.bincount(few["y"]).tolist()
    [3, 1]
    """
    _check_count("kept", kept, 0)
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
    """The first `each` examples of every class, class by class, for learning from few labels.

    `data` has arrays (n, ...), among them `y` (n,). Raises `InputError` for missing or invalid
    labels, and for a count below 1.

    >>> first_per_class({"x": np.arange(5.0), "y": np.array([1, 0, 1, 0, 1])}, 2)["x"].tolist()
    [1.0, 3.0, 0.0, 2.0]
    """
    _check_count("each", each, 1)
    arrays, counts = _labelled(data)
    rows = [np.flatnonzero(arrays["y"] == label)[:each] for label in range(len(counts))]
    return {name: value[np.concatenate(rows)] for name, value in arrays.items()}


def _resampled(
    data: Mapping[str, Any], verb: str, choose: Choose, seed: int
) -> tuple[Arrays, Report]:
    arrays, counts = _labelled(data)
    labels = arrays["y"]
    draw = np.random.default_rng(seed)
    groups = [choose(np.flatnonzero(labels == k), counts, draw) for k in range(len(counts))]
    rows = np.sort(np.concatenate(groups))
    # Copies go after the originals, so that the first rows are the original data.
    first = np.unique(rows, return_index=True)[1]
    rows = np.concatenate([rows[first], np.delete(rows, first)])
    after = np.bincount(labels[rows], minlength=len(counts))
    class_counts = {}
    for k, (one, other) in enumerate(zip(counts, after, strict=True)):
        class_counts |= {f"class {k}, before": int(one)} if one != other else {}
        class_counts[f"class {k}"] = int(other)
    report = Report(f"{len(labels)} examples {verb} to {len(rows)}", {}, class_counts)
    return {name: value[rows] for name, value in arrays.items()}, report


def _check_count(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int | np.integer) or value < least:
        raise error(
            name, expected=f"an integer of at least {least}", got=repr(value), fix=f"{name}=10"
        )


def _labelled(data: Mapping[str, Any]) -> tuple[Arrays, np.ndarray]:
    """The arrays, and the number of examples of each class."""
    arrays = as_arrays(data, notice=False)
    if "y" not in arrays:
        raise error(
            'data["y"]',
            expected="class labels",
            got=f"entries {', '.join(arrays)}",
            fix='pass the labels as "y"',
        )
    return arrays, _counts(arrays["y"], None)


def _counts(labels: Any, classes: int | None) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or labels.size == 0 or labels.min() < 0:
        raise error(
            "labels",
            expected="integers from 0 of shape (n,)",
            got=f"{labels.dtype} of shape {list(labels.shape)}",
            fix="encode the classes with jdl.data.encode.labels",
        )
    counts = np.bincount(labels, minlength=classes or 0)
    if classes is not None:
        check_labels(labels, classes, "labels")
    if (counts == 0).any():
        raise error(
            "labels",
            expected=f"examples of all {len(counts)} classes",
            got=f"none of class {np.flatnonzero(counts == 0)[0]}",
            fix="use a larger or a stratified training split, or leave the class out",
        )
    return counts
