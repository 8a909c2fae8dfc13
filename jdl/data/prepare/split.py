"""Seeded splits: pure functions from labels, groups or times to arrays of indices.

`parts` are fractions that sum to 1, such as (0.7, 0.1, 0.2), or counts, such as (55000, 5000). Each
function returns an int64 array of indices for each part, the training split first; together they
contain every example once.
"""

from collections.abc import Sequence

import numpy as np

from jdl.core.errors import InputError, error
from jdl.data.order import Order
from jdl.data.prepare.proportions import proportional_table
from jdl.data.prepare.split_keys import as_times, as_vector

_EPOCH = 2**32 - 1
"""Splits use the order of this epoch, which no training run with the same seed reaches."""


def random(n: int, parts: Sequence[float], seed: int = 0) -> tuple[np.ndarray, ...]:
    """Split n examples at random into index arrays (size,).

    Raises `InputError` unless `parts` are counts that sum to n or fractions that sum to 1, none of
    them empty.

    >>> train, test = random(10, (0.8, 0.2), seed=0)
    >>> len(train), sorted([*train, *test]) == list(range(10))
    (8, True)
    """
    sizes = _sizes(n, parts)
    order = _shuffled(n, seed)
    return tuple(np.sort(part) for part in np.split(order, np.cumsum(sizes)[:-1]))


def stratified(labels: np.ndarray, parts: Sequence[float], seed: int = 0) -> tuple[np.ndarray, ...]:
    """Split so that each part has the classes of `labels` (n,) in proportion, within one example.

    The sizes are exact. The first part has an example of every class, unless there are so many rare
    classes that others would be out of proportion; `check_classes` tells. Raises `InputError` for
    parts that `random` rejects, and if the first part is smaller than the number of classes.

    >>> train, test = stratified(np.array([0, 1] * 10), (0.8, 0.2))
    >>> np.bincount(np.array([0, 1] * 10)[test]).tolist()
    [2, 2]
    """
    labels = as_vector(labels, "labels")
    sizes = _sizes(len(labels), parts)
    order = _shuffled(len(labels), seed)
    order = order[np.argsort(labels[order], kind="stable")]
    counts = np.unique(labels, return_counts=True)[1]
    if len(counts) > sizes[0]:
        raise error(
            "a stratified split",
            expected=f"a first part of at least {len(counts)} examples, one per class",
            got=f"{sizes[0]} of {len(labels)} examples",
            fix="make that part larger, or split at random",
        )
    table = proportional_table(counts, sizes, _shuffled(len(counts), seed))
    home = np.repeat(np.tile(np.arange(len(sizes)), len(counts)), table.ravel())
    return tuple(np.sort(order[home == part]) for part in range(len(sizes)))


def grouped(groups: np.ndarray, parts: Sequence[float], seed: int = 0) -> tuple[np.ndarray, ...]:
    """Split so that every group of `groups` (n,), a patient or a speaker, is in a single part.

    Sizes are close to `parts` if groups are small and many: groups are assigned in random order,
    the largest first, each to the part that lacks most. Raises `InputError` for parts that `random`
    rejects, and for fewer groups than parts.

    >>> train, test = grouped(np.array(list("aabbcc")), (0.67, 0.33))
    >>> len(train), len(test)
    (4, 2)
    """
    groups = as_vector(groups, "groups")
    sizes = _sizes(len(groups), parts)
    names, member, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < len(sizes):
        raise error(
            "a grouped split",
            expected=f"at least {len(sizes)} groups, one per part",
            got=f"{len(names)} groups",
            fix="use fewer parts or finer groups",
        )
    order = _shuffled(len(names), seed)
    # The largest first: at the end a large group would overfill a part.
    order = order[np.argsort(-counts[order], kind="stable")]
    lacking = sizes.astype(np.float64)
    home = np.zeros(len(names), np.int64)
    group_counts = np.zeros(len(sizes), np.int64)
    for number, group in enumerate(order):
        empty = np.flatnonzero(group_counts == 0)
        must_fill = len(order) - number <= len(empty)
        part = empty[np.argmax(lacking[empty])] if must_fill else np.argmax(lacking)
        home[group] = part
        lacking[part] -= counts[group]
        group_counts[part] += 1
    return tuple(np.flatnonzero(home[member] == part) for part in range(len(sizes)))


def by_time(times: np.ndarray, parts: Sequence[float]) -> tuple[np.ndarray, ...]:
    """Split by `times` (n,) so that every part is later than the one before.

    Times are numbers, datetimes, or text that begins with year and month, as in ISO 8601. Examples
    with equal times stay in one part: in the earlier one, unless a part would then be empty. Raises
    `InputError` for parts that `random` rejects, missing times, other text, and fewer distinct
    times than parts.

    >>> [part.tolist() for part in by_time(np.array([3, 1, 2, 4]), (0.5, 0.5))]
    [[1, 2], [0, 3]]
    """
    times = as_times(as_vector(times, "times"))
    sizes = _sizes(len(times), parts)
    order = np.argsort(times, kind="stable")
    _, counts = np.unique(times, return_counts=True)
    if len(counts) < len(sizes):
        raise error(
            "a split by time",
            expected=f"at least {len(sizes)} distinct times, one for each part",
            got=f"{len(counts)}",
            fix="use finer times or fewer parts",
        )
    return tuple(np.split(order, _cuts(np.cumsum(counts), sizes)))


def folds(parts: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs (train, valid) for cross-validation: each part in turn validates (Geisser 1975).

    Takes the index arrays (size,) of any split: `folds(stratified(labels, [1 / 5] * 5))`. For
    parts in time use `time_series_folds`. Raises `InputError` for fewer than two parts.

    >>> thirds = by_time(np.array([1, 2, 3]), [1 / 3] * 3)
    >>> [(train.tolist(), valid.tolist()) for train, valid in folds(thirds)]
    [([1, 2], [0]), ([0, 2], [1]), ([0, 1], [2])]
    """
    parts = _at_least_two(parts)
    rest = [[*parts[:i], *parts[i + 1 :]] for i in range(len(parts))]
    return [
        (np.sort(np.concatenate(others)), part) for others, part in zip(rest, parts, strict=True)
    ]


def time_series_folds(parts: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs (train, valid) for cross-validation in time: train on all parts before the valid one.

    Takes index arrays (size,) in order of time. Raises `InputError` for fewer than two parts.

    >>> thirds = by_time(np.array([1, 2, 3]), [1 / 3] * 3)
    >>> [(train.tolist(), valid.tolist()) for train, valid in time_series_folds(thirds)]
    [([0], [1]), ([0, 1], [2])]
    """
    parts = _at_least_two(parts)
    return [(np.sort(np.concatenate(parts[:i])), parts[i]) for i in range(1, len(parts))]


def check_classes(labels: np.ndarray, parts: Sequence[np.ndarray]) -> None:
    """Raise `InputError` if a class of `labels` (n,) is missing from a part.

    >>> check_classes(np.array([0, 1, 0, 1]), (np.array([0, 1]), np.array([2, 3])))
    >>> check_classes(np.array([0, 0, 0, 1]), (np.array([0, 1]), np.array([2, 3])))
    Traceback (most recent call last):
    jdl.core.errors.InputError: part 0 of the split
      expected: examples of all 2 classes
      got:      2 examples, none of class 1
      fix:      use jdl.data.split.stratified, or larger parts, or leave the class out
    """
    labels = as_vector(labels, "labels")
    for number, part in enumerate(parts):
        absent = np.setdiff1d(labels, labels[part])
        if len(absent):
            raise error(
                f"part {number} of the split",
                expected=f"examples of all {len(np.unique(labels))} classes",
                got=f"{len(part)} examples, none of class {', '.join(map(str, absent[:5]))}",
                fix="use jdl.data.split.stratified, or larger parts, or leave the class out",
            )


def _at_least_two(parts: Sequence[np.ndarray]) -> list[np.ndarray]:
    if len(parts) < 2:
        raise error(
            "parts", expected="two or more parts", got=f"{len(parts)}", fix="split into more"
        )
    return list(parts)


def _shuffled(n: int, seed: int) -> np.ndarray:
    return Order(n, seed).permutation(_EPOCH).astype(np.int64)


def _cuts(ends: np.ndarray, sizes: np.ndarray) -> list[int]:
    """Where to cut examples in order of time; `ends` counts those up to each distinct time.

    Each cut is the first possible one at or after its place by `sizes`. If the part before has
    taken that place, the rest is divided anew. Each later part keeps a distinct time.
    """
    cuts, first = [], 0
    for part in range(len(sizes) - 1):
        start = cuts[-1] if cuts else 0
        wanted = sizes[: part + 1].sum()
        if wanted <= start:
            wanted = start + round((ends[-1] - start) * sizes[part] / sizes[part:].sum())
        place = int(np.searchsorted(ends, wanted))
        place = min(max(place, first), len(ends) - len(sizes) + part)
        cuts.append(int(ends[place]))
        first = place + 1
    return cuts


def _sizes(n: int, parts: Sequence[float]) -> np.ndarray:
    wrong: InputError = error(
        f"parts of {n} examples",
        expected=f"counts that sum to {n} or fractions that sum to 1, and no empty part",
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
