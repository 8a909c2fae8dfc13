"""The mean and the standard deviation of several results, of seeds or members."""

import math
from collections.abc import Sequence

import numpy as np


def mean_and_deviation(values: Sequence[float] | np.ndarray) -> tuple[float, float | None]:
    r"""The mean, and the deviation $\sqrt{\frac1{n-1}\sum_i (v_i - \bar v)^2}$; None for one value.

    Everywhere in jdl a deviation over seeds or members is this one. Values that are not finite are
    left out; without any other, the mean is nan.

    >>> mean_and_deviation([1.0, 3.0, float("nan")])
    (2.0, 1.4142135623730951)
    >>> mean_and_deviation([0.2])
    (0.2, None)
    """
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    if finite.size < 2:
        return (float(finite[0]) if finite.size else math.nan), None
    if finite.min() == finite.max():  # else equal values differ from their mean by a rounding
        return float(finite[0]), 0.0
    return float(finite.mean()), float(finite.std(ddof=1))


def format_number(value: float) -> str:
    """Four decimals, or four significant digits for very small and very large values.

    >>> format_number(0.91667), format_number(1.68e-5)
    ('0.9167', '1.68e-05')
    """
    size = abs(value)
    return f"{value:.4f}" if size == 0 or 1e-3 <= size < 1e4 else f"{value:.4g}"


def format_spread(mean: float, deviation: float | None) -> str:
    """A mean with its deviation, if there is one.

    >>> format_spread(0.5, 0.25), format_spread(0.5, None)
    ('0.5000 ± 0.2500', '0.5000')
    """
    text = format_number(mean)
    return text if deviation is None else f"{text} ± {format_number(deviation)}"
