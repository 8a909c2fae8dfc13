"""Cleaning: every function returns the data and a report of what it changed.

Data is a dict of arrays (n, ...). What is learned from data (`medians`, `fences`) is a function of
its own: fit it on the training split, then use it on every split.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jdl.core.errors import error
from jdl.data.arrays import check_finite, check_same_length
from jdl.data.records import Arrays, Report

Cleaned = tuple[Arrays, Report]


def drop_duplicates(data: Mapping[str, Any], by: Sequence[str] | None = None) -> Cleaned:
    """Drop examples that equal an earlier one in the entries `by` (in all entries, if None).

    `data` has arrays (n, ...). The report also lists examples, kept or dropped, whose `x` equals
    that of an earlier one with another `y`, exact copies aside. You have to decide which label is
    wrong. Raises `InputError` for an entry that is missing and for arrays of different lengths.

    >>> data, report = drop_duplicates({"x": np.array([[1.0], [2.0], [1.0]]), "y": [0, 1, 0]})
    >>> print(report)
    duplicates in 3 examples
      dropped: 1 (rows 2)
      contradicting: 0
    """
    arrays = _arrays(data)
    compared = {name: _entry(arrays, name) for name in by or arrays}
    first = _first_rows(fingerprints(compared))
    keep = first == np.arange(len(first))
    contradicting = np.zeros(len(first), bool)
    if "x" in arrays and "y" in arrays:
        is_copy = _first_rows(fingerprints(arrays)) != np.arange(len(first))
        contradicting = _contradicts_earlier(arrays["x"], arrays["y"]) & ~is_copy
    rows = {"dropped": _indices(~keep), "contradicting": _indices(contradicting)}
    return _subset(arrays, keep), Report(f"duplicates in {len(keep)} examples", rows)


def drop_missing(data: Mapping[str, Any]) -> Cleaned:
    """Drop examples with missing values: nan, infinity, NaT or empty text.

    `data` has arrays (n, ...). The report counts the missing values of each entry. Raises
    `InputError` if no example is left.

    >>> data, report = drop_missing({"x": np.array([[1.0, 2.0], [np.nan, 3.0]])})
    >>> print(report)
    missing values in 2 examples
      dropped: 1 (rows 1)
      missing in x: 1
    """
    arrays = _arrays(data)
    absent = {name: _absent(value) for name, value in arrays.items()}
    keep = ~np.any([_any(flags) for flags in absent.values()], axis=0)
    counts = {f"missing in {name}": int(flags.sum()) for name, flags in absent.items()}
    title = f"missing values in {len(keep)} examples"
    return _subset(arrays, keep), Report(title, {"dropped": _indices(~keep)}, counts)


def fill_missing(data: Mapping[str, Any], values: ArrayLike, entry: str = "x") -> Cleaned:
    """Replace nan and infinity in an entry (n, ..., features) by `values`, scalar or (features,).

    Compute the values on the training split, with `medians(train["x"])` for example. The report
    lists the examples that changed and counts the values filled in per feature. Raises `InputError`
    for another number of features, and for values that are not finite in the entry's dtype.

    >>> x = np.array([[1.0, 2.0], [np.nan, 3.0]])
    >>> filled, report = fill_missing({"x": x}, medians(x))
    >>> filled["x"].tolist()
    [[1.0, 2.0], [1.0, 3.0]]
    """
    arrays = _arrays(data)
    x = _features(_entry(arrays, entry), f'data["{entry}"]')
    values = _per_feature(values, x, "values to fill in")
    with np.errstate(over="ignore"):
        check_finite(values.astype(x.dtype), "values to fill in", "fit them on finite values")
    absent = _absent(x)
    filled = np.where(absent, np.broadcast_to(values, x.shape), x).astype(x.dtype)
    return {**arrays, entry: filled}, _report("missing values", "changed", "filled", absent)


def drop_outliers(
    data: Mapping[str, Any], fences: Mapping[str, np.ndarray], entry: str = "x"
) -> Cleaned:
    """Drop examples with a feature outside its fences; inspect them before you rely on it.

    The entry has shape (n, ..., features), and the fences are those of `fences`. Raises
    `InputError` for another number of features, or if no example is left.

    >>> x = np.array([[1.0], [2.0], [3.0], [4.0], [90.0]])
    >>> print(drop_outliers({"x": x}, fences(x))[1])
    outliers in 5 examples
      dropped: 1 (rows 4)
      outside in feature 0: 1
    """
    arrays, outside, _ = _clip_to_fences(data, fences, entry)
    report = _report("outliers", "dropped", "outside", outside)
    return _subset(arrays, ~_any(outside)), report


def clip_outliers(
    data: Mapping[str, Any], fences: Mapping[str, np.ndarray], entry: str = "x"
) -> Cleaned:
    """Clip the features of an entry (n, ..., features) to their fences.

    Raises `InputError` for another number of features.

    >>> x = np.array([[1.0], [2.0], [3.0], [4.0], [90.0]])
    >>> clip_outliers({"x": x}, fences(x))[0]["x"][-1]
    array([7.])
    """
    arrays, outside, clipped = _clip_to_fences(data, fences, entry)
    return {**arrays, entry: clipped}, _report("outliers", "changed", "clipped", outside)


def medians(x: ArrayLike) -> np.ndarray:
    """Median of each feature, ignoring missing values: (n, ..., features) to (features,).

    Raises `InputError` for a feature without any value.

    >>> medians(np.array([[1.0], [np.nan], [3.0]]))
    array([2.])
    """
    return _quantiles(x, [0.5])[0]


def fences(x: ArrayLike, reach: float = 1.5) -> dict[str, np.ndarray]:
    r"""Tukey's fences of each feature: $q_1 - r\,(q_3-q_1)$ and $q_3 + r\,(q_3-q_1)$.

    Takes x of shape (n, ..., features) and returns `low` and `high` (features,). With `reach` r =
    1.5, 0.7 % of a normal distribution lie outside (Tukey 1977). A feature whose quartiles are
    equal, such as a pixel that is mostly black, has infinite fences. Raises `InputError` for a
    reach of 0 or less, and for a feature without any value.

    >>> fences(np.array([[1.0], [2.0], [3.0], [4.0], [5.0]]))
    {'low': array([-1.]), 'high': array([7.])}
    """
    if not reach > 0:
        raise error("reach", expected="a number above 0", got=f"{reach}", fix="1.5 is usual")
    low, high = _quantiles(x, [0.25, 0.75])
    spread = np.where(high > low, reach * (high - low), np.inf)
    return {"low": low - spread, "high": high + spread}


def fingerprints(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """A 16-byte hash of each example: (n,), equal if and only if all entries are; 0.0 equals -0.0.

    To compare hashes of several arrays, make these `comparable`.

    >>> hashes = fingerprints({"x": np.array([[0.0], [1.0], [-0.0]])})
    >>> bool(hashes[0] == hashes[2]), bool(hashes[0] == hashes[1])
    (True, False)
    """
    n = len(next(iter(arrays.values())))
    columns = [
        value + 0.0 if value.dtype.kind in "fc" else value
        for value in (np.asarray(array).reshape(n, -1) for array in arrays.values())
    ]
    digests = [
        hashlib.blake2b(b"".join(c[row].tobytes() for c in columns), digest_size=16).digest()
        for row in range(n)
    ]
    return np.array([np.void(digest) for digest in digests], "V16")


def as_array(value: Any, name: str) -> np.ndarray:
    """An entry of the data as an array; raise unless it holds numbers, times or text.

    >>> as_array(["a", "bc"], "name").dtype.str
    '<U2'
    """
    array = np.asarray(value)
    if array.dtype.hasobject or array.ndim == 0:
        raise error(
            f'data["{name}"]',
            expected="an array of numbers, times or text, with an example axis",
            got="Python objects" if array.dtype.hasobject else "a scalar",
            fix="use one type, with nan or empty text for missing values",
        )
    return array


def _arrays(data: Mapping[str, Any]) -> Arrays:
    arrays = {name: as_array(value, name) for name, value in data.items()}
    check_same_length(arrays, "data")
    return arrays


def _entry(arrays: Arrays, name: str) -> np.ndarray:
    if name not in arrays:
        raise error(
            f'data["{name}"]',
            expected=f"one of the entries {', '.join(arrays)}",
            got=name,
            fix="pass the name of an entry of the data",
        )
    return arrays[name]


def _subset(arrays: Arrays, keep: np.ndarray) -> Arrays:
    if not keep.any():
        raise error(
            "data",
            expected="at least one example to keep",
            got=f"{len(keep)} examples, all to be dropped",
            fix="fill in or clip the values instead, or check where they come from",
        )
    return {name: value[keep] for name, value in arrays.items()}


def _contradicts_earlier(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether an earlier example has the same `x` with another `y`."""
    labels: dict[int, set[bytes]] = {}
    found = []
    first = _first_rows(fingerprints({"x": x})).tolist()
    for place, label in zip(first, fingerprints({"y": y}), strict=True):
        before = labels.setdefault(place, set())
        found.append(bool(before - {label.tobytes()}))
        before.add(label.tobytes())
    return np.array(found)


def comparable(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Several arrays in one type, so that equal values have equal bytes.

    Text gets one width. Numbers get the narrowest floating-point type among them, because a copy
    that was narrowed, as for training, equals the original only in that type. Text and numbers stay
    apart.

    >>> [x.dtype.str for x in comparable([np.array(["abc"]), np.array(["de"])])]
    ['<U3', '<U3']
    """
    kinds = [x.dtype for x in arrays]
    floats = [kind for kind in kinds if jnp.issubdtype(kind, np.floating)]
    classes = {"text" if k.kind in "US" else "time" if k.kind in "mM" else "number" for k in kinds}
    if len(classes) > 1:
        return list(arrays)
    common = min(floats, key=lambda kind: kind.itemsize) if floats else np.result_type(*kinds)
    with np.errstate(over="ignore"):
        return [x if x.dtype.kind == "c" else x.astype(common) for x in arrays]


def _first_rows(values: np.ndarray) -> np.ndarray:
    """For each value, the index of its first occurrence."""
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(v.tobytes(), row) for row, v in enumerate(values)])


def _absent(value: np.ndarray) -> np.ndarray:
    if value.dtype.kind in "fc":
        return ~np.isfinite(value)
    if value.dtype.kind in "mM":
        return np.isnat(value)
    if value.dtype.kind in "US":
        return np.asarray(value == value.dtype.type())
    return np.zeros(value.shape, bool)


def _any(flags: np.ndarray) -> np.ndarray:
    return np.asarray(flags.reshape(len(flags), -1).any(1))


def _indices(flags: np.ndarray) -> tuple[int, ...]:
    return tuple(np.flatnonzero(flags).tolist())


def _report(what: str, done: str, verb: str, flags: np.ndarray) -> Report:
    """A report of the flagged examples, with the number of flags per feature."""
    counts = enumerate(flags.reshape(-1, flags.shape[-1]).sum(0))
    by_feature = {f"{verb} in feature {i}": int(number) for i, number in counts if number}
    return Report(f"{what} in {len(flags)} examples", {done: _indices(_any(flags))}, by_feature)


def _features(x: Any, name: str) -> np.ndarray:
    x = np.asarray(x)
    if x.ndim < 2 or x.dtype.kind not in "fiub":
        raise error(
            name,
            expected="numbers of shape (n, ..., features)",
            got=f"{x.dtype} of shape {list(x.shape)}",
            fix="add the axis with x[:, None], and encode text (jdl.data.encode)",
        )
    return x


def _per_feature(values: Any, x: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(values)
    if values.shape not in ((), x.shape[-1:]):
        raise error(
            name,
            expected=f"a scalar, or shape ({x.shape[-1]},), one value per feature",
            got=f"shape {list(values.shape)}",
            fix="fit them on data with the same features",
        )
    return values


def _clip_to_fences(
    data: Mapping[str, Any], fences: Mapping[str, np.ndarray], entry: str
) -> tuple[Arrays, np.ndarray, np.ndarray]:
    """The arrays, where the entry is outside its fences, and the entry clipped to them."""
    arrays = _arrays(data)
    x = _features(_entry(arrays, entry), f'data["{entry}"]')
    low, high = (_per_feature(fences[side], x, f'fences["{side}"]') for side in ("low", "high"))
    return arrays, (x < low) | (x > high), np.clip(x, low, high).astype(x.dtype)


def _quantiles(x: Any, levels: list[float]) -> np.ndarray:
    x = _features(x, "data to fit on").astype(np.float64)
    flat = np.where(np.isfinite(x), x, np.nan).reshape(-1, x.shape[-1])
    empty = np.isnan(flat).all(0)
    if empty.any():
        raise error(
            "data to fit on",
            expected="a finite value in every feature",
            got=f"none in feature {np.flatnonzero(empty)[0]}",
            fix="leave that feature out",
        )
    return np.nanquantile(flat, levels, axis=0)
