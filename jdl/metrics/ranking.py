"""Metrics of how scores rank the examples, computed from all examples of an evaluation."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from jdl.core.errors import error
from jdl.core.types import Batch, Metric, Samples
from jdl.metrics.checks import check_one_array, check_same_shape
from jdl.metrics.masked import example_weights, mask_weights


def auc() -> Metric:
    """The area under the ROC curve: the chance that a positive example outranks a negative one.

    Outputs are scores and labels 0 or 1, both (batch, ...). A pair of equal scores counts half, and
    a pair counts the product of its examples' weights. The value is exact, wherever the scores lie,
    and nan if a class is absent or a score is nan.

    The examples are gathered, as `jdl.core.types.Samples`, and sorted on the host: 9 bytes for each
    example and member, 13 for float64 scores. So evaluations have this metric, in
    `fit(..., valid=...)` too, and rows of training do not.

    Raises `InputError` if the shapes differ, as for two logits per example.

    >>> metric, labels = auc(), jnp.array([0, 1, 0, 1])
    >>> print(metric.compute(metric.count(jnp.array([0.1, 0.2, 0.3, 0.4]), {"y": labels})))
    0.75

    Hanley and McNeil 1982, "The meaning and use of the area under a receiver operating
    characteristic (ROC) curve".
    """
    return Metric(_scores_for("auc"), partial(_each_member, _area_of))


def average_precision() -> Metric:
    r"""The mean precision over the positive examples, ranked by score: the area under its curve.

    $\sum_t (R_t - R_{t-1}) P_t$ with precision and recall at each distinct score t, from the
    highest. Outputs are scores and labels 0 or 1, both (batch, ...); examples count by their
    weight. The value is nan if no example is positive or a score is nan.

    The examples are gathered, as for `auc`, with the same memory, and rows of training leave the
    metric out. Raises `InputError` if the shapes differ, as for two logits per example.

    >>> metric, labels = average_precision(), jnp.array([0, 1, 0, 1])
    >>> value = metric.compute(metric.count(jnp.array([0.1, 0.2, 0.3, 0.4]), {"y": labels}))
    >>> print(value.round(4))
    0.8333

    Davis and Goadrich 2006, "The relationship between precision-recall and ROC curves".
    """
    return Metric(_scores_for("average_precision"), partial(_each_member, _average_precision_of))


def _scores_for(name: str) -> Callable[[Any, Batch], Samples]:
    return lambda outputs, batch: _scores(outputs, batch, name)


def _scores(outputs: Any, batch: Batch, name: str) -> Samples:
    _check_one_score(outputs, batch["y"], name)
    score = jnp.asarray(outputs)
    if jnp.issubdtype(score.dtype, jnp.floating):
        score = score.astype(jnp.promote_types(score.dtype, jnp.float32))
    weight = mask_weights(values=score, **example_weights(batch))
    arrays = {"score": score, "positive": batch["y"] > 0.5, "weight": weight}
    return Samples({name: jnp.ravel(x) for name, x in arrays.items()})


def _check_one_score(outputs: Any, labels: Any, name: str) -> None:
    check_one_array(outputs, f"jdl.metrics.{name}")
    shape, given = jnp.shape(outputs), jnp.shape(labels)
    if len(shape) and shape[-1] > 1 and shape[:-1] in (given, given[:-1]) and shape != given:
        raise error(
            "outputs",
            expected=f"one score per label, of the labels' shape {given}",
            got=f"shape {shape}, {shape[-1]} logits per example",
            fix="pass logits[:, 1] - logits[:, 0] as the scores, or use jdl.binary_classification "
            "and a model with one output"
            if shape[-1] == 2
            else "choose one class, with its logit as score and y == class as label",
        )
    check_same_shape(outputs, labels)


def _each_member(value_of: Callable[..., Any], samples: Samples) -> Any:
    """`value_of(score, positive, weight)`, for each member where the arrays have a leading axis."""
    score, positive, weight = (
        np.asarray(samples.arrays[name]) for name in ("score", "positive", "weight")
    )
    if score.ndim > 1:
        own = [{name: x[i] for name, x in samples.arrays.items()} for i in range(len(score))]
        return np.array([_each_member(value_of, Samples(arrays)) for arrays in own])
    counted = weight != 0
    if np.isnan(score[counted]).any():
        return np.float64("nan")
    with np.errstate(invalid="ignore", divide="ignore"):
        return value_of(*_weights_by_score(score[counted], positive[counted], weight[counted]))


def _weights_by_score(
    score: np.ndarray, positive: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The weight of positive and of negative examples at each distinct score, from the lowest."""
    order = np.argsort(score)
    score, positive, weight = score[order], positive[order], weight[order].astype(np.float64)
    first = np.flatnonzero(np.append(True, score[1:] != score[:-1])[: len(score)])
    ones, zeros = (
        np.add.reduceat(np.where(own, weight, 0), first) if len(first) else np.zeros(0)
        for own in (positive, ~positive)
    )
    return ones, zeros


def _area_of(ones: np.ndarray, zeros: np.ndarray) -> np.float64:
    below = np.cumsum(zeros) - zeros
    return (ones * (below + zeros / 2)).sum() / (ones.sum() * zeros.sum())


def _average_precision_of(ones: np.ndarray, zeros: np.ndarray) -> np.float64:
    hits, misses = (np.cumsum(own[::-1]) for own in (ones, zeros))
    return (ones[::-1] * (hits / (hits + misses))).sum() / ones.sum()
