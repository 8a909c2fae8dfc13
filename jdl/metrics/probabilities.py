"""Metrics of predicted probabilities: how likely the labels are, and how honest the confidence."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdl.core.errors import check_count
from jdl.core.types import Batch, Mean, Metric
from jdl.metrics.checks import check_one_array, class_indices
from jdl.metrics.class_counts import check_two_logits, is_one_logit
from jdl.metrics.classification import predicted_class
from jdl.metrics.masked import example_weights, mask_weights, mean


def _log_loss(outputs: Any, batch: Batch) -> Mean:
    outputs, labels = _logits(outputs, batch["y"], "log_loss")
    if is_one_logit(outputs, labels):
        values = optax.sigmoid_binary_cross_entropy(outputs, labels)
    else:
        values = optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
    return mean(values, **example_weights(batch))


log_loss = Metric(_log_loss, Mean.compute)
"""The mean negative logarithm of the probability that a label has, in nats.

Outputs are logits (batch, ..., classes), labels integers (batch, ...) or one-hot; one logit per
example, of the labels' shape (batch,) or (batch, ..., 1), is a case of two classes.
"""


def _brier(outputs: Any, batch: Batch) -> Mean:
    outputs, labels = _logits(outputs, batch["y"], "brier_score")
    if is_one_logit(outputs, labels):
        values = jnp.square(jax.nn.sigmoid(outputs) - labels)
    else:
        classes = outputs.shape[-1]
        gap = jax.nn.softmax(outputs) - jax.nn.one_hot(labels, classes, dtype=outputs.dtype)
        values = jnp.square(gap).sum(-1) / (2 if classes == 2 else 1)
    return mean(values, **example_weights(batch))


brier_score = Metric(_brier, Mean.compute)
r"""The mean squared error of the predicted probabilities; less is better.

$(p - y)^2$ for two classes, in [0, 1], and $\sum_k (p_k - y_k)^2$ for more, in [0, 2], as
scikit-learn's `brier_score_loss`. Outputs and labels are those of `log_loss`.

Brier 1950, "Verification of forecasts expressed in terms of probability".
"""


def expected_calibration_error(bins: int = 15) -> Metric:
    r"""The mean gap between confidence and accuracy, $\sum_b n_b |a_b - c_b| / n$.

    The confidence of an example is the probability of its predicted class. Of the n examples, n_b
    have a confidence in the b-th of `bins` equal intervals (low, high] of [0, 1], with the mean
    confidence c_b and the accuracy a_b. Outputs and labels are those of `log_loss`; an example with
    a nan among its outputs makes the value nan.

    Raises `InputError` unless `bins` is an integer of at least 1.

    >>> metric, outputs = expected_calibration_error(), jnp.zeros((4, 2))
    >>> print(metric.compute(metric.count(outputs, {"y": jnp.array([0, 0, 0, 1])})))
    0.25

    Guo, Pleiss, Sun and Weinberger 2017, "On calibration of modern neural networks".
    """
    check_count("expected_calibration_error: bins", bins)

    def count(outputs: Any, batch: Batch) -> dict[str, jax.Array]:
        outputs, labels = _logits(outputs, batch["y"], "expected_calibration_error")
        if is_one_logit(outputs, labels):
            confidence = jax.nn.sigmoid(jnp.abs(outputs))
            hits = (outputs > 0) == (labels > 0.5)
        else:
            confidence = jax.nn.softmax(outputs).max(-1)
            hits = predicted_class(outputs) == labels
        weight = mask_weights(values=confidence, **example_weights(batch))
        row = jnp.clip(jnp.ceil(confidence * bins) - 1, 0, bins - 1).astype(jnp.int32)
        gap = jnp.where(weight != 0, weight * (hits - confidence), 0)
        empty = jnp.zeros(bins, weight.dtype)
        return {"gap": empty.at[row].add(gap), "weight": weight.sum()}

    return Metric(count, _calibration_gap)


def _calibration_gap(sums: dict[str, Any]) -> Any:
    gap, weight = (np.asarray(sums[name], np.float64) for name in ("gap", "weight"))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.abs(gap).sum(-1) / weight


def _logits(outputs: Any, labels: Any, name: str) -> tuple[jax.Array, Any]:
    """Logits of at least 32 bits, and labels: of their shape for one logit, else class indices."""
    check_one_array(outputs, f"jdl.metrics.{name}")
    outputs = jnp.asarray(outputs)
    outputs = outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
    if is_one_logit(outputs, labels):
        return outputs, jnp.asarray(labels).astype(outputs.dtype)
    labels = class_indices(outputs, labels)
    check_two_logits(outputs, labels, name)
    return outputs, labels
