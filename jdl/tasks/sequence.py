"""Tasks for sequences: one label per sequence, one label per step, or values per sequence.

A batch holds `x` (batch, time, features) and, for padded sequences, their `lengths` (batch,),
integers from 1 to time. Padding does not affect losses, metrics or gradients.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
from jax.core import Tracer

from jdl.core.errors import check_lengths, error
from jdl.core.types import Batch, Key, Mean, Metric, Metrics, Model, PyTree, Task
from jdl.tasks import losses
from jdl.tasks.supervised import Criterion, classification, entry, examples, regression


def sequences(batch: Batch) -> PyTree:
    """The inputs of a batch: `x`, or the pair `(x, lengths)` if the batch has lengths."""
    x = examples(batch)
    if "lengths" not in batch:
        return x
    lengths = batch["lengths"]
    if jnp.ndim(x) >= 2 and not isinstance(lengths, Tracer):
        check_lengths(lengths, jnp.shape(x)[1], 'batch["lengths"]')
    return x, lengths


def sequence_classification(
    model: Model,
    *,
    loss: Criterion = losses.cross_entropy,
    metrics: Mapping[str, Metric] | None = None,
    inputs: Callable[[Batch], PyTree] = sequences,
) -> Task:
    """Predict one class per sequence: `jdl.classification` for a model that takes lengths.

    A batch holds `x` (batch, time, features), labels `y` (batch,) and may hold `lengths` (batch,).
    The model returns logits (batch, classes), as `RNN(read="last")` does. Raises `InputError` at
    `init` for labels or lengths that do not fit.

    >>> import jax
    >>> from jdl.models import RNN, from_linen
    >>> task = sequence_classification(from_linen(RNN((4,), outputs=3)))
    >>> batch = {"x": jnp.zeros((2, 5, 1)), "lengths": jnp.array([5, 2]), "y": jnp.array([0, 2])}
    >>> params, model_state = jax.eval_shape(task.init, jax.random.key(0), batch)
    >>> jax.eval_shape(task.predict, params, model_state, batch).shape
    (2, 3)
    """
    return classification(model, loss=loss, metrics=metrics, inputs=inputs)


def sequence_regression(
    model: Model,
    *,
    loss: Criterion = losses.squared_error,
    metrics: Mapping[str, Metric] | None = None,
    inputs: Callable[[Batch], PyTree] = sequences,
) -> Task:
    """Predict values per sequence: `jdl.regression` for a model that takes lengths.

    A batch holds `x` (batch, time, features) and may hold `lengths` (batch,). Outputs and labels
    `y` are (batch, k). Raises `InputError` at `init` for labels or lengths that do not fit.

    >>> import jax
    >>> from jdl.models import RNN, from_linen
    >>> task = sequence_regression(from_linen(RNN((4,), outputs=1)))
    >>> batch = {"x": jnp.zeros((2, 5, 1)), "lengths": jnp.array([5, 2]), "y": jnp.zeros((2, 1))}
    >>> params, model_state = jax.eval_shape(task.init, jax.random.key(0), batch)
    >>> jax.eval_shape(task.predict, params, model_state, batch).shape
    (2, 1)
    """
    return regression(model, loss=loss, metrics=metrics, inputs=inputs)


def sequence_labelling(
    model: Model,
    *,
    loss: Criterion = losses.cross_entropy,
    metrics: Mapping[str, Metric] | None = None,
    inputs: Callable[[Batch], PyTree] = sequences,
    ignore: int | None = None,
) -> Task:
    r"""Predict one class per step of a sequence.

    The loss is $\sum_i \sum_{t \le T_i} m_{it}\,\ell(\hat y_{it}, y_{it}) / \sum_i \sum_{t \le T_i}
    m_{it}$ with lengths $T_i$ and mask $m$, so a step counts the same in short and long sequences.
    The model returns logits (batch, time, classes), as `RNN(read="each")` and `WaveNet` do. Labels
    `y` are integers (batch, time), ignored in the padding; a mask may be (batch,) or (batch, time).
    Steps with the label `ignore`, such as -1, count for nothing.

    Raises `InputError` at `init` for labels or lengths that do not fit.

    >>> from jdl.models import from_functions
    >>> uniform = from_functions(lambda key, x: {}, lambda params, x: jnp.zeros((2, 5, 3)))
    >>> batch = {"x": jnp.zeros((2, 5, 1)), "lengths": jnp.array([5, 2])}
    >>> batch["y"] = jnp.zeros((2, 5), int)
    >>> mean, _ = sequence_labelling(uniform).loss({}, {}, batch, None, train=False)
    >>> print(mean.value.round(4), mean.weight)  # log 3, over the 7 steps before padding
    1.0986 7.0
    """
    task = classification(model, loss=loss, metrics=metrics, inputs=inputs, ignore=ignore)

    def init(key: Key, batch: Batch) -> tuple[PyTree, PyTree]:
        return task.init(key, _by_step(batch))

    def evaluate(
        params: PyTree, model_state: PyTree, batch: Batch, key: Key | None, *, train: bool
    ) -> tuple[Mean, tuple[PyTree, Metrics]]:
        return task.loss(params, model_state, _by_step(batch), key, train=train)

    return task._replace(init=init, loss=evaluate)


def _by_step(batch: Batch) -> Batch:
    """The batch with a mask that excludes padding, and label 0 there."""
    if "lengths" not in batch:
        return batch
    x, labels = examples(batch), entry(batch, "y")
    shape = jnp.shape(labels.first if isinstance(labels, losses.Blend) else labels)
    if shape[:2] != x.shape[:2]:
        raise error(
            'batch["y"]',
            expected=f"one label per step, shape {x.shape[:2]}",
            got=f"shape {shape}",
            fix="label every step, or use sequence_classification for one label per sequence",
        )
    real = jnp.arange(x.shape[1])[None] < jnp.asarray(batch["lengths"])[:, None]
    mask: Any = real.astype(jnp.float32)
    if "mask" in batch:
        given = jnp.asarray(batch["mask"], jnp.float32)
        mask = jnp.where(real, given if given.ndim == 2 else given[:, None], 0)
    is_real = real.reshape(real.shape + (1,) * (len(shape) - 2))
    if isinstance(labels, losses.Blend):
        first, second = (jnp.where(is_real, one, 0) for one in (labels.first, labels.second))
        labels = replace(labels, first=first, second=second)
    else:
        labels = jnp.where(is_real, jnp.asarray(labels), 0)
    return {**batch, "y": labels, "mask": mask}
