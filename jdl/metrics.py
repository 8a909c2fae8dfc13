"""Measurements that merge by addition: masked, counted in integers, shown on the host.

A `Metric` counts in the compiled step and turns the sum of all counts into numbers afterwards, so
no split of the data into batches or devices changes the result. Examples whose `batch["mask"]`
is zero are left out. Shown numbers keep leading axes, such as that of ensemble members.
"""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdl.core.errors import error
from jdl.core.types import Batch, Mean, Metric, PyTree


def mean(values: jax.Array, mask: Any = None) -> Mean:
    r"""The sums $\sum_i m_i v_i$ and $\sum_i m_i$ of numbers of shape (batch, ...).

    The mask covers the leading axes: (batch,), or (batch, time) for values of that shape. Where
    it is zero the value is not looked at, so it may be nan. The sums are float32 at least.

    >>> float(mean(jnp.array([1.0, 2.0, jnp.nan]), jnp.array([1, 1, 0])).value)
    1.5
    """
    values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
    weight = _weights(mask, values)
    return Mean(jnp.where(weight != 0, weight * values, 0).sum(), weight.sum())


def fraction(hits: jax.Array, mask: Any = None) -> Mean:
    """How often something is true, kept as two integers."""
    used = _weights(mask, hits) != 0
    return Mean((hits & used).sum(dtype=jnp.int32), used.sum(dtype=jnp.int32))


def mean_of(values: Callable[[PyTree, Batch], jax.Array]) -> Metric:
    """The mean of numbers, one for each example, that `values(outputs, batch)` returns."""
    return Metric(
        lambda outputs, batch: mean(values(outputs, batch), batch.get("mask")), Mean.compute
    )


def _accuracy(outputs: Any, batch: Batch) -> Mean:
    labels = _classes(outputs, batch["y"])
    return fraction(outputs.argmax(-1) == labels, batch.get("mask"))


accuracy = Metric(_accuracy, Mean.compute)
"""The share of examples whose largest output (batch, ..., classes) is the label's.

Labels are integers, or one-hot of the outputs' shape.
"""


def _binary_accuracy(outputs: Any, batch: Batch) -> Mean:
    check_same_shape(outputs, batch["y"])
    return fraction((outputs > 0) == (batch["y"] > 0.5), batch.get("mask"))


binary_accuracy = Metric(_binary_accuracy, Mean.compute)
"""The share of logits on the right side of zero, for labels 0 and 1 of the same shape."""


def top_k(k: int) -> Metric:
    """The share of examples whose label is among the `k` largest outputs."""

    def count(outputs: Any, batch: Batch) -> Mean:
        labels = _classes(outputs, batch["y"])
        best = jax.lax.top_k(outputs, min(k, outputs.shape[-1]))[1]
        return fraction((best == labels[..., None]).any(-1), batch.get("mask"))

    return Metric(count, Mean.compute)


def confusion(classes: int) -> Metric:
    """How often class i (row) was taken for class j (column), as integers."""

    def count(outputs: Any, batch: Batch) -> jax.Array:
        labels = _classes(outputs, batch["y"])
        used = _weights(batch.get("mask"), labels) != 0
        empty = jnp.zeros((classes, classes), jnp.int32)
        return empty.at[labels, outputs.argmax(-1)].add(used.astype(jnp.int32), mode="drop")

    return Metric(count, np.asarray)


def _squared_error(outputs: Any, batch: Batch) -> Mean:
    check_same_shape(outputs, batch["y"])
    return mean(jnp.square(outputs - batch["y"]), batch.get("mask"))


mean_squared_error = Metric(_squared_error, Mean.compute)
"""The mean over all numbers of the squared difference between outputs and labels."""


def _absolute_error(outputs: Any, batch: Batch) -> Mean:
    check_same_shape(outputs, batch["y"])
    return mean(jnp.abs(outputs - batch["y"]), batch.get("mask"))


mean_absolute_error = Metric(_absolute_error, Mean.compute)
"""The mean over all numbers of the absolute difference between outputs and labels."""


def _surprise(outputs: Any, batch: Batch) -> Mean:
    labels = _classes(outputs, batch["y"])
    outputs = outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
    values = optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
    return mean(values, batch.get("mask"))


def _perplexity(surprise: Mean) -> Any:
    with np.errstate(over="ignore"):
        return np.exp(surprise.compute())


perplexity = Metric(_surprise, _perplexity)
"""The exponential of the mean cross-entropy in nats: of n equally likely classes, n."""


def auc(bins: int = 4096) -> Metric:
    r"""Area under the ROC curve: the chance that a positive example scores above a negative one.

    Ties count half. Scores s, any real numbers, are squashed to $s/(1+|s|)$ and counted in `bins`
    equal bins, because only counts merge by addition. Scores within one bin tie: the result is
    off by at most half the share of (positive, negative) pairs that fall into a common bin.
    It is nan if a class is absent or a score is nan.
    """

    def count(outputs: Any, batch: Batch) -> jax.Array:
        check_same_shape(outputs, batch["y"])
        scores, positive = outputs.ravel(), jnp.ravel(batch["y"] > 0.5).astype(jnp.int32)
        # Squashed by hand at both ends: an infinite score would give nan.
        squashed = jnp.where(jnp.isinf(scores), jnp.sign(scores), scores / (1 + jnp.abs(scores)))
        place = jnp.clip((squashed + 1) / 2 * bins, 0, bins - 1)
        place = jnp.where(jnp.isnan(scores), bins, place).astype(jnp.int32)
        used = jnp.ravel(_weights(batch.get("mask"), outputs) != 0).astype(jnp.int32)
        return jnp.zeros((2, bins + 1), jnp.int32).at[positive, place].add(used)

    return Metric(count, _area)


def _area(counts: Any) -> Any:
    counts = np.asarray(counts, np.float64)
    negative, positive = counts[..., 0, :-1], counts[..., 1, :-1]
    below = np.cumsum(negative, axis=-1) - negative
    won = (positive * (below + negative / 2)).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        area = won / (positive.sum(-1) * negative.sum(-1))
    return np.where(counts[..., -1].sum(-1) > 0, np.nan, area)[()]


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    r"""Wilson's interval for a proportion of which $k$ successes in $n$ trials were seen.

    $\frac{\hat p + z^2/2n \pm z\sqrt{\hat p(1-\hat p)/n + z^2/4n^2}}{1 + z^2/n}$ with
    $\hat p = k/n$; unlike $\hat p \pm z\,\mathrm{se}$ it stays within [0, 1] and is sound near the
    ends (Wilson 1927).

    >>> low, high = wilson(9912, 10000)
    >>> print(f"{low:.4f}-{high:.4f}")
    0.9892-0.9929
    """
    if not (n > 0 and 0 <= successes <= n and 0 < level < 1):
        raise error(
            "wilson",
            expected="0 <= successes <= n, n > 0 and 0 < level < 1",
            got=f"{successes} of {n} at level {level}",
            fix="count the examples that were evaluated, and those that were right",
        )
    z = NormalDist().inv_cdf(0.5 + level / 2)
    p = successes / n
    middle = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def frechet(one: Any, other: Any) -> float:
    r"""How far two sets of feature vectors (n, features) are apart, as normal distributions.

    $\lVert \mu - \nu \rVert^2 + \mathrm{tr}\,(C + D - 2 (CD)^{1/2})$ with their means and
    covariances: the "FID" of generated images where the features are those of a classifier
    (Heusel et al. 2017). Runs on the host in float64. It falls as n grows; compare equal n.

    >>> rows = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 2.0]])
    >>> print(round(frechet(rows, rows + 2), 6))
    8.0
    """
    one, other = (np.asarray(rows, np.float64) for rows in (one, other))
    if one.ndim != 2 or other.shape[1:] != one.shape[1:] or min(len(one), len(other)) < 2:
        raise error(
            "frechet",
            expected="two arrays (n, features) with two rows or more, of as many features",
            got=f"shapes {one.shape} and {other.shape}",
            fix="flatten the features of each example to one axis",
        )
    gap = one.mean(0) - other.mean(0)
    c, d = (np.atleast_2d(np.cov(rows.T)) for rows in (one, other))
    values, axes = np.linalg.eigh(c)
    root = (axes * np.sqrt(np.maximum(values, 0))[None]) @ axes.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ d @ root), 0)).sum()
    return float(gap @ gap + np.trace(c) + np.trace(d) - 2 * cross)


def compute(metrics: Any) -> Any:
    """Metrics as plain Python numbers and lists, in one transfer from the device.

    >>> compute({"loss": Mean(jnp.float32(3), jnp.float32(2)), "steps": jnp.int32(7)})
    {'loss': 1.5, 'steps': 7}
    """
    return _plain(jax.device_get(metrics))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if hasattr(value, "compute"):
        return _plain(value.compute())
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    return value.tolist() if hasattr(value, "tolist") else value


def check_same_shape(outputs: Any, targets: Any) -> None:
    """Raise unless outputs and targets have one shape: (n,) against (n, 1) would broadcast."""
    found, given = jnp.shape(outputs), jnp.shape(targets)
    if found == given:
        return
    fix = "give y the shape of the model's outputs"
    if found == (*given, 1):
        fix = "give y a last axis of one: y[..., None]"
    elif given == (*found, 1):
        fix = "drop y's last axis: y[..., 0]"
    raise error("y", expected=f"shape {found}, as the outputs", got=f"shape {given}", fix=fix)


def _classes(outputs: Any, labels: Any) -> Any:
    """Labels as integers of shape (batch, ...), for outputs (batch, ..., classes)."""
    if jnp.shape(labels) == jnp.shape(outputs):
        return labels.argmax(-1)
    check_integer_labels(outputs, labels)
    return jnp.asarray(labels)


def check_integer_labels(outputs: Any, labels: Any) -> None:
    """Raise unless labels are integers (batch, ...) for outputs (batch, ..., classes)."""
    shape, given, dtype = jnp.shape(outputs), jnp.shape(labels), jnp.result_type(labels)
    if given == shape[:-1] and jnp.issubdtype(dtype, jnp.integer):
        return
    if given == shape:
        fix = "give integers, y.argmax(-1), or use loss=jdl.tasks.soft_cross_entropy"
    elif given == (*shape[:-1], 1):
        fix = "drop the last axis: y[..., 0]"
    elif given == shape[:-1]:
        fix = "give whole numbers: y.astype(int); for 0/1 labels of one output see "
        fix += "jdl.tasks.binary_classification"
    else:
        fix = "give one label for each row of outputs"
    raise error(
        "y",
        expected=f"integer class labels of shape {shape[:-1]} for outputs of shape {shape}",
        got=f"{dtype} of shape {given}",
        fix=fix,
    )


def _weights(mask: Any, values: jax.Array) -> jax.Array:
    """The mask as numbers of the values' shape; ones without a mask."""
    kind = values.dtype if jnp.issubdtype(values.dtype, jnp.floating) else jnp.float32
    if mask is None:
        return jnp.ones(values.shape, kind)
    mask = jnp.asarray(mask)
    if mask.ndim == 0 or mask.shape != values.shape[: mask.ndim]:
        raise error(
            "mask",
            expected=f"one number for each example, shape {values.shape[:1]}"
            + (f" or more of {values.shape}" if values.ndim > 1 else ""),
            got=f"shape {mask.shape}",
            fix="1 keeps an example, 0 leaves it out",
        )
    mask = mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim)).astype(kind)
    return jnp.broadcast_to(mask, values.shape)
