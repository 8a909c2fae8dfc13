"""Tasks over sequences of true lengths: one label for each, one for each step, or a number.

A batch holds `x` (batch, time, n) and, where sequences are padded, their true `lengths` (batch,),
integers from 1 to time. Padding reaches neither losses nor metrics nor gradients.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jax.core import Tracer

from jdl.core.errors import check_lengths, error
from jdl.core.types import Batch, Key, Mean, Metric, Metrics, Model, PyTree, Task
from jdl.tasks import losses
from jdl.tasks.supervised import Criterion, classification, entry, examples, regression


def sequences(batch: Batch) -> PyTree:
    """The inputs of a batch: `x`, or the pair of it and `lengths` where the batch has them."""
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
    """One class for each sequence: `jdl.classification` of a model that takes lengths.

    The model reads a state off each sequence, `RNN(read="last")` or `"mean"`; outputs are logits
    (batch, classes) and labels integers (batch,).

    >>> import jax
    >>> from jdl.models import RNN, from_linen
    >>> task = sequence_classification(from_linen(RNN((4,), outputs=3)))
    >>> batch = {"x": jnp.zeros((2, 5, 1)), "lengths": jnp.array([5, 2]), "y": jnp.array([0, 2])}
    >>> params, model_state = task.init(jax.random.key(0), batch)
    >>> task.predict(params, model_state, batch).shape
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
    """Numbers for each sequence: `jdl.regression` of a model that takes lengths.

    Outputs and labels are (batch, k).
    """
    return regression(model, loss=loss, metrics=metrics, inputs=inputs)


def sequence_labelling(
    model: Model,
    *,
    loss: Criterion = losses.cross_entropy,
    metrics: Mapping[str, Metric] | None = None,
    inputs: Callable[[Batch], PyTree] = sequences,
) -> Task:
    r"""One class for each step: the mean of the loss over all true steps of all sequences.

    $\sum_i \sum_{t \le T_i} m_{it}\,\ell(\hat y_{it}, y_{it}) / \sum_i \sum_{t \le T_i} m_{it}$, so
    a step counts the same in a short sequence and in a long one. Outputs are logits
    (batch, time, classes), as of `RNN(read="each")` or `WaveNet`, and labels integers
    (batch, time), of which those in the padding are not looked at. A mask may be (batch,) or
    (batch, time).

    >>> import jax
    >>> from jdl.models import RNN, from_linen
    >>> task = sequence_labelling(from_linen(RNN((4,), outputs=3, read="each")))
    >>> batch = {"x": jnp.zeros((2, 5, 1)), "lengths": jnp.array([5, 2])}
    >>> batch["y"] = jnp.zeros((2, 5), int)
    >>> params, model_state = task.init(jax.random.key(0), batch)
    >>> mean, _ = task.loss(params, model_state, batch, None, train=False)
    >>> print(mean.weight)
    7.0
    """
    task = classification(model, loss=loss, metrics=metrics, inputs=inputs)

    def init(key: Key, batch: Batch) -> tuple[PyTree, PyTree]:
        return task.init(key, _by_step(batch))

    def evaluate(
        params: PyTree, model_state: PyTree, batch: Batch, key: Key | None, *, train: bool
    ) -> tuple[Mean, tuple[PyTree, Metrics]]:
        return task.loss(params, model_state, _by_step(batch), key, train=train)

    return task._replace(init=init, loss=evaluate)


def _by_step(batch: Batch) -> Batch:
    """The batch with a mask of true steps, and label 0 in the padding."""
    if "lengths" not in batch:
        return batch
    x, labels = examples(batch), jnp.asarray(entry(batch, "y"))
    if labels.shape[:2] != x.shape[:2]:
        raise error(
            'batch["y"]',
            expected=f"a label for each step, shape {x.shape[:2]}",
            got=f"shape {labels.shape}",
            fix="label every step, or use sequence_classification for one label of each sequence",
        )
    real = jnp.arange(x.shape[1])[None] < jnp.asarray(batch["lengths"])[:, None]
    mask: Any = real.astype(jnp.float32)
    if "mask" in batch:
        given = jnp.asarray(batch["mask"], jnp.float32)
        mask = jnp.where(real, given if given.ndim == 2 else given[:, None], 0)
    kept = real.reshape(real.shape + (1,) * (labels.ndim - 2))
    return {**batch, "y": jnp.where(kept, labels, 0), "mask": mask}
