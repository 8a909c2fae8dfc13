"""Metrics for classification."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdl.core.errors import check_count
from jdl.core.types import Batch, Mean, Metric
from jdl.metrics.checks import check_same_shape, class_indices
from jdl.metrics.masked import (
    count_or_weight,
    example_weights,
    fraction,
    mean,
)

NO_CLASS = np.iinfo(np.int32).max
"""The predicted class of an example with a nan among its outputs: no label and no row equals it."""


def predicted_class(outputs: Any) -> jax.Array:
    """The index of the largest output, from (batch, ..., classes); `NO_CLASS` if one is nan.

    >>> predicted_class(jnp.array([[0.0, 1.0], [jnp.nan, 1.0]])).tolist()
    [1, 2147483647]
    """
    # `argmax` alone would return the place of the nan.
    return jnp.where(jnp.isnan(outputs).any(-1), NO_CLASS, outputs.argmax(-1))


def _accuracy(outputs: Any, batch: Batch) -> Mean:
    labels = class_indices(outputs, batch["y"])
    return fraction(predicted_class(outputs) == labels, **example_weights(batch))


accuracy = Metric(_accuracy, Mean.compute)
"""The share of examples whose largest output is that of the label.

Outputs are (batch, ..., classes), labels integers (batch, ...) or one-hot of the outputs' shape. An
example with a nan among its outputs is no hit. Of equal outputs the first counts.
"""


def _binary_accuracy(outputs: Any, batch: Batch) -> Mean:
    check_same_shape(outputs, batch["y"])
    labels = batch["y"]
    # Every comparison with nan is false.
    hits = ((outputs > 0) & (labels > 0.5)) | ((outputs <= 0) & (labels <= 0.5))
    return fraction(hits, **example_weights(batch))


binary_accuracy = Metric(_binary_accuracy, Mean.compute)
"""The share of logits with the sign that the label asks for; labels 0 and 1 of the same shape.

A logit of 0 predicts label 0, and one that is nan is no hit.
"""


def top_k(k: int) -> Metric:
    """The share of examples whose label is among the `k` largest outputs (batch, ..., classes).

    An example with a nan among its outputs is no hit.

    Raises `InputError` unless `k` is an integer of at least 1.

    >>> metric, outputs = top_k(2), jnp.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    >>> print(metric.compute(metric.count(outputs, {"y": jnp.array([1, 2])})))
    0.5

    Russakovsky et al. 2015, "ImageNet large scale visual recognition challenge", reports k = 5.
    """

    check_count("top_k: k", k)

    def count(outputs: Any, batch: Batch) -> Mean:
        labels = class_indices(outputs, batch["y"])
        largest = jax.lax.top_k(outputs, min(k, outputs.shape[-1]))[1]
        hits = (largest == labels[..., None]).any(-1) & ~jnp.isnan(outputs).any(-1)
        return fraction(hits, **example_weights(batch))

    return Metric(count, Mean.compute)


def confusion(classes: int) -> Metric:
    """The number of examples of class i (row) predicted as class j (column), (classes, classes).

    An example with a nan among its outputs has no predicted class and is not counted, nor is one
    whose label is not a class, such as -1. Raises `InputError` for fewer than one class.

    >>> metric, outputs = confusion(2), jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> print(metric.compute(metric.count(outputs, {"y": jnp.array([0, 1, 1])})))
    [[1 0]
     [1 1]]
    """

    check_count("confusion: classes", classes)

    def count(outputs: Any, batch: Batch) -> jax.Array:
        labels = class_indices(outputs, batch["y"])
        counts = count_or_weight(labels, **example_weights(batch))
        empty = jnp.zeros((classes, classes), counts.dtype)
        # Otherwise a negative index would count from the end.
        rows = jnp.where(labels < 0, NO_CLASS, labels)
        return empty.at[rows, predicted_class(outputs)].add(counts, mode="drop")

    return Metric(count, _table)


def _table(sums: Any) -> np.ndarray:
    """Counts as integers; training sums them in float32, and weights make them real."""
    sums = np.asarray(sums)
    with np.errstate(invalid="ignore"):
        whole = sums.astype(np.int64)
    return whole if (whole == sums).all() else sums


def _cross_entropy(outputs: Any, batch: Batch) -> Mean:
    labels = class_indices(outputs, batch["y"])
    outputs = outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
    values = optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
    return mean(values, **example_weights(batch))


def _perplexity(cross_entropy: Mean) -> Any:
    with np.errstate(over="ignore"):
        return np.exp(cross_entropy.compute())


perplexity = Metric(_cross_entropy, _perplexity)
"""The exponential of the mean cross-entropy in nats; n for n equally likely classes.

Outputs are (batch, ..., classes), labels integers (batch, ...) or one-hot of the outputs' shape.
"""
