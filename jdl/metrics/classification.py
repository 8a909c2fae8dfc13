"""Metrics for classification."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdl.core.types import Batch, Mean, Metric
from jdl.metrics.checks import check_same_shape, class_indices
from jdl.metrics.masked import mask_weights, masked_fraction, masked_mean


def _accuracy(outputs: Any, batch: Batch) -> Mean:
    labels = class_indices(outputs, batch["y"])
    return masked_fraction(outputs.argmax(-1) == labels, batch.get("mask"))


accuracy = Metric(_accuracy, Mean.compute)
"""The share of examples whose largest output (batch, ..., classes) is the label's.

Labels are integers, or one-hot of the outputs' shape.
"""


def _binary_accuracy(outputs: Any, batch: Batch) -> Mean:
    check_same_shape(outputs, batch["y"])
    return masked_fraction((outputs > 0) == (batch["y"] > 0.5), batch.get("mask"))


binary_accuracy = Metric(_binary_accuracy, Mean.compute)
"""The share of logits on the right side of zero, for labels 0 and 1 of the same shape."""


def top_k(k: int) -> Metric:
    """The share of examples whose label is among the `k` largest outputs."""

    def count(outputs: Any, batch: Batch) -> Mean:
        labels = class_indices(outputs, batch["y"])
        best = jax.lax.top_k(outputs, min(k, outputs.shape[-1]))[1]
        return masked_fraction((best == labels[..., None]).any(-1), batch.get("mask"))

    return Metric(count, Mean.compute)


def confusion_matrix(classes: int) -> Metric:
    """How often class i (row) was taken for class j (column), as integers."""

    def count(outputs: Any, batch: Batch) -> jax.Array:
        labels = class_indices(outputs, batch["y"])
        used = mask_weights(batch.get("mask"), labels) != 0
        empty = jnp.zeros((classes, classes), jnp.int32)
        return empty.at[labels, outputs.argmax(-1)].add(used.astype(jnp.int32), mode="drop")

    return Metric(count, np.asarray)


def _surprise(outputs: Any, batch: Batch) -> Mean:
    labels = class_indices(outputs, batch["y"])
    outputs = outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
    values = optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
    return masked_mean(values, batch.get("mask"))


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
        used = jnp.ravel(mask_weights(batch.get("mask"), outputs) != 0).astype(jnp.int32)
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
