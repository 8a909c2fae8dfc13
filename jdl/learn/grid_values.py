"""Values of a grid, which may be numbers, text, lists, arrays or functions: which are the same."""

from collections.abc import Hashable, Iterable, Mapping
from numbers import Integral, Number, Real
from typing import Any

import numpy as np


def is_same(one: Any, other: Any) -> bool:
    """Whether two values select the same learner.

    Booleans, integers and real numbers differ from each other, and text from all of them, because
    Python code may tell them apart. Arrays are the same if all of their bits and their types are.

    >>> is_same(1, 1), is_same(1, 1.0), is_same(1, "1"), is_same([1, 2], [1, 2])
    (True, False, False, True)
    """
    one, other = (x.item() if isinstance(x, np.generic) else x for x in (one, other))
    if _kind(one) is not _kind(other):
        return False
    if isinstance(one, Number):
        return bool(one == other) or (one != one and other != other)  # nan is the same as nan
    if _is_array(one):
        one, other = np.asarray(one), np.asarray(other)
        alike = (one.dtype, one.shape) == (other.dtype, other.shape)
        return alike and one.tobytes() == other.tobytes()
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(is_same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(is_same, one, other))
    return one is other or bool(one == other)


def alike(values: Iterable[Any]) -> list[tuple[Any, list[int]]]:
    """The values that differ from each other, each with the places where it stands.

    >>> alike(["a", "b", "a"])
    [('a', [0, 2]), ('b', [1])]
    """
    found: list[tuple[Any, list[int]]] = []
    for place, value in enumerate(values):
        own = next((own for other, own in found if is_same(other, value)), None)
        if own is None:
            found.append((value, [place]))
        else:
            own.append(place)
    return found


def as_key(value: Any) -> Hashable:
    """A value as the key of a dict; lists and arrays become tuples.

    >>> as_key([64, [32]])
    (64, (32,))
    """
    if _is_array(value):
        return as_key(np.asarray(value).tolist())
    if isinstance(value, Mapping):
        return tuple((name, as_key(own)) for name, own in value.items())
    if isinstance(value, list | tuple):
        return tuple(map(as_key, value))
    return value if isinstance(value, Hashable) else repr(value)


def _kind(value: Any) -> Any:
    """What the two values must have in common to be compared."""
    for kind in (bool, Integral, Real, Number):
        if isinstance(value, kind):
            return kind
    return "array" if _is_array(value) else type(value)


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")
