"""Seeded splits: pure functions from labels, groups or times to arrays of indices.

`parts` are fractions that sum to one, (0.7, 0.1, 0.2), or counts, (55000, 5000). Each function
returns one int64 array of indices for each part; together they hold every example once. The
first part is the training part.
"""

from collections.abc import Sequence

import numpy as np

from jdl.core.errors import InputError, error
from jdl.data.order import Order

_EPOCH = 2**32 - 1
"""The epoch whose order makes the splits: no training run gets there with the same seed."""


def random(n: int, parts: Sequence[float], seed: int = 0) -> tuple[np.ndarray, ...]:
    """A split of n examples at random.

    >>> train, test = random(10, (0.8, 0.2), seed=0)
    >>> len(train), sorted([*train, *test]) == list(range(10))
    (8, True)
    """
    sizes = _sizes(n, parts)
    order = _shuffled(n, seed)
    return tuple(np.sort(part) for part in np.split(order, np.cumsum(sizes)[:-1]))


def stratified(labels: np.ndarray, parts: Sequence[float], seed: int = 0) -> tuple[np.ndarray, ...]:
    """A split in which every part has each class in proportion, to within one example.

    The sizes are exact, and the first part has at least one example of every class.

    >>> train, test = stratified(np.array([0, 1] * 10), (0.8, 0.2))
    >>> np.bincount(np.array([0, 1] * 10)[test]).tolist()
    [2, 2]
    """
    labels = _vector(labels, "labels")
    sizes = _sizes(len(labels), parts)
    order = _shuffled(len(labels), seed)
    order = order[np.argsort(labels[order], kind="stable")]
    first = np.unique(labels[order], return_index=True)[1]
    kept, rest = order[first], np.delete(order, first)
    if len(kept) > sizes[0]:
        raise error(
            "a stratified split",
            expected=f"a first part of at least {len(kept)} examples, one for each class",
            got=f"{sizes[0]} of {len(labels)} examples",
            fix="give that part more, or split at random",
        )
    # Evenly spaced places in a list sorted by class take from each class in proportion.
    taken = []
    for size in sizes[:0:-1]:
        places = ((np.arange(size) + 0.5) * len(rest) / size).astype(np.int64)
        taken.append(np.sort(rest[places]))
        rest = np.delete(rest, places)
    return (np.sort(np.concatenate([kept, rest])), *taken[::-1])


def grouped(groups: np.ndarray, parts: Sequence[float], seed: int = 0) -> tuple[np.ndarray, ...]:
    """A split that keeps every group (a patient, a speaker) whole in one part.

    Groups are dealt in random order, each to the part that lacks most, so sizes are close to
    `parts` where groups are small and many.

    >>> train, test = grouped(np.array(list("aabbcc")), (0.67, 0.33))
    >>> len(train), len(test)
    (4, 2)
    """
    groups = _vector(groups, "groups")
    sizes = _sizes(len(groups), parts)
    names, member, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < len(sizes):
        raise error(
            "a grouped split",
            expected=f"at least {len(sizes)} groups, one for each part",
            got=f"{len(names)} groups",
            fix="use fewer parts or finer groups",
        )
    order = _shuffled(len(names), seed)
    # The largest first: a large group dealt last would land on parts that are nearly full.
    order = order[np.argsort(-counts[order], kind="stable")]
    lacking = sizes.astype(np.float64)
    home = np.zeros(len(names), np.int64)
    held = np.zeros(len(sizes), np.int64)
    for number, group in enumerate(order):
        empty = np.flatnonzero(held == 0)
        must_fill = len(order) - number <= len(empty)
        part = empty[np.argmax(lacking[empty])] if must_fill else np.argmax(lacking)
        home[group] = part
        lacking[part] -= counts[group]
        held[part] += 1
    return tuple(np.flatnonzero(home[member] == part) for part in range(len(sizes)))


def by_time(times: np.ndarray, parts: Sequence[float]) -> tuple[np.ndarray, ...]:
    """A split in which every part is later than the one before: train on the past.

    Examples of one time stay in one part, the earlier.

    >>> [part.tolist() for part in by_time(np.array([3, 1, 2, 4]), (0.5, 0.5))]
    [[1, 2], [0, 3]]
    """
    times = _vector(times, "times")
    if times.dtype.kind in "fmM" and (missing := np.flatnonzero(times != times)).size:
        raise error(
            "times",
            expected="a time for every example",
            got=f"{missing.size} missing, the first at index {missing[0]}",
            fix="fill or drop these examples",
        )
    cuts = np.cumsum(_sizes(len(times), parts))[:-1]
    order = np.argsort(times, kind="stable")
    ordered = times[order]
    cuts = np.searchsorted(ordered, ordered[cuts - 1], side="right")
    result = tuple(np.split(order, cuts))
    if any(len(part) == 0 for part in result):
        raise error(
            "a split by time",
            expected="enough distinct times to cut between parts",
            got=f"part sizes {[len(part) for part in result]}",
            fix="give finer times or other parts",
        )
    return result


def k_folds(parts: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cross-validation: each part once for validation, all others together for training.

    Takes the parts of any split: `k_folds(stratified(labels, [1 / 5] * 5))`. For parts in time see
    `time_series_folds`.

    >>> thirds = by_time(np.array([1, 2, 3]), [1 / 3] * 3)
    >>> [(train.tolist(), valid.tolist()) for train, valid in k_folds(thirds)]
    [([1, 2], [0]), ([0, 2], [1]), ([0, 1], [2])]
    """
    parts = _several(parts)
    rest = [[*parts[:i], *parts[i + 1 :]] for i in range(len(parts))]
    return [
        (np.sort(np.concatenate(others)), part) for others, part in zip(rest, parts, strict=True)
    ]


def time_series_folds(parts: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cross-validation in time: train on all parts before one, validate on that one.

    >>> thirds = by_time(np.array([1, 2, 3]), [1 / 3] * 3)
    >>> [(train.tolist(), valid.tolist()) for train, valid in time_series_folds(thirds)]
    [([0], [1]), ([0, 1], [2])]
    """
    parts = _several(parts)
    return [(np.sort(np.concatenate(parts[:i])), parts[i]) for i in range(1, len(parts))]


def check_classes(labels: np.ndarray, parts: Sequence[np.ndarray]) -> None:
    """Raises `InputError` for a class that is absent from a part.

    >>> check_classes(np.array([0, 1, 0, 1]), (np.array([0, 1]), np.array([2, 3])))
    """
    labels = _vector(labels, "labels")
    for number, part in enumerate(parts):
        absent = np.setdiff1d(labels, labels[part])
        if len(absent):
            raise error(
                f"part {number} of the split",
                expected=f"examples of each of {len(np.unique(labels))} classes",
                got=f"{len(part)} examples, none of class {', '.join(map(str, absent[:5]))}",
                fix="use jdl.data.split.stratified, larger parts, or leave the class out",
            )


def _several(parts: Sequence[np.ndarray]) -> list[np.ndarray]:
    if len(parts) < 2:
        raise error(
            "parts", expected="two parts or more", got=f"{len(parts)}", fix="split into more"
        )
    return list(parts)


def _shuffled(n: int, seed: int) -> np.ndarray:
    return Order(n, seed).permutation(_EPOCH).astype(np.int64)


def _vector(values: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 1:
        raise error(
            name,
            expected="one value for each example, shape [n]",
            got=f"shape {list(values.shape)}",
            fix=f"give {name} as a vector",
        )
    return values


def _sizes(n: int, parts: Sequence[float]) -> np.ndarray:
    wrong: InputError = error(
        f"parts of {n} examples",
        expected=f"counts that sum to {n} or fractions that sum to 1, no part empty",
        got=str(tuple(parts)),
        fix="for example (0.7, 0.1, 0.2)",
    )
    if not parts:
        raise wrong
    if all(isinstance(part, int | np.integer) for part in parts) and sum(parts) != 1:
        sizes = np.asarray(parts, np.int64)
    else:
        fractions = np.asarray(parts, np.float64)
        if not abs(fractions.sum() - 1) <= 1e-6:
            raise wrong
        later = np.round(n * fractions[1:]).astype(np.int64)
        sizes = np.concatenate([[n - later.sum()], later])
    if sizes.sum() != n or (sizes < 1).any():
        raise wrong
    return sizes
