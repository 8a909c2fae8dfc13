"""Scalers as pairs of pure functions: fit on the training split, apply to every split.

`fit(x) -> statistics` and `apply(statistics, x) -> x`. Statistics are one value per feature, that
is per entry of the last axis, in plain float64 arrays: the digits of a time in seconds, for
example, are lost if its mean is rounded before it is subtracted.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jdl.core.errors import error
from jdl.data.arrays import check_finite

Statistics = dict[str, Any]


class Scaler(NamedTuple):
    """A pair of pure functions `fit(x) -> statistics` and `apply(statistics, x) -> x`.

    `x` is a numpy array (n, ..., features). The result of `apply` is float32, computed in float64.
    `fit` raises `InputError` for data that are empty, not finite or without an axis of features,
    and `apply` for another number of features.

    >>> statistics = standardise.fit(np.array([[1.0], [3.0]]))
    >>> {name: value.tolist() for name, value in statistics.items()}
    {'mean': [2.0], 'std': [1.0]}
    >>> standardise.apply(statistics, np.array([[5.0]])).tolist()
    [[3.0]]
    """

    fit: Callable[[np.ndarray], Statistics]
    apply: Callable[[Statistics, np.ndarray], np.ndarray]


def _over_examples(x: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    x = np.asarray(x)
    if x.ndim < 2 or x.shape[0] == 0:
        raise error(
            "data to fit a scaler on",
            expected="shape (n, ..., features), with at least one example",
            got=f"shape {list(x.shape)}",
            fix="add the axis with x[:, None]",
        )
    check_finite(
        x, "data to fit a scaler on", "remove these examples, or fill in the values, before you fit"
    )
    return x.astype(np.float64), tuple(range(x.ndim - 1))


def _fit_standardise(x: np.ndarray) -> Statistics:
    x, axes = _over_examples(x)
    mean = x.mean(axes)
    x = x - mean
    rest = x.mean(axes)  # the rounding error of the mean
    x, mean = x - rest, mean + rest
    # The largest deviation is taken out, because squares of tiny ones are zero.
    largest = np.abs(x).max(axes)
    largest = np.where(largest > 0, largest, 1.0)
    spread = largest * np.sqrt(np.square(x / largest).mean(axes))
    # A constant feature becomes 0, not 0 / 0 or amplified rounding error.
    constant = spread <= 4 * np.finfo(np.float64).eps * np.abs(mean)
    return {"mean": mean, "std": np.where(constant, 1.0, spread)}


def _apply_standardise(statistics: Statistics, x: np.ndarray) -> np.ndarray:
    return _shift_and_divide(x, statistics["mean"], statistics["std"])


def _fit_minmax(x: np.ndarray) -> Statistics:
    x, axes = _over_examples(x)
    low, high = x.min(axes), x.max(axes)
    width = np.where(high > low, high - low, 1.0)
    return {"low": low, "width": width}


def _apply_minmax(statistics: Statistics, x: np.ndarray) -> np.ndarray:
    return _shift_and_divide(x, statistics["low"], statistics["width"])


def _shift_and_divide(x: Any, shift: Any, width: Any) -> np.ndarray:
    x, shift = np.asarray(x), np.asarray(shift, np.float64)
    if x.shape[-1:] != shift.shape:
        raise error(
            "data to scale",
            expected=f"{shift.size} features on the last axis, as the scaler was fitted on",
            got=f"shape {list(x.shape)}",
            fix="pass the features that you fitted on, in their order",
        )
    return ((x - shift) / np.asarray(width, np.float64)).astype(np.float32)


standardise = Scaler(_fit_standardise, _apply_standardise)
r"""Scale each feature to mean 0 and standard deviation 1: $(x - \mu)/\sigma$.

>>> x = np.array([[1.0, 5.0], [3.0, 5.0]])
>>> standardise.apply(standardise.fit(x), x).tolist()
[[-1.0, 0.0], [1.0, 0.0]]
"""

minmax = Scaler(_fit_minmax, _apply_minmax)
r"""Scale each feature to [0, 1] on the training split: $(x - \min)/(\max - \min)$.

>>> statistics = minmax.fit(np.array([[1.0], [3.0]]))
>>> minmax.apply(statistics, np.array([[5.0]])).tolist()
[[2.0]]
"""


def divide(maximum: float) -> Scaler:
    """Divide by a known maximum, such as 255 for 8-bit images; nothing is fitted.

    >>> pixels = divide(255)
    >>> pixels.apply(pixels.fit(np.zeros((1, 1))), np.array([[255]], np.uint8)).tolist()
    [[1.0]]
    """

    def fit(_: np.ndarray) -> Statistics:
        return {"divisor": float(maximum)}

    def apply(statistics: Statistics, x: np.ndarray) -> np.ndarray:
        return x.astype(np.float32) / np.float32(statistics["divisor"])

    return Scaler(fit, apply)
