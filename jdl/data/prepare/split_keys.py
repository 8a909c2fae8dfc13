"""What a split goes by: labels, groups or times, one for each example."""

import re
import warnings
from typing import Any

import numpy as np

from jdl.core.errors import error

_ISO_MONTH = re.compile(r"\d{4}-\d{2}(-\d{2}|$)")


def as_vector(values: Any, name: str) -> np.ndarray:
    """The values as an array (n,) without missing ones, whose elements can be sorted.

    >>> as_vector([1, None, 2], "groups")
    Traceback (most recent call last):
    jdl.core.errors.InputError: groups
      expected: a value for every example
      got:      1 missing, the first at index 1
      fix:      fill in these values, or drop the examples
    """
    values = np.asarray(values)
    if values.ndim != 1:
        raise error(
            name,
            expected="one value for each example, shape (n,)",
            got=f"shape {list(values.shape)}",
            fix=f"pass {name} as a vector",
        )
    if values.dtype.kind == "O":
        values = _plain(values)
    missing = np.flatnonzero(_missing(values))
    if len(missing):
        raise error(
            name,
            expected="a value for every example",
            got=f"{len(missing)} missing, the first at index {missing[0]}",
            fix="fill in these values, or drop the examples",
        )
    if values.dtype.kind == "O":
        _check_sortable(values, name)
    return values


def as_times(times: np.ndarray) -> np.ndarray:
    """Times as numbers or datetimes. Text would be sorted by its characters: "10" before "9"."""
    if times.dtype.kind not in "SUT":
        return times
    text = times.astype(str)
    other = [value for value in text.tolist() if not _ISO_MONTH.match(value)]
    try:
        if not other:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # numpy converts time zones to UTC with a warning
                return text.astype("datetime64")
    except ValueError as reason:
        other = [str(reason)]
    raise error(
        "times",
        expected="numbers, datetimes, or text such as 2024-01-31 or 2024-01-31T09:00",
        got=other[0] or "an empty text",
        fix="convert them, for example with datetime.strptime",
    )


def _plain(values: np.ndarray) -> np.ndarray:
    """An array of Python objects as one of numbers or text, if they are of one such kind."""
    kinds = {type(value) for value in values}
    if kinds <= {int, float, bool} or kinds <= {str}:
        return np.array(values.tolist())
    return values


def _missing(values: np.ndarray) -> np.ndarray:
    """Which values are nan, NaT or None."""
    if values.dtype.kind == "O":
        return np.array([_is_missing(value) for value in values], bool)
    return values != values if values.dtype.kind in "fcmM" else np.zeros(len(values), bool)


def _is_missing(value: Any) -> bool:
    try:
        return value is None or bool(value != value)
    except TypeError:  # pandas.NA is neither equal nor unequal to itself
        return True


def _check_sortable(values: np.ndarray, name: str) -> None:
    try:
        np.sort(values)
    except TypeError:
        kinds = sorted({type(value).__name__ for value in values})
        raise error(
            name,
            expected="values of one type that can be sorted",
            got=", ".join(kinds),
            fix="convert them to one type",
        ) from None
