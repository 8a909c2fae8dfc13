"""Tasks with labels: classification and regression."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdl import metrics as measures
from jdl.core.errors import did_you_mean, error
from jdl.core.nouns import check_callable, check_model, describe
from jdl.core.types import Batch, Count, Info, Key, Mean, Metric, Metrics, Model, PyTree, Task
from jdl.metrics.checks import check_one_array
from jdl.tasks import losses
from jdl.tasks.losses import Criterion
from jdl.tasks.masks import counted, hide_masked


def examples(batch: Batch) -> PyTree:
    """The inputs of a batch, `batch["x"]`."""
    return entry(batch, "x")


def supervised_task(
    model: Model,
    loss: Criterion,
    metrics: Mapping[str, Metric] | None = None,
    inputs: Callable[[Batch], PyTree] = examples,
) -> Task:
    r"""Minimise $\sum_i m_i\,\ell(\hat y_i, y_i) / \sum_i m_i$, with `batch["mask"]` as $m$.

    `loss(outputs, batch["y"])` returns values (batch,) or (batch, ...), one per example or per part
    of one. A loss with weights of its own returns `Mean(weight * value, weight)` of such arrays and
    is divided by the sum of these weights. Outputs are float32 or wider. Without a mask (batch,) or
    (batch, ...) all weigh 1. A loss that compares examples with each other takes the mask as well,
    `loss(outputs, y, *, mask)`, and leaves out examples whose mask is 0; the mask is None if all
    count.
    `inputs(batch)` returns what the model is called with, by default `batch["x"]`.

    Raises `InputError` if an entry is missing, if the loss returns a scalar or complex values, at
    `init` if the labels do not fit the outputs, and in training for a masked batch if the model has
    batch statistics, which masked examples would enter.

    >>> import optax
    >>> from jdl.models import from_functions
    >>> identity = from_functions(lambda key, x: {}, lambda params, x: x)
    >>> task = supervised_task(identity, lambda outputs, y: optax.huber_loss(outputs, y))
    >>> batch = {"x": jnp.array([3.0, 9.0]), "y": jnp.zeros(2), "mask": jnp.array([1.0, 0.0])}
    >>> print(task.loss({}, {}, batch, None, train=False)[0].value)
    2.5
    """
    check_model(model, "model of the task")
    metrics = {} if metrics is None else _metrics(metrics)
    check_callable(
        loss,
        "loss",
        "a function loss(outputs, y) with a value for each example",
        "pass one, such as loss=jdl.tasks.cross_entropy",
    )
    takes_mask = "mask" in _arguments(loss)

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
            batch = hide_masked(batch)
        outputs, model_state = model.apply(params, model_state, inputs(batch), key=key, train=train)
        outputs = jax.tree.map(_at_least_float32, outputs)
        given = {"mask": batch.get("mask")} if takes_mask else {}
        values = loss(outputs, entry(batch, "y"), **given)
        mean = _mean_loss(values, measures.example_weights(batch))
        plain = {**batch, "y": _plain_labels(batch["y"])}
        counts = {name: _count(metric, outputs, plain) for name, metric in metrics.items()}
        return mean, (model_state, {"loss": mean, **counts})

    def predict(params: PyTree, model_state: PyTree, batch: Batch) -> PyTree:
        return model.apply(params, model_state, inputs(batch), train=False)[0]

    return Task(init, evaluate, predict)


def _metrics(metrics: Any) -> dict[str, Metric]:
    if isinstance(metrics, Mapping):
        return dict(metrics)
    raise error(
        "metrics",
        expected="a dict of jdl.Metric by name",
        got=describe(metrics),
        fix='pass metrics={"accuracy": jdl.metrics.accuracy}',
    )


def _arguments(function: Callable[..., Any]) -> Mapping[str, Any]:
    """The arguments of a function by name; none where Python cannot tell."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


def classification(
    model: Model,
    *,
    loss: Criterion = losses.cross_entropy,
    metrics: Mapping[str, Metric] | None = None,
    inputs: Callable[[Batch], PyTree] = examples,
    ignore: int | None = None,
) -> Task:
    """Predict one of several classes: softmax cross-entropy from logits, and accuracy.

    Outputs are logits (batch, ..., classes), labels `y` integers (batch, ...). For one-hot labels
    and other distributions pass `loss=jdl.tasks.soft_cross_entropy`. `inputs(batch)` returns what
    the model is called with. Examples with the label `ignore`, such as -1, count for nothing.

    Raises `InputError` for labels of another shape or type, and at `init` for labels outside
    0 ... classes - 1.

    >>> from jdl.models import from_functions
    >>> uniform = from_functions(lambda key, x: {}, lambda params, x: jnp.zeros((len(x), 3)))
    >>> batch = {"x": jnp.zeros((4, 2)), "y": jnp.array([0, 1, 2, 1])}
    >>> mean, (_, metrics) = classification(uniform).loss({}, {}, batch, None, train=False)
    >>> print(mean.value.round(4), metrics["accuracy"].compute())  # log 3, the first class
    1.0986 0.25
    """
    metrics = {"accuracy": measures.accuracy} if metrics is None else metrics
    task = supervised_task(model, loss, metrics, inputs)

    def init(key: Key, batch: Batch) -> tuple[PyTree, PyTree]:
        params, model_state = task.init(key, batch)
        outputs = jax.eval_shape(task.predict, params, model_state, batch)
        if isinstance(outputs, jax.ShapeDtypeStruct):  # else the loss is your own
            check_labels(batch, outputs.shape[-1], ignore)
        return params, model_state

    checked = task._replace(init=init, info=Info(output="class_logits", ignore=ignore))
    return checked if ignore is None else _ignoring(checked, ignore)


def _ignoring(task: Task, ignore: int) -> Task:
    """A task in which examples with that label weigh nothing."""

    def init(key: Key, batch: Batch) -> tuple[PyTree, PyTree]:
        return task.init(key, _without_ignored(batch, ignore))

    def loss(
        params: PyTree, model_state: PyTree, batch: Batch, key: Key | None, *, train: bool
    ) -> tuple[Mean, tuple[PyTree, Metrics]]:
        batch = _without_ignored(batch, ignore)
        return task.loss(params, model_state, batch, key, train=train)

    return task._replace(init=init, loss=loss)


def _without_ignored(batch: Batch, ignore: int) -> Batch:
    """The batch with weight 0, and label 0, where the label is `ignore`."""
    labels = batch["y"]
    if isinstance(labels, losses.Blend):
        keep = (labels.first != ignore) & (labels.second != ignore)
        first, second = (jnp.where(keep, one, 0) for one in (labels.first, labels.second))
        labels = replace(labels, first=first, second=second)
    else:
        keep = jnp.asarray(labels) != ignore
        labels = jnp.where(keep, labels, 0)
    weight = keep.astype(jnp.float32)
    if "weight" in batch:
        given = jnp.asarray(batch["weight"], jnp.float32)
        weight = weight * given.reshape(given.shape + (1,) * (weight.ndim - given.ndim))
    return {**batch, "y": labels, "weight": weight}


def regression(
    model: Model,
    *,
    loss: Criterion = losses.squared_error,
    metrics: Mapping[str, Metric] | None = None,
    inputs: Callable[[Batch], PyTree] = examples,
) -> Task:
    """Predict real values: mean squared error, so `metrics["loss"]` is the MSE.

    Labels `y` have the shape of the outputs, (batch, ...). Raises `InputError` if they do not:
    labels (n,) and outputs (n, 1) would broadcast to (n, n). Other losses are
    `jdl.tasks.half_squared_error` and `jdl.tasks.pinball`.

    >>> from jdl.models import from_functions
    >>> identity = from_functions(lambda key, x: {}, lambda params, x: x)
    >>> batch = {"x": jnp.array([[1.0], [3.0]]), "y": jnp.zeros((2, 1))}
    >>> print(regression(identity).loss({}, {}, batch, None, train=False)[0].value)
    5.0
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
    """Predict yes or no: sigmoid cross-entropy from logits, and accuracy.

    Labels `y` in [0, 1] have the shape of the logits, (batch, ...). Several columns,
    (batch, labels), are a multi-label classification; the loss and the accuracy average over them.
    Raises `InputError` for labels of another shape, and at `init` for labels outside [0, 1], such
    as -1.

    >>> from jdl.models import from_functions
    >>> identity = from_functions(lambda key, x: {}, lambda params, x: x)
    >>> batch = {"x": jnp.array([[2.0], [-2.0]]), "y": jnp.array([[1.0], [1.0]])}
    >>> task = binary_classification(identity)
    >>> _, (_, metrics) = task.loss({}, {}, batch, None, train=False)
    >>> print(metrics["accuracy"].compute())
    0.5
    """
    metrics = {"accuracy": measures.binary_accuracy} if metrics is None else metrics
    task = supervised_task(model, loss, metrics, inputs)

    def init(key: Key, batch: Batch) -> tuple[PyTree, PyTree]:
        params, model_state = task.init(key, batch)
        _check_answers(counted("y", batch))
        return params, model_state

    return task._replace(init=init, info=Info(output="binary_logits"))


def uncertain_regression(
    model: Model,
    *,
    metrics: Mapping[str, Metric] | None = None,
    inputs: Callable[[Batch], PyTree] = examples,
) -> Task:
    r"""Predict a normal distribution for each target: regression with an uncertainty.

    The model has 2k outputs for k targets: k means and k values $a$ for the variances
    $\sigma^2 = \log(1 + e^a) + 10^{-6}$. Predictions are a dict of `mean` and `std`, each
    (batch, k), and labels `y` are (batch, k). The loss is the negative log-likelihood in nats,
    averaged over targets. Raises `InputError` for an odd number of outputs and for labels of
    another shape.

    >>> from jdl.models import MLP, from_linen
    >>> task = uncertain_regression(from_linen(MLP((), outputs=2)))
    >>> batch = {"x": jnp.zeros((4, 3)), "y": jnp.zeros((4, 1))}
    >>> params, model_state = jax.eval_shape(task.init, jax.random.key(0), batch)
    >>> jax.eval_shape(task.predict, params, model_state, batch)["std"].shape
    (4, 1)

    Nix and Weigend 1994, "Estimating the mean and variance of the target probability distribution";
    Lakshminarayanan, Pritzel and Blundell 2017, "Simple and scalable predictive uncertainty
    estimation using deep ensembles".
    """
    if metrics is None:
        metrics = {"mean_squared_error": measures.mean_of(_squared_error_of_mean)}

    def apply(
        params: PyTree, model_state: PyTree, inputs: PyTree, **options: Any
    ) -> tuple[PyTree, PyTree]:
        outputs, model_state = model.apply(params, model_state, inputs, **options)
        check_one_array(outputs, "uncertain_regression")
        if outputs.shape[-1] % 2:
            raise error(
                "outputs of the model",
                expected="an even number, two per target",
                got=f"{outputs.shape[-1]}",
                fix="build the model with two outputs per target",
            )
        mean, width = jnp.split(_at_least_float32(outputs), 2, axis=-1)
        return {"mean": mean, "std": jnp.sqrt(jax.nn.softplus(width) + 1e-6)}, model_state

    gaussian = Model(model.init, apply)
    loss = losses.gaussian_negative_log_likelihood
    task = supervised_task(gaussian, loss, metrics, inputs)
    return task._replace(info=Info(output="normal"))


def check_labels(batch: Batch, classes: int, ignore: int | None = None) -> None:
    """Raise if an integer label is outside 0 ... classes - 1; traced labels cannot be checked.

    Labels of masked examples and the label `ignore` may be anything.
    """
    labels = counted("y", batch)
    if labels is None or not np.issubdtype(labels.dtype, np.integer):
        return
    labels = labels[labels != ignore] if ignore is not None else labels
    if labels.size == 0:
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise error(
            "y",
            expected=f"class labels from 0 to {classes - 1}, as the model has {classes} outputs",
            got=f"labels from {low} to {high}",
            fix="number the classes from 0, or build the model with more outputs",
        )


def _check_answers(labels: np.ndarray | None) -> None:
    """Raise for labels outside [0, 1]; traced labels cannot be checked."""
    if labels is None or labels.size == 0:
        return
    low, high = float(labels.min()), float(labels.max())
    if low < 0 or high > 1:
        raise error(
            "y",
            expected="0 for no and 1 for yes",
            got=f"labels from {low:g} to {high:g}",
            fix="pass y > 0 for labels -1 and 1; for several classes use jdl.classification",
        )


def entry(batch: Batch, name: str) -> Any:
    """The entry `batch[name]`; raise if it is missing."""
    if name not in batch:
        raise error(
            f'batch["{name}"]',
            expected=f'a batch with an entry "{name}"',
            got=f"entries {', '.join(map(str, batch)) or 'none'}",
            fix=did_you_mean(name, map(str, batch)),
        )
    return batch[name]


def refuse_masked_statistics(model_state: PyTree, batch: Batch) -> None:
    """Raise for a masked batch if the model has batch statistics, which masked examples enter."""
    if "mask" in batch and isinstance(model_state, Mapping) and model_state.get("batch_stats"):
        raise error(
            "mask",
            expected="training batches without a mask, because the model has batch statistics "
            "and masked examples would enter them",
            got='a batch with an entry "mask"',
            fix="train on full batches, or use layer or group normalisation",
        )


def _mean_loss(values: Any, weights: Mapping[str, Any]) -> Mean:
    """The mean of what a criterion returned: values, or a `Mean` with weights of its own."""
    if not isinstance(values, Mean):
        return measures.mean(_checked(values), **weights)
    total, weight = (
        measures.mean(_checked(part), **weights).total for part in (values.total, values.weight)
    )
    return Mean(total, weight)


def _checked(losses: Any) -> jax.Array:
    if jnp.iscomplexobj(losses):
        raise error(
            "loss",
            expected="real numbers",
            got=f"{losses.dtype}",
            fix="pass real inputs and labels, or take the absolute value in the loss",
        )
    if jnp.ndim(losses) > 0:
        return losses
    raise error(
        "loss",
        expected="one value per example, shape (batch,)",
        got="a scalar",
        fix="leave out the mean: jdl takes it, over mask and devices",
    )


def _count(metric: Any, outputs: PyTree, batch: Batch) -> Count:
    if not isinstance(metric, Metric):
        raise error(
            "metrics",
            expected="a dict of jdl.Metric",
            got=type(metric).__name__,
            fix="use a metric of jdl.metrics, or jdl.metrics.mean_of(fn); "
            "some need a call, such as jdl.metrics.confusion(10)",
        )
    return Count(metric.count(outputs, batch), metric.compute)


def _at_least_float32(value: jax.Array) -> jax.Array:
    return value.astype(jnp.promote_types(value.dtype, jnp.float32))


def _squared_error_of_mean(outputs: Any, batch: Batch) -> jax.Array:
    return losses.squared_error(outputs["mean"], batch["y"])


def _plain_labels(labels: Any) -> Any:
    return labels.dominant() if isinstance(labels, losses.Blend) else labels
