"""Checks of dicts of arrays, and the one cast that jdl makes: from 64 bits to 32."""

import logging
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdl.core.errors import check_lengths, error

Arrays = dict[str, np.ndarray]

_log = logging.getLogger("jdl")


def as_arrays(data: Mapping[str, Any], *, name: str = "data", notice: bool = True) -> Arrays:
    """Convert a dict of array-likes to numpy arrays that JAX accepts unchanged.

    Every array has shape (n, ...), with the same n. 64-bit values become 32-bit unless
    `jax_enable_x64` is set, and a line in the log says so (not with `notice=False`). An array that
    needs no cast is not copied.

    Raises `InputError` for text or objects, scalars, arrays of different lengths, an empty set, and
    values that do not fit in 32 bits.

    >>> as_arrays({"x": [[1.0], [2.0]]}, notice=False)["x"].dtype
    dtype('float32')
    """
    if not isinstance(data, Mapping) or not data:
        raise error(
            name,
            expected='a dict of arrays, {"x": ..., "y": ...}',
            got="an empty dict" if isinstance(data, Mapping) else type(data).__name__,
            fix='wrap the arrays: {"x": x, "y": y}',
        )
    arrays = {key: _numeric(value, f'{name}["{key}"]') for key, value in data.items()}
    check_same_length(arrays, name)
    cast = {key: _narrow(value, f'{name}["{key}"]') for key, value in arrays.items()}
    changed = [
        f"{key} {arrays[key].dtype} -> {cast[key].dtype}"
        for key in cast
        if cast[key].dtype != arrays[key].dtype
    ]
    if changed and notice:
        _log.warning("%s: cast %s (set jax_enable_x64 to keep 64 bits)", name, ", ".join(changed))
    return cast


def check_arrays(
    data: Mapping[str, Any], *, classes: int | None = None, name: str = "data"
) -> None:
    """Raise `InputError` unless `data` can be trained on.

    Rejects what `as_arrays` rejects, values that are not finite (with their count and the index of
    the first), `lengths` outside 1 ... time for `x` of shape (n, time, ...), a `mask` with values
    other than 0 and 1, and a negative `weight`. Values after an example's `lengths` are padding and
    may be anything. With `classes`, integer labels `y` must lie in 0 ... classes - 1.

    >>> check_arrays({"x": [[1.0, float("nan")]]})
    Traceback (most recent call last):
    jdl.core.errors.InputError: data["x"]
      expected: finite values
      got:      1 of 2 not finite, the first nan at index [0, 1]
      fix:      remove these examples, or fill in the values
    """
    arrays = as_arrays(data, name=name, notice=False)
    if "lengths" in arrays and arrays.get("x", np.empty(0)).ndim >= 2:
        check_lengths(arrays["lengths"], arrays["x"].shape[1], f'{name}["lengths"]')
    for key, value in arrays.items():
        check_finite(value, f'{name}["{key}"]', lengths=arrays.get("lengths"))
    if "mask" in arrays:
        _check_mask(arrays["mask"], f'{name}["mask"]')
    if "weight" in arrays:
        _check_weight(arrays["weight"], f'{name}["weight"]')
    labels = arrays.get("y")
    if classes is not None and labels is not None and labels.dtype.kind in "iu":
        check_labels(labels, classes, f'{name}["y"]')


def check_labels(
    labels: np.ndarray, classes: int, name: str, counts: np.ndarray | None = None
) -> None:
    """Raise `InputError` unless the integer labels that count lie in 0 ... classes - 1.

    >>> check_labels(np.array([0, 2, -1]), 3, "y", counts=np.array([True, True, False]))
    """
    outside = (labels < 0) | (labels >= classes)
    if not outside.any():
        return
    wrong = np.argwhere(outside if counts is None else outside & counts)
    if len(wrong):
        raise error(
            name,
            expected=f"labels from 0 to {classes - 1}, for {classes} classes",
            got=f"{len(wrong)} out of range, the first {labels[tuple(wrong[0])]} "
            f"at index {wrong[0].tolist()}",
            fix="number the classes from 0, raise their number, or leave "
            "these out: jdl.classification(..., ignore=-1)",
        )


def labels_that_count(data: Mapping[str, Any], ignore: int | None = None) -> np.ndarray:
    """Which labels `y` reach a loss: not padding, not masked, not those to ignore.

    >>> data = {"y": np.array([[1, 2], [3, -1]]), "lengths": np.array([1, 2])}
    >>> labels_that_count(data, ignore=-1).tolist()
    [[True, False], [True, False]]
    """
    labels = np.asarray(data["y"])
    counts = labels != ignore if ignore is not None else np.ones(labels.shape, bool)
    if "lengths" in data and labels.ndim >= 2:
        real = np.arange(labels.shape[1]) < np.asarray(data["lengths"]).reshape(-1, 1)
        counts &= real.reshape(real.shape + (1,) * (labels.ndim - 2))
    mask = np.asarray(data.get("mask", 1.0))
    if mask.shape == labels.shape[: mask.ndim]:
        counts &= mask.reshape(mask.shape + (1,) * (labels.ndim - mask.ndim)) != 0
    return counts


def example_bytes(example: Mapping[str, np.ndarray]) -> int:
    """Total size of the arrays in bytes."""
    return sum(value.nbytes for value in example.values())


def to_32_bit(value: Any, name: str) -> np.ndarray:
    """A numeric array in the dtype that JAX uses (32 bits unless x64 is on), or `InputError`."""
    return _narrow(_numeric(value, name), name)


def to_float32(array: np.ndarray, name: str) -> np.ndarray:
    """A numeric array as float32; raises `InputError` for a finite value that becomes infinite.

    >>> to_float32(np.array([1, 2]), "x").dtype
    dtype('float32')
    """
    with np.errstate(over="ignore"):
        result = array.astype(np.float32)
    _check_kept(array, result, np.isinf(result) & ~np.isinf(array), name, "rescale the values")
    return result


def _numeric(value: Any, name: str) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError:
        raise error(
            name,
            expected="an array",
            got="nested lists of unequal lengths",
            fix="pad them to one length and pass the true lengths as another array",
        ) from None
    if np.ma.is_masked(value):
        raise error(
            name,
            expected="an array without masked entries",
            got=f"{np.ma.count_masked(value)} masked entries; JAX would ignore the mask",
            fix="fill them in, and pass the weights as another array",
        )
    array = array.astype(array.dtype.newbyteorder("="), copy=False)  # JAX takes no other order
    # numpy counts timedelta64 as an integer.
    is_number = jnp.issubdtype(array.dtype, np.number) and array.dtype.kind != "m"
    if not (is_number or array.dtype == bool):
        raise error(
            name,
            expected="an array of numbers",
            got=f"dtype {array.dtype}, first value {array.flat[0]!r}"
            if array.size
            else f"dtype {array.dtype}",
            fix="encode names as integers, e.g. np.unique(values, return_inverse=True)[1]",
        )
    if array.ndim == 0:
        raise error(
            name,
            expected="an array with one entry for each example",
            got="a scalar",
            fix="pass an array whose first axis is the example axis",
        )
    return array


def check_same_length(arrays: Arrays, name: str) -> None:
    """Raise `InputError` unless all arrays have the same length, above zero."""
    sizes = {key: len(value) for key, value in arrays.items()}
    if len(set(sizes.values())) > 1:
        raise error(
            name,
            expected="arrays of the same length, the number of examples",
            got=", ".join(f"{key} {size}" for key, size in sizes.items()),
            fix="pass one entry for each example in every array",
        )
    if 0 in sizes.values():
        raise error(
            name,
            expected="at least one example",
            got="an empty set",
            fix="check the file or the split that it comes from",
        )


def _narrow(array: np.ndarray, name: str) -> np.ndarray:
    target = jax.dtypes.canonicalize_dtype(array.dtype)
    if target == array.dtype or array.size == 0:
        return array.astype(target, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):
        result = array.astype(target)
        # Integers would wrap around and floats become infinite.
        lost = result != array if array.dtype.kind in "iu" else np.isinf(result) & ~np.isinf(array)
    _check_kept(array, result, lost, name, "rescale the values, or set jax_enable_x64")
    return result


def _check_kept(
    array: np.ndarray, result: np.ndarray, lost: np.ndarray, name: str, fix: str
) -> None:
    """Raise `InputError` if a value was lost in a cast."""
    if lost.any():
        index = tuple(np.argwhere(lost)[0])
        raise error(
            name,
            expected=f"values that fit in {result.dtype}",
            got=f"{array[index]} at index {[int(i) for i in index]}",
            fix=fix,
        )


def _check_mask(mask: np.ndarray, name: str) -> None:
    if ((mask != 0) & (mask != 1)).any():
        raise error(
            name,
            expected="0 and 1: whether an example exists",
            got=f"values from {mask.min():g} to {mask.max():g}",
            fix='call it "weight", which says how much an example counts',
        )
    if not mask.any():
        raise error(
            name,
            expected="at least one example that counts",
            got="zeros only",
            fix="use 1 for examples that count and 0 for padding",
        )


def _check_weight(weight: np.ndarray, name: str) -> None:
    if weight.min() < 0 or not weight.max() > 0:
        raise error(
            name,
            expected="values of at least 0, and one above it",
            got=f"values from {weight.min():g} to {weight.max():g}",
            fix="give each example how much it counts",
        )


def check_finite(
    value: np.ndarray,
    name: str,
    fix: str = "remove these examples, or fill in the values",
    lengths: np.ndarray | None = None,
) -> None:
    """Raise `InputError` unless all values are finite; those after `lengths` are not checked."""
    if not jnp.issubdtype(value.dtype, np.inexact):
        return
    with np.errstate(over="ignore", invalid="ignore"):
        # A finite sum means that every term is finite; no array of flags is needed.
        if np.isfinite(np.sum(value, dtype=np.float64 if value.dtype.kind == "f" else None)):
            return
    bad = ~np.isfinite(value)
    if lengths is not None and value.ndim >= 2:
        padding = np.arange(value.shape[1])[None] >= lengths.reshape(-1, 1)
        bad &= ~padding.reshape(padding.shape + (1,) * (value.ndim - 2))
    if bad.any():
        first = np.argwhere(bad)[0]
        raise error(
            name,
            expected="finite values",
            got=f"{int(bad.sum())} of {value.size} not finite, "
            f"the first {value[tuple(first)]} at index {first.tolist()}",
            fix=fix,
        )
