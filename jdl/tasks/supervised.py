"""Tasks with labels: classification and regression."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jdl import metrics as measures
from jdl.core.errors import did_you_mean, error
from jdl.core.types import Batch, Count, Info, Key, Mean, Metric, Metrics, Model, PyTree, Task
from jdl.tasks import losses
from jdl.tasks.losses import Criterion


def examples(batch: Batch) -> PyTree:
    """The inputs of a batch, `batch["x"]`."""
    return entry(batch, "x")


def supervised_task(
    model: Model,
    loss: Criterion,
    metrics: Mapping[str, Metric] | None = None,
    inputs: Callable[[Batch], PyTree] = examples,
) -> Task:
    r"""Minimise $\sum_i m_i\,\ell(\hat y_i, y_i) / \sum_i m_i$, with `batch["mask"]` as m.

    `loss(outputs, batch["y"])` returns a number for each example (or for each of its parts),
    computed in float32 at least; without a mask each weighs 1. `metrics` are counted beside it.
    `inputs` takes from the batch what the model is called with.

    Raises `InputError` where labels do not fit the outputs, at `init` already, and for a masked
    batch in training if the model has batch statistics, which a mask cannot reach.
    """
    chosen = {} if metrics is None else dict(metrics)

    def init(key: Key, batch: Batch) -> tuple[PyTree, PyTree]:
        params, model_state = model.init(key, inputs(batch))
        jax.eval_shape(
            lambda p, s, b: evaluate(p, s, b, None, train=False), params, model_state, batch
        )
        return params, model_state

    def evaluate(
        params: PyTree, model_state: PyTree, batch: Batch, key: Key | None, *, train: bool
    ) -> tuple[Mean, tuple[PyTree, Metrics]]:
        if train:
            refuse_masked_statistics(model_state, batch)
        outputs, model_state = model.apply(params, model_state, inputs(batch), key=key, train=train)
        outputs = jax.tree.map(_at_least_float32, outputs)
        mean = measures.masked_mean(_checked(loss(outputs, entry(batch, "y"))), batch.get("mask"))
        plain = {**batch, "y": _plain_labels(batch["y"])}
        counted = {name: _count(metric, outputs, plain) for name, metric in chosen.items()}
        return mean, (model_state, {"loss": mean, **counted})

    def predict(params: PyTree, model_state: PyTree, batch: Batch) -> PyTree:
        return model.apply(params, model_state, inputs(batch), train=False)[0]

    return Task(init, evaluate, predict)


def classification(
    model: Model,
    *,
    loss: Criterion = losses.cross_entropy,
    metrics: Mapping[str, Metric] | None = None,
    inputs: Callable[[Batch], PyTree] = examples,
) -> Task:
    """Choose one of several classes: softmax cross-entropy from logits, and accuracy.

    Outputs are logits (batch, ..., classes). Labels are integers (batch, ...); for one-hot
    labels or other distributions pass `loss=jdl.tasks.soft_cross_entropy`. At `init` the labels
    of the batch it is given are checked to be within the classes.

    >>> from jdl.models import MLP, from_linen
    >>> task = classification(from_linen(MLP((), outputs=3)))
    >>> batch = {"x": jnp.zeros((4, 2)), "y": jnp.array([0, 1, 2, 1])}
    >>> params, model_state = task.init(jax.random.key(0), batch)
    >>> mean, _ = task.loss(params, model_state, batch, None, train=False)
    >>> print(mean.value.round(4))  # log 3
    1.0986
    """
    metrics = {"accuracy": measures.accuracy} if metrics is None else metrics
    task = supervised_task(model, loss, metrics, inputs)

    def init(key: Key, batch: Batch) -> tuple[PyTree, PyTree]:
        params, model_state = task.init(key, batch)
        outputs = jax.eval_shape(task.predict, params, model_state, batch)
        check_labels(batch["y"], outputs.shape[-1])
        return params, model_state

    return task._replace(init=init, info=Info(output="class_logits"))


def regression(
    model: Model,
    *,
    loss: Criterion = losses.squared_error,
    metrics: Mapping[str, Metric] | None = None,
    inputs: Callable[[Batch], PyTree] = examples,
) -> Task:
    """Predict numbers: mean squared error, so `metrics["loss"]` is the MSE.

    Labels have the outputs' shape: y of shape (n,) against outputs (n, 1) raises, since it would
    broadcast to (n, n) and fit the mean. `loss=jdl.tasks.half_squared_error` halves it.
    """
    task = supervised_task(model, loss, metrics, inputs)
    return task._replace(info=Info(output="values"))


def binary_classification(
    model: Model,
    *,
    loss: Criterion = losses.binary_cross_entropy,
    metrics: Mapping[str, Metric] | None = None,
    inputs: Callable[[Batch], PyTree] = examples,
) -> Task:
    """Yes or no: sigmoid cross-entropy from logits, and accuracy.

    Labels are 0 and 1 (or between), of the outputs' shape (batch, questions); others raise at
    `init`, -1 among them. Several columns are several
    questions of which any number may be answered by yes: multi-label classification. The loss and
    the accuracy are averaged over them.
    """
    metrics = {"accuracy": measures.binary_accuracy} if metrics is None else metrics
    task = supervised_task(model, loss, metrics, inputs)

    def init(key: Key, batch: Batch) -> tuple[PyTree, PyTree]:
        params, model_state = task.init(key, batch)
        _check_answers(batch["y"])
        return params, model_state

    return task._replace(init=init, info=Info(output="binary_logits"))


def uncertain_regression(
    model: Model,
    *,
    metrics: Mapping[str, Metric] | None = None,
    inputs: Callable[[Batch], PyTree] = examples,
) -> Task:
    r"""Predict numbers and how far off they may be: a normal distribution for each target.

    The model has 2k outputs for k targets: k means and k numbers a, of which
    $\sigma^2 = \log(1 + e^a) + 10^{-6}$ (Nix & Weigend 1994; Lakshminarayanan et al. 2017).
    Outputs, and predictions, are a dict of `mean` and `std`, each (batch, k). The loss is the
    negative log-likelihood in nats, averaged over targets.

    >>> from jdl.models import MLP, from_linen
    >>> task = uncertain_regression(from_linen(MLP((), outputs=2)))
    >>> batch = {"x": jnp.zeros((4, 3)), "y": jnp.zeros((4, 1))}
    >>> params, model_state = task.init(jax.random.key(0), batch)
    >>> print(task.predict(params, model_state, batch)["std"].shape)
    (4, 1)
    """
    if metrics is None:
        metrics = {"mean_squared_error": measures.mean_metric(_squared_error_of_the_mean)}

    def apply(
        params: PyTree, model_state: PyTree, inputs: PyTree, **options: Any
    ) -> tuple[PyTree, PyTree]:
        outputs, model_state = model.apply(params, model_state, inputs, **options)
        if outputs.shape[-1] % 2:
            raise error(
                "outputs of the model",
                expected="an even number, two for each target",
                got=f"{outputs.shape[-1]}",
                fix="give the model two outputs for each target",
            )
        mean, width = jnp.split(_at_least_float32(outputs), 2, axis=-1)
        return {"mean": mean, "std": jnp.sqrt(jax.nn.softplus(width) + 1e-6)}, model_state

    gaussian = Model(model.init, apply)
    return supervised_task(gaussian, losses.gaussian_negative_log_likelihood, metrics, inputs)


def check_labels(labels: Any, classes: int) -> None:
    """Raise if an integer label is outside 0 ... classes - 1.

    Only for arrays that hold numbers: inside a compiled function nothing can be looked at.
    """
    if not isinstance(labels, np.ndarray | jax.Array) or isinstance(labels, Tracer):
        return
    labels = np.asarray(labels)
    if not np.issubdtype(labels.dtype, np.integer) or labels.size == 0:
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise error(
            "y",
            expected=f"class labels from 0 to {classes - 1}, as the model has {classes} outputs",
            got=f"labels from {low} to {high}",
            fix="number the classes from 0, or give the model more outputs",
        )


def _check_answers(labels: Any) -> None:
    """Raise for labels outside [0, 1]; inside a compiled function nothing can be looked at."""
    if not isinstance(labels, np.ndarray | jax.Array) or isinstance(labels, Tracer):
        return
    low, high = float(labels.min()), float(labels.max())
    if low < 0 or high > 1:
        raise error(
            "y",
            expected="0 for no and 1 for yes",
            got=f"numbers from {low:g} to {high:g}",
            fix="y > 0 turns -1 and 1 into them; for several classes use jdl.classification",
        )


def entry(batch: Batch, name: str) -> Any:
    """What a batch has under a name, which it must have."""
    if name not in batch:
        raise error(
            f'batch["{name}"]',
            expected=f'a batch with an entry "{name}"',
            got=f"entries {', '.join(map(str, batch)) or 'none'}",
            fix=did_you_mean(name, map(str, batch)),
        )
    return batch[name]


def refuse_masked_statistics(model_state: PyTree, batch: Batch) -> None:
    """Raise for a masked batch where the model has batch statistics, which a mask cannot reach."""
    if "mask" in batch and isinstance(model_state, Mapping) and model_state.get("batch_stats"):
        raise error(
            "mask",
            expected="training batches without a mask, because the model has batch statistics "
            "and padded rows would enter them",
            got='a batch with an entry "mask"',
            fix="train on full batches, or normalise by layer or group instead of by batch",
        )


def _checked(losses: Any) -> jax.Array:
    if jnp.iscomplexobj(losses):
        raise error(
            "loss",
            expected="real numbers",
            got=f"{losses.dtype}",
            fix="give real inputs and labels, or take the absolute value in the loss",
        )
    if jnp.ndim(losses) > 0:
        return losses
    raise error(
        "loss",
        expected="one number for each example, shape (batch,)",
        got="a single number",
        fix="leave out the mean: jdl takes it, over mask and devices",
    )


def _count(metric: Any, outputs: PyTree, batch: Batch) -> Count:
    if not isinstance(metric, Metric):
        raise error(
            "metrics",
            expected="jdl.Metric values",
            got=type(metric).__name__,
            fix="use those of jdl.metrics, or jdl.metrics.mean_metric(fn); "
            "some need a call first, as jdl.metrics.confusion_matrix(10)",
        )
    return Count(metric.count(outputs, batch), metric.compute)


def _at_least_float32(value: jax.Array) -> jax.Array:
    return value.astype(jnp.promote_types(value.dtype, jnp.float32))


def _squared_error_of_the_mean(outputs: Any, batch: Batch) -> jax.Array:
    return losses.squared_error(outputs["mean"], batch["y"])


def _plain_labels(labels: Any) -> Any:
    return labels.dominant() if isinstance(labels, losses.Blend) else labels
