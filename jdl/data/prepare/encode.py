"""Encoders as pairs of pure functions: names to numbers, fitted on the training part.

`fit(values) -> names` and `apply(names, values) -> numbers`, as with scalers. A value that was
not there when the encoder was fitted raises: it is never turned into a class of its own.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jdl.core.errors import did_you_mean, error

Names = tuple[np.ndarray, ...]


class CategoryEncoder(NamedTuple):
    """`fit(values) -> names`, one array for each column, and `apply(names, values) -> numbers`."""

    fit: Callable[[Any], Names]
    apply: Callable[[Names, Any], np.ndarray]


def ordinal_encoder(order: Sequence[Any]) -> CategoryEncoder:
    """Categories that have an order, as their places in it: int32 of the values' shape.

    >>> size = ordinal_encoder(["small", "middle", "large"])
    >>> size.apply(size.fit(["large", "small"]), ["middle", "large"])
    array([1, 2], dtype=int32)
    """
    places = np.asarray(order)
    if places.ndim != 1 or len(np.unique(places)) != len(places) or len(places) == 0:
        raise error(
            "order",
            expected="categories, each once",
            got=repr(list(order)),
            fix="list them from the lowest to the highest",
        )

    def fit(values: Any) -> Names:
        names = (places,) * _columns(values).shape[1]
        _places(names, values)
        return names

    return CategoryEncoder(fit, _apply_places)


def decode(names: Names, numbers: Any) -> np.ndarray:
    """The names that label or ordinal numbers of shape [n] or [n, columns] stand for.

    >>> names = label_encoder.fit(["cat", "dog"])
    >>> decode(names, np.array([1, 0])).tolist()
    ['dog', 'cat']
    """
    numbers = np.asarray(numbers)
    columns = _columns(numbers)
    for number, (known, column) in enumerate(_paired(names, columns)):
        wrong = np.flatnonzero((column < 0) | (column >= len(known)))
        if len(wrong):
            raise error(
                f"numbers to decode, column {number}",
                expected=f"numbers from 0 to {len(known) - 1}",
                got=f"{column[wrong[0]]} at row {wrong[0]}",
                fix="decode with the names that they were encoded with",
            )
    decoded = [known[column] for known, column in _paired(names, columns)]
    return np.stack(decoded, -1).reshape(numbers.shape)


def _fit_sorted(values: Any) -> Names:
    return tuple(np.unique(column) for column in _columns(values).T)


def _fit_labels(values: Any) -> Names:
    if np.ndim(values) != 1:
        raise error(
            "labels",
            expected="one for each example, shape [n]",
            got=f"shape {list(np.shape(values))}",
            fix="give the labels as a vector; for several columns see one_hot and ordinal",
        )
    return _fit_sorted(values)


def _apply_places(names: Names, values: Any) -> np.ndarray:
    return np.stack(_places(names, values), -1).reshape(np.shape(values)).astype(np.int32)


def _apply_one_hot(names: Names, values: Any) -> np.ndarray:
    places = zip(names, _places(names, values), strict=True)
    blocks = [place[:, None] == np.arange(len(known))[None] for known, place in places]
    return np.concatenate(blocks, axis=1).astype(np.float32)


def _places(names: Names, values: Any) -> list[np.ndarray]:
    """Of each column the places of its values among its names."""
    pairs = _paired(names, _columns(values))
    return [_column_places(known, column, number) for number, (known, column) in enumerate(pairs)]


def _column_places(known: np.ndarray, column: np.ndarray, number: int) -> np.ndarray:
    matches = column[:, None] == known[None]
    unknown = np.flatnonzero(~matches.any(1))
    if len(unknown):
        value = str(column[unknown[0]])
        shown = ", ".join(map(str, known[:8])) + (", ..." if len(known) > 8 else "")
        raise error(
            f"values to encode, column {number}",
            expected=f"one of the {len(known)} names that the encoder was fitted on: {shown}",
            got=f'{len(unknown)} unknown, the first "{value}" at row {unknown[0]}',
            fix=did_you_mean(value, map(str, known)) if len(known) <= 100 else "correct the value",
        )
    return matches.argmax(1)


def _paired(names: Names, columns: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    if len(names) != columns.shape[1]:
        raise error(
            "values to encode",
            expected=f"{len(names)} columns, as the encoder was fitted on",
            got=f"{columns.shape[1]}",
            fix="fit the encoder on the same columns",
        )
    return list(zip(names, columns.T, strict=True))


def _columns(values: Any) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim not in (1, 2) or values.size == 0 or values.dtype.hasobject:
        raise error(
            "values to encode",
            expected="names or whole numbers of one type, shape [n] or [n, columns]",
            got=f"{values.dtype} of shape {list(values.shape)}",
            fix="give an array such as np.array(['cat', 'dog'])",
        )
    return values[:, None] if values.ndim == 1 else values


label_encoder = CategoryEncoder(_fit_labels, _apply_places)
"""Class names [n] as int32 [n], numbered from 0 in sorted order.

>>> label_encoder.apply(label_encoder.fit(["dog", "cat", "dog"]), ["dog", "cat"])
array([1, 0], dtype=int32)
"""

one_hot_encoder = CategoryEncoder(_fit_sorted, _apply_one_hot)
"""Categories [n] or [n, columns] as float32 [n, k]: a column for each category, 1 where it is.

>>> one_hot_encoder.apply(one_hot_encoder.fit(["b", "a", "b"]), ["b", "a"]).tolist()
[[0.0, 1.0], [1.0, 0.0]]
"""
