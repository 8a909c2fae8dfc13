"""Metrics for regression."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdl.core.errors import check_range, error
from jdl.core.types import Batch, Mean, Metric, Samples
from jdl.metrics.checks import check_same_shape
from jdl.metrics.masked import example_weights, mask_weights, mean


def _error(outputs: Any, batch: Batch) -> Any:
    check_same_shape(outputs, batch["y"])
    outputs = jnp.asarray(outputs)
    return outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32)) - batch["y"]


def _squared_error(outputs: Any, batch: Batch) -> Mean:
    return mean(jnp.square(_error(outputs, batch)), **example_weights(batch))


mean_squared_error = Metric(_squared_error, Mean.compute)
"""The mean squared error over all elements; outputs and labels have the same shape."""


def _absolute_error(outputs: Any, batch: Batch) -> Mean:
    return mean(jnp.abs(_error(outputs, batch)), **example_weights(batch))


mean_absolute_error = Metric(_absolute_error, Mean.compute)
"""The mean absolute error over all elements; outputs and labels have the same shape."""


def pinball(level: float = 0.5) -> Metric:
    r"""The loss of a predicted quantile, $\max(q\,e, (q-1)\,e)$ with $e = y - \hat y$, averaged.

    Outputs and labels have the same shape, and q is `level`. For several levels at once, as in
    `jdl.tasks.pinball`, give each its own metric of `jdl.metrics.mean_of`. Raises `InputError`
    for a level outside (0, 1), and if the shapes differ.

    >>> metric, batch = pinball(0.75), {"y": jnp.array([1.0, -1.0])}
    >>> print(metric.compute(metric.count(jnp.zeros(2), batch)))
    0.5

    Koenker and Bassett 1978, "Regression quantiles".
    """
    check_range("pinball: level", level, 0, 1)
    if level in (0, 1):
        raise error(
            "pinball: level",
            expected="a number between 0 and 1, both excluded",
            got=repr(level),
            fix="pass 0.5 for the median",
        )

    def count(outputs: Any, batch: Batch) -> Mean:
        surplus = -_error(outputs, batch)
        values = jnp.maximum(level * surplus, (level - 1) * surplus)
        return mean(values, **example_weights(batch))

    return Metric(count, Mean.compute)


def _columns(outputs: Any, batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Errors, labels and weights as (examples, columns); the columns are the last axis of two."""
    gap = _error(outputs, batch)
    weight = mask_weights(values=gap, **example_weights(batch))
    columns = gap.shape[-1] if gap.ndim > 1 else 1
    labels = jnp.asarray(batch["y"], gap.dtype)
    gap, labels, weight = (part.reshape(-1, columns) for part in (gap, labels, weight))
    return jnp.where(weight != 0, gap, 0), jnp.where(weight != 0, labels, 0), weight


def _median_samples(outputs: Any, batch: Batch) -> Samples:
    gap, _, weight = _columns(outputs, batch)
    return Samples({"error": jnp.abs(gap).T, "weight": weight.T})


def _median(samples: Samples) -> Any:
    errors, weights = (np.asarray(samples.arrays[name]) for name in ("error", "weight"))
    rows = zip(*(part.reshape(-1, part.shape[-1]) for part in (errors, weights)), strict=True)
    medians = np.array([_weighted_median(*row) for row in rows])
    return medians.reshape(errors.shape[:-1]).mean(-1)


def _weighted_median(values: np.ndarray, weight: np.ndarray) -> float:
    """The middle of the values: the mean of two where the weight on both sides is the same."""
    counted = weight != 0
    if not counted.any() or np.isnan(values[counted]).any():
        return float("nan")
    order = np.argsort(values[counted])
    values, below = values[counted][order], np.cumsum(weight[counted][order], dtype=np.float64)
    middle = [np.searchsorted(below, below[-1] / 2, side) for side in ("left", "right")]
    return float(np.mean(values[middle], dtype=np.float64))


median_absolute_error = Metric(_median_samples, _median)
"""The median of the absolute errors; of labels (batch, ..., k) the mean over the k columns.

Outputs and labels have the same shape. An example counts by its weight. The errors of all examples
are gathered on the host: 8 bytes for each label and member. So evaluations have this metric, and
rows of training do not. Nan if there are no examples, or if an error is nan.
"""


def _squares(outputs: Any, batch: Batch) -> dict[str, jax.Array]:
    r"""Sums for each column; those of $w y$ and $w y^2$ are exact up to the rounding of d.

    The variance of labels far from zero is a small difference of large sums. So a batch sums
    $d = y - m$ about its rounded mean m, and gives $\sum w y = W m + \sum w d$ and
    $\sum w y^2 = W m^2 + 2 m \sum w d + \sum w d^2$ as terms that float32 holds exactly.
    """
    gap, labels, weight = _columns(outputs, batch)
    total = weight.sum(0)
    middle = _leading_bits((weight * labels).sum(0) / jnp.where(total > 0, total, 1))
    about = jnp.where(weight != 0, labels - middle[None], 0)
    first, second = (weight * about).sum(0), (weight * about**2).sum(0)
    return {
        "examples": (weight != 0).sum(0),
        "weight": total,
        "errors": (weight * gap**2).sum(0),
        "labels": jnp.concatenate([_product(total, middle), first[None]]).T,
        "squares": jnp.concatenate(
            [_product(total, middle**2), 2 * _product(first, middle), second[None]]
        ).T,
    }


def _leading_bits(x: jax.Array) -> jax.Array:
    """`x` rounded to 12 bits, so that products of two such numbers are exact in float32."""
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=11)


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Four numbers whose exact sum is `a * b`, (4, ...)."""
    high_a, high_b = _leading_bits(a), _leading_bits(b)
    low_a, low_b = a - high_a, b - high_b
    return jnp.stack([high_a * high_b, high_a * low_b, low_a * high_b, low_a * low_b])


RESOLUTION = 2.0**-44
"""Labels whose variance is below this share of their mean square are equal in float32."""


def _explained(sums: dict[str, Any]) -> Any:
    sums = {name: np.asarray(value, np.float64) for name, value in sums.items()}
    weight, errors = sums["weight"], sums["errors"]
    labels, squares = sums["labels"].sum(-1), sums["squares"].sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = squares - labels**2 / weight
        value = 1 - errors / spread
    is_constant = spread <= RESOLUTION * squares
    value = np.where(is_constant, np.where(errors == 0, 1.0, 0.0), value)
    return np.where(sums["examples"] >= 2, value, np.nan).mean(-1)


r2 = Metric(_squares, _explained)
r"""The coefficient of determination, $1 - \sum_i (y_i - \hat y_i)^2 / \sum_i (y_i - \bar y)^2$.

Outputs and labels have the same shape; of labels (batch, ..., k) it is the mean over the k columns.
If all labels of a column are equal it is 1 where the errors are 0, else 0, and with fewer than two
examples nan: as scikit-learn's `r2_score`.
"""
