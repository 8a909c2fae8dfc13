"""Encoders of categories as pairs of pure functions, fitted on the training split.

`fit(values) -> names` and `apply(names, values) -> codes`, as with scalers. A missing value, and
one that is not among the names, raise `InputError`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jdl.core.errors import did_you_mean, error
from jdl.core.paths import natural_key

Names = tuple[np.ndarray, ...]


class CategoryEncoder(NamedTuple):
    """A pair `fit(values) -> names` and `apply(names, values) -> codes`.

    Values have shape (n,) or (n, columns); `names` is a tuple with an array of categories for each
    column.

    >>> names = one_hot.fit(["b", "a", "b"])
    >>> [column.tolist() for column in names]
    [['a', 'b']]
    >>> one_hot.apply(names, ["b"]).tolist()
    [[0.0, 1.0]]
    """

    fit: Callable[[ArrayLike], Names]
    apply: Callable[[Names, ArrayLike], np.ndarray]


def ordinal(order: Sequence[Any]) -> CategoryEncoder:
    """An encoder for ordered categories: each becomes its position in `order`, as int32.

    The codes have the shape of the values, (n,) or (n, columns). Raises `InputError` for an empty
    order or one with repeated categories, and for a value that is not in it.

    >>> size = ordinal(["small", "middle", "large"])
    >>> size.apply(size.fit(["large", "small"]), ["middle", "large"])
    array([1, 2], dtype=int32)
    """
    categories = np.asarray(order)
    is_list = categories.ndim == 1 and not categories.dtype.hasobject
    if not (is_list and 0 < len(np.unique(categories)) == len(categories)):
        raise error(
            "order",
            expected="different categories, at least one",
            got=repr(list(order)),
            fix="list each category once, from lowest to highest",
        )
    _columns(categories)  # raises for nan

    def fit(values: ArrayLike) -> Names:
        names = (categories,) * _columns(values).shape[1]
        _places(names, values)
        return names

    return CategoryEncoder(fit, _apply_places)


def decode(names: Names, codes: ArrayLike) -> np.ndarray:
    """The names for label or ordinal codes of shape (n,) or (n, columns).

    Raises `InputError` for a code without a name, and for another number of columns.

    >>> names = labels.fit(["cat", "dog"])
    >>> decode(names, np.array([1, 0])).tolist()
    ['dog', 'cat']
    """
    codes = np.asarray(codes)
    columns = _columns(codes)
    for number, (known, column) in enumerate(_paired(names, columns)):
        wrong = np.flatnonzero((column < 0) | (column >= len(known)))
        if len(wrong):
            raise error(
                f"codes to decode, column {number}",
                expected=f"codes from 0 to {len(known) - 1}",
                got=f"{column[wrong[0]]} at row {wrong[0]}",
                fix="decode with the names that you encoded with",
            )
    decoded = [known[column] for known, column in _paired(names, columns)]
    return np.stack(decoded, -1).reshape(codes.shape)


def _fit_sorted(values: Any) -> Names:
    return tuple(_in_natural_order(np.unique(column)) for column in _columns(values).T)


def _in_natural_order(names: np.ndarray) -> np.ndarray:
    return np.array(sorted(names, key=natural_key)) if names.dtype.kind == "U" else names


def _fit_labels(values: Any) -> Names:
    if np.ndim(values) != 1:
        raise error(
            "labels",
            expected="one for each example, shape (n,)",
            got=f"shape {list(np.shape(values))}",
            fix="pass a vector; for several columns use one_hot or ordinal",
        )
    return _fit_sorted(values)


def _apply_places(names: Names, values: Any) -> np.ndarray:
    return np.stack(_places(names, values), -1).reshape(np.shape(values)).astype(np.int32)


def _apply_one_hot(names: Names, values: Any) -> np.ndarray:
    places = zip(names, _places(names, values), strict=True)
    blocks = [place[:, None] == np.arange(len(known))[None] for known, place in places]
    return np.concatenate(blocks, axis=1).astype(np.float32)


def _places(names: Names, values: Any) -> list[np.ndarray]:
    """For each column, the positions of its values among its names."""
    pairs = _paired(names, _columns(values))
    return [_column_places(known, column, number) for number, (known, column) in enumerate(pairs)]


def _column_places(known: np.ndarray, column: np.ndarray, number: int) -> np.ndarray:
    found, inverse = np.unique(column, return_inverse=True)
    matches = found[:, None] == known[None]
    unknown = np.flatnonzero(~matches.any(1)[inverse])
    if len(unknown):
        value = str(column[unknown[0]])
        listing = ", ".join(map(str, known[:8])) + (", ..." if len(known) > 8 else "")
        raise error(
            f"values to encode, column {number}",
            expected=f"one of the {len(known)} names that the encoder was fitted on: {listing}",
            got=f'{len(unknown)} unknown, the first "{value}" at row {unknown[0]}',
            fix=did_you_mean(value, map(str, known)) if len(known) <= 100 else "correct the value",
        )
    return matches.argmax(1)[inverse]


def _paired(names: Names, columns: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    if len(names) != columns.shape[1]:
        raise error(
            "values to encode",
            expected=f"{len(names)} columns, as when the encoder was fitted",
            got=f"{columns.shape[1]}",
            fix="encode the columns that you fitted on",
        )
    return list(zip(names, columns.T, strict=True))


def _columns(values: Any) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim not in (1, 2) or values.size == 0 or values.dtype.hasobject:
        raise error(
            "values to encode",
            expected="names or integers of shape (n,) or (n, columns)",
            got=f"{values.dtype} of shape {list(values.shape)}",
            fix="pass an array such as np.array(['cat', 'dog'])",
        )
    missing = np.argwhere(values != values) if values.dtype.kind in "fcmM" else values[:0]
    if len(missing):
        raise error(
            "values to encode",
            expected="a category for every example",
            got=f"{len(missing)} missing, the first at row {missing[0, 0]}",
            fix="fill them in, or drop the examples",
        )
    return values[:, None] if values.ndim == 1 else values


labels = CategoryEncoder(_fit_labels, _apply_places)
"""Class names (n,) as int32 (n,), numbered from 0 in sorted order, with "2" before "10".

>>> labels.apply(labels.fit(["dog", "cat", "dog"]), ["dog", "cat"])
array([1, 0], dtype=int32)
"""

one_hot = CategoryEncoder(_fit_sorted, _apply_one_hot)
"""Categories (n,) or (n, columns) as one-hot float32 (n, k), with a column for each category.

>>> one_hot.apply(one_hot.fit(["b", "a", "b"]), ["b", "a"]).tolist()
[[0.0, 1.0], [1.0, 0.0]]
"""
