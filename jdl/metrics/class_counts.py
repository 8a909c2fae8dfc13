"""Precision, recall and what else a table of true against predicted classes gives."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdl.core.errors import check_one_of, error
from jdl.core.types import Batch, Metric
from jdl.metrics.checks import check_one_array, class_indices
from jdl.metrics.classification import NO_CLASS, predicted_class
from jdl.metrics.masked import count_or_weight, example_weights

AVERAGES = ("binary", "macro", "micro", "weighted")


def precision(average: str = "binary") -> Metric:
    r"""The share of predictions of a class that are right, $\mathrm{TP} / (\mathrm{TP + FP})$.

    `average` is as in scikit-learn:

    - "binary": of class 1. Outputs are logits of the labels' shape, whose sign decides (all columns
      of a multi-label classification count alike), or two logits per example.
    - "macro": the mean over the classes that occur among labels or predictions.
    - "weighted": the mean over classes, each weighted by its number of examples.
    - "micro": of all classes counted together.

    Other outputs than those of "binary" are (batch, ..., classes), with integer labels (batch, ...)
    or one-hot ones; one logit per example is a case of two classes.

    A class without predictions has the value 0, and no examples at all (or only of weight 0) give
    nan. An example with a nan among its outputs is predicted as no class.

    Raises `InputError` for another `average`, and for outputs and labels that do not fit it.

    >>> metric, y = precision(), jnp.array([0, 1, 1])
    >>> print(metric.compute(metric.count(jnp.array([2.0, 3.0, -1.0]), {"y": y})))
    0.5
    """
    return _averaged("precision", average, lambda hits, true, predicted: (hits, predicted))


def recall(average: str = "binary") -> Metric:
    r"""The share of a class's examples that are predicted as it, $\mathrm{TP / (TP + FN)}$.

    `average`, outputs and labels are as in `precision`. A class without examples has the value 0.
    An example with a nan among its outputs is found as no class.

    Raises `InputError` for another `average`, and for outputs and labels that do not fit it.

    >>> metric, y = recall("macro"), jnp.array([0, 1, 1])
    >>> print(metric.compute(metric.count(jnp.array([-2.0, 3.0, -1.0]), {"y": y})))
    0.75
    """
    return _averaged("recall", average, lambda hits, true, predicted: (hits, true))


def f1(average: str = "binary") -> Metric:
    r"""The harmonic mean of precision and recall, $2\,\mathrm{TP / (2\,TP + FP + FN)}$.

    `average`, outputs and labels are as in `precision`. A class that neither occurs nor is
    predicted has the value 0. `fit(..., best="max f1")` keeps the best weights by a metric that the
    task names "f1".

    Raises `InputError` for another `average`, and for outputs and labels that do not fit it.

    >>> metric, y = f1(), jnp.array([0, 1, 1])
    >>> print(metric.compute(metric.count(jnp.array([-2.0, 3.0, 1.0]), {"y": y})))
    1.0

    van Rijsbergen 1979, "Information retrieval".
    """
    return _averaged("f1", average, lambda hits, true, predicted: (2 * hits, true + predicted))


Parts = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""`parts(hits, true, predicted) -> (numerator, denominator)`, all (..., classes)."""


def _averaged(name: str, average: str, parts: Parts) -> Metric:
    check_one_of(f"{name}: average", average, AVERAGES)

    def count(outputs: Any, batch: Batch) -> jax.Array:
        return _class_table(outputs, batch, name, elementwise=average == "binary")

    def compute(table: Any) -> Any:
        hits, true, predicted = _margins(table)
        if average == "micro":
            one = [part.sum(-1, keepdims=True) for part in (hits, true, predicted)]
            value = _ratio(*parts(*one))[..., 0]
        else:
            scores = _ratio(*parts(hits, true, predicted))
            if average == "binary":
                value = scores[..., 1]
            else:
                weight = true if average == "weighted" else (true + predicted > 0).astype(float)
                value = _ratio((weight * scores).sum(-1), weight.sum(-1))
        return _or_nan(value, true)

    return Metric(count, compute)


def _balanced_accuracy(table: Any) -> Any:
    hits, true, _ = _margins(table)
    occurs = true > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(occurs, _ratio(hits, true), 0).sum(-1) / np.float64(1) / occurs.sum(-1)


def _count_for(name: str) -> Callable[[Any, Batch], jax.Array]:
    return lambda outputs, batch: _class_table(outputs, batch, name, elementwise=False)


balanced_accuracy = Metric(_count_for("balanced_accuracy"), _balanced_accuracy)
"""The mean over classes of the share of their examples that are predicted right.

The classes are those that occur among the labels. Outputs are (batch, ..., classes), labels
integers (batch, ...) or one-hot; one logit per example, of the labels' shape, is a case of two
classes. An example with a nan among its outputs is no hit. Nan if there are no examples.
"""


def _matthews(table: Any) -> Any:
    hits, true, predicted = _margins(table)
    total = true.sum(-1)
    missing = total - predicted.sum(-1)  # outputs that are nan are a class of their own
    agreement = hits.sum(-1) * total - (true * predicted).sum(-1)
    spread_true = total**2 - (true**2).sum(-1)
    spread_predicted = total**2 - (predicted**2).sum(-1) - missing**2
    return _or_nan(_ratio(agreement, np.sqrt(np.maximum(spread_true * spread_predicted, 0))), true)


matthews = Metric(_count_for("matthews"), _matthews)
"""The Matthews correlation of true and predicted classes: 1 if all are right, about 0 by chance.

Outputs and labels are those of `balanced_accuracy`. The value is 0 if all labels, or all
predictions, are of one class, and nan if there are no examples.

Gorodkin 2004, "Comparing two K-category assignments by a K-category correlation coefficient".
"""


def is_one_logit(outputs: Any, labels: Any) -> bool:
    """Whether outputs have one logit per label, 0 or 1: both (batch,), or both (batch, ..., 1)."""
    shape = jnp.shape(outputs)
    return shape == jnp.shape(labels) and (len(shape) == 1 or shape[-1] == 1)


def check_two_logits(outputs: Any, labels: Any, user: str) -> None:
    """Raise `InputError` for (batch, ..., 1) outputs as the logits of classes.

    >>> check_two_logits(jnp.zeros((3, 1)), jnp.zeros(3, int), "f1")
    Traceback (most recent call last):
    jdl.core.errors.InputError: y
      expected: labels of the outputs' shape (3, 1), as f1 takes for one logit per example
      got:      shape (3,)
      fix:      add a last axis: y[..., None]
    """
    shape = jnp.shape(outputs)
    if shape[-1] > 1:
        return
    raise error(
        "y",
        expected=f"labels of the outputs' shape {shape}, as {user} takes for one logit per example",
        got=f"shape {jnp.shape(labels)}",
        fix="add a last axis: y[..., None]",
    )


def _class_table(outputs: Any, batch: Batch, name: str, elementwise: bool) -> jax.Array:
    """Examples of class i (row) predicted as class j (column); the last column: as no class."""
    labels = batch["y"]
    check_one_array(outputs, f"jdl.metrics.{name}")
    outputs = jnp.asarray(outputs)
    if is_one_logit(outputs, labels) or (elementwise and outputs.shape == jnp.shape(labels)):
        classes = 2
        rows = jnp.where(labels > 0.5, 1, jnp.where(labels <= 0.5, 0, NO_CLASS))
        columns = jnp.where(outputs > 0, 1, jnp.where(outputs <= 0, 0, 2))
    else:
        labels, classes = class_indices(outputs, labels), outputs.shape[-1]
        check_two_logits(outputs, labels, name)
        if elementwise and classes != 2:
            raise error(
                f"{name}: average",
                expected=f'"macro", "micro" or "weighted" for {classes} classes',
                got='"binary"',
                fix=f'pass jdl.metrics.{name}("macro")',
            )
        rows = jnp.where(labels < 0, NO_CLASS, labels)  # a negative index counts from the end
        columns = jnp.minimum(predicted_class(outputs), classes)
    counts = count_or_weight(rows, **example_weights(batch))
    empty = jnp.zeros((classes, classes + 1), counts.dtype)
    return empty.at[rows, columns].add(counts, mode="drop")


def _margins(table: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The sums of hits, examples and predictions of each class, (..., classes)."""
    table = np.asarray(table, np.float64)
    square = table[..., :-1]
    return np.diagonal(square, axis1=-2, axis2=-1), table.sum(-1), square.sum(-2)


def _ratio(over: Any, under: Any) -> np.ndarray:
    """`over / under`, and 0 where `under` is 0."""
    return np.divide(over, under, out=np.zeros(np.shape(over)), where=np.asarray(under) != 0)


def _or_nan(value: np.ndarray, true: np.ndarray) -> Any:
    """The value where anything was counted."""
    return np.where(true.sum(-1) > 0, value, np.nan)
