"""Task -> Task: penalties on the weights, and changes to the training data.

Penalties add to the objective only; `metrics["loss"]` stays the loss on the data. Changes to the
data happen in training only, so evaluation measures the task without them.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from jdl.core import tree
from jdl.core.errors import error, require_key
from jdl.core.nouns import check_task
from jdl.core.types import Batch, Key, Mean, Metrics, PyTree, Task
from jdl.optim.transforms import is_weight
from jdl.tasks.losses import Blend
from jdl.tasks.supervised import entry, examples

Selection = Callable[[str, Any], bool]
"""`where(path, leaf)`: whether a transform applies to this parameter."""


def l1(task: Task, weight: float | jax.Array, *, where: Selection = is_weight) -> Task:
    r"""Add $\lambda \sum |w|$ to the mean loss, with the scalar $\lambda$ = `weight`.

    The sum is over all parameters for which `where(path, leaf)` is true; by default biases and
    normalisation scales do not count. Gradient steps rarely give exact zeros; use
    `jdl.optim.soft_threshold` if you need them. Raises `InputError` for a negative `weight`.

    >>> import jdl
    >>> linear = jdl.from_functions(lambda key, x: {}, lambda params, x: x @ params["kernel"])
    >>> task = l1(jdl.regression(linear), 0.1)
    >>> batch = {"x": jnp.zeros((3, 2)), "y": jnp.zeros((3, 1))}
    >>> params = {"kernel": -jnp.ones((2, 1))}
    >>> mean, (_, metrics) = task.loss(params, {}, batch, None, train=True)
    >>> print(mean.value, metrics["loss"].value)
    0.2 0.0

    Tibshirani 1996, "Regression shrinkage and selection via the lasso".
    """
    return _penalised(task, "l1", weight, jnp.abs, where)


def l2(task: Task, weight: float | jax.Array, *, where: Selection = is_weight) -> Task:
    r"""Add $\lambda \sum w^2$ to the mean loss, with the scalar $\lambda$ = `weight`.

    The gradient is $2 \lambda w$: with SGD this equals a weight decay of $2\lambda$, with Adam it
    differs from AdamW's decay. The sum is over all parameters for which `where(path, leaf)` is
    true; by default biases and normalisation scales do not count. Raises `InputError` for a
    negative `weight`.

    >>> import jdl
    >>> linear = jdl.from_functions(lambda key, x: {}, lambda params, x: x @ params["kernel"])
    >>> task = l2(jdl.regression(linear), 0.1)
    >>> batch = {"x": jnp.zeros((3, 2)), "y": jnp.zeros((3, 1))}
    >>> params = {"kernel": jnp.ones((2, 1))}
    >>> mean, (_, metrics) = task.loss(params, {}, batch, None, train=True)
    >>> print(mean.value, metrics["loss"].value)
    0.2 0.0

    Loshchilov and Hutter 2019, "Decoupled weight decay regularization".
    """
    return _penalised(task, "l2", weight, jnp.square, where)


def _penalised(
    task: Task,
    name: str,
    weight: float | jax.Array,
    size: Callable[[Any], jax.Array],
    where: Selection,
) -> Task:
    check_task(task, f"{name}: task")
    if isinstance(weight, int | float) and not weight >= 0:
        raise error(
            f"{name} weight",
            expected="a number of at least 0",
            got=repr(weight),
            fix="choose 1e-5 to 1e-2, as is usual",
        )

    def loss(
        params: PyTree, model_state: PyTree, batch: Batch, key: Key | None, *, train: bool
    ) -> tuple[Mean, tuple[PyTree, Metrics]]:
        mean, aux = task.loss(params, model_state, batch, key, train=train)
        leaves = [leaf for path, leaf in tree.flatten(params).items() if where(path, leaf)]
        wide = [leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)) for leaf in leaves]
        penalty = sum((size(leaf).sum() for leaf in wide), start=jnp.zeros(()))
        # Times the weight of the batch, which the total is divided by.
        return Mean(mean.total + weight * penalty * mean.weight, mean.weight), aux

    return task._replace(loss=loss)


def label_smoothing(task: Task, amount: float) -> Task:
    r"""Train on smoothed labels, $(1-\epsilon)\,e_y + \epsilon/K$ with $\epsilon$ = `amount`.

    Takes integer labels (batch, ...) with `cross_entropy`, and distributions (batch, ..., classes)
    with `soft_cross_entropy`. Labels of `binary_classification` become
    $(1-\epsilon)\,y + \epsilon/2$. Raises `InputError` for an `amount` outside [0, 1), for a task
    of regression, and for a training loss without a key.

    >>> import jdl
    >>> identity = jdl.from_functions(lambda key, x: {}, lambda params, x: x)
    >>> task = label_smoothing(jdl.classification(identity), 0.2)
    >>> batch = {"x": jnp.array([[0.0, 2.0]]), "y": jnp.array([1])}
    >>> for train in (True, False):
    ...     print(task.loss({}, {}, batch, jax.random.key(0), train=train)[0].value.round(4))
    0.3269
    0.1269

    Szegedy et al. 2016, "Rethinking the inception architecture for computer vision".
    """
    check_task(task, "label_smoothing: task")
    if isinstance(amount, int | float) and not 0 <= amount < 1:
        raise error(
            "label_smoothing",
            expected="an amount of at least 0 and below 1",
            got=repr(amount),
            fix="choose 0.1, as is usual",
        )
    kind = task.info.output
    if kind in ("values", "normal"):
        raise error(
            "label_smoothing: task",
            expected="a task with classes",
            got="a regression, whose targets it would change",
            fix="leave it out",
        )

    def smooth(key: Key, batch: Batch) -> Batch:
        labels = entry(batch, "y")
        if isinstance(labels, Blend):
            return {**batch, "y": replace(labels, smoothing=amount)}
        if kind == "binary_logits":
            return {**batch, "y": (1 - amount) * jnp.asarray(labels) + amount / 2}
        if _are_classes(task, labels):
            return {**batch, "y": Blend(labels, labels, jnp.ones(len(labels)), amount)}
        return {**batch, "y": (1 - amount) * labels + amount / labels.shape[-1]}

    return _in_training(task, smooth)


def mixup(task: Task, alpha: float) -> Task:
    r"""Train on mixed examples, $\lambda x_i + (1-\lambda) x_j$, with labels mixed in the same way.

    Each example of `x` (batch, ...) has its own $\lambda \sim \mathrm{Beta}(\alpha, \alpha)$ and is
    mixed with the one before it in the batch; training batches are in random order. It is not
    mixed with a masked example, nor with a masked step of a sequence or one after its `lengths`.
    Integer labels (batch, ...) of classes need the loss `cross_entropy`, or one-hot
    `soft_cross_entropy`; others are mixed as values. Raises `InputError` unless `alpha` is above 0,
    for a mixup of a mixup, and for a training loss without a key.

    >>> import jdl
    >>> identity = jdl.from_functions(lambda key, x: {}, lambda params, x: x)
    >>> task = mixup(jdl.regression(identity), alpha=0.2)
    >>> x = jnp.array([[0.0], [1.0]])
    >>> print(task.loss({}, {}, {"x": x, "y": x}, jax.random.key(0), train=True)[0].value)
    0.0

    Zhang et al. 2018, "mixup: beyond empirical risk minimization".
    """
    check_task(task, "mixup: task")
    if isinstance(alpha, int | float) and not alpha > 0:
        raise error(
            "mixup alpha",
            expected="a number above 0",
            got=repr(alpha),
            fix="choose 0.2, as is usual",
        )

    def mix(key: Key, batch: Batch) -> Batch:
        inputs, labels = examples(batch), entry(batch, "y")
        shares = _shares(jax.random.beta(key, alpha, alpha, (inputs.shape[0],)), batch)
        mixed = {**batch, "x": _interpolate(_fitting(shares, inputs), inputs)}
        if "weight" in batch:
            mixed["weight"] = _interpolate(_fitting(shares, batch["weight"]), batch["weight"])
        if isinstance(labels, Blend):
            if labels.second is not labels.first:
                raise error(
                    "mixup",
                    expected="labels that are not mixed",
                    got="mixup around mixup",
                    fix="use it once, with a larger alpha",
                )
            return {**mixed, "y": _blended(shares, labels)}
        if _are_classes(task, labels):
            return {**mixed, "y": _blended(shares, Blend(labels, labels, 1.0))}
        return {**mixed, "y": _interpolate(_fitting(shares, labels), labels)}

    return _in_training(task, mix)


def augment(task: Task, fn: Callable[[Key, jax.Array], jax.Array]) -> Task:
    """Train on augmented inputs, `fn(key, x)` of `batch["x"]`, inside the compiled step.

    `fn` takes and returns arrays (batch, ...); `jdl.data.augmentations` has some. Each step has a
    new key, independent of the one that the task receives. Raises `InputError` for a training loss
    without a key.

    >>> import jdl
    >>> identity = jdl.from_functions(lambda key, x: {}, lambda params, x: x)
    >>> task = augment(jdl.regression(identity), lambda key, x: 2 * x)
    >>> batch = {"x": jnp.ones((3, 1)), "y": jnp.zeros((3, 1))}
    >>> for train in (True, False):
    ...     print(task.loss({}, {}, batch, jax.random.key(0), train=train)[0].value)
    4.0
    1.0
    """
    check_task(task, "augment: task")
    return _in_training(task, lambda key, batch: {**batch, "x": fn(key, examples(batch))})


def mask_training(task: Task, name: str) -> Task:
    """Train only on examples whose entry `batch[name]` (batch,) is not zero; evaluate all of them.

    With it several learners can see the same batches and train on different parts, such as the
    folds of a cross-validation. Raises `InputError` if a training batch has no such entry.

    >>> import jdl
    >>> identity = jdl.from_functions(lambda key, x: {}, lambda params, x: x)
    >>> task = mask_training(jdl.regression(identity), "fold")
    >>> batch = {"x": jnp.ones((3, 1)), "y": jnp.zeros((3, 1)), "fold": jnp.array([1.0, 0.0, 0.0])}
    >>> for train in (True, False):
    ...     print(task.loss({}, {}, batch, None, train=train)[0].weight)
    1.0
    3.0
    """
    check_task(task, "mask_training: task")

    def loss(
        params: PyTree, model_state: PyTree, batch: Batch, key: Key | None, *, train: bool
    ) -> tuple[Mean, tuple[PyTree, Metrics]]:
        if train:
            mask = entry(batch, name)
            mask = mask * batch["mask"] if "mask" in batch else mask
            batch = {**batch, "mask": mask}
        return task.loss(params, model_state, batch, key, train=train)

    return task._replace(loss=loss)


def _in_training(task: Task, change: Callable[[Key, Batch], Batch]) -> Task:
    def loss(
        params: PyTree, model_state: PyTree, batch: Batch, key: Key | None, *, train: bool
    ) -> tuple[Mean, tuple[PyTree, Metrics]]:
        if not train:
            return task.loss(params, model_state, batch, key, train=False)
        key = require_key(key, "a random key in training")
        own_key, key = jax.random.split(key)
        return task.loss(params, model_state, change(own_key, batch), key, train=True)

    return task._replace(loss=loss)


def _are_classes(task: Task, labels: Any) -> bool:
    if task.info.output in ("values", "normal", "binary_logits"):
        return False
    dtype = jnp.result_type(labels)
    return jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.bool_)


def _shares(share: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """The share (batch,) of each example, and that of each of its parts, such as (batch, time).

    It is 1 where the partner does not exist.
    """
    inputs, rows, parts = examples(batch), share, share
    if "mask" in batch:
        exists = _partner(batch["mask"]) != 0
        is_of_parts = exists.ndim < inputs.ndim and exists.shape == inputs.shape[: exists.ndim]
        if exists.ndim > 1 and is_of_parts:
            parts = jnp.where(exists, _expanded(share, exists), 1.0)
        else:
            rows = parts = jnp.where(exists.reshape(len(share), -1).all(1), share, 1.0)
    if "lengths" in batch and inputs.ndim > 1:
        steps = jnp.arange(inputs.shape[1])[None] < _partner(batch["lengths"])[:, None]
        steps = _expanded(steps, parts) if parts.ndim > 1 else steps
        parts = jnp.where(steps, _expanded(parts, steps), 1.0)
    return rows, parts


def _fitting(shares: tuple[jax.Array, jax.Array], values: Any) -> jax.Array:
    """The share of each part where the values have such parts, else that of each example."""
    rows, parts = shares
    return parts if jnp.shape(values)[: parts.ndim] == parts.shape else rows


def _blended(shares: tuple[jax.Array, jax.Array], labels: Blend) -> Blend:
    share = _fitting(shares, labels.first)
    # A label that does not count may be anything, and zero times its nan would be nan.
    is_alone = _expanded(share, labels.first) == 1
    second = jnp.where(is_alone, jnp.asarray(labels.first), _partner(labels.first))
    return replace(labels, second=second, share=share)


def _partner(values: Any) -> jax.Array:
    return jnp.roll(jnp.asarray(values), 1, axis=0)


def _expanded(share: jax.Array, values: Any) -> jax.Array:
    """The share with trailing axes of one, up to the rank of the values."""
    return share.reshape(share.shape + (1,) * (jnp.ndim(values) - share.ndim))


def _interpolate(share: jax.Array, values: Any) -> jax.Array:
    values = jnp.asarray(values)
    share = _expanded(share, values)
    # A partner that does not count may be nan.
    mixed = jnp.where(share == 1, values, share * values + (1 - share) * _partner(values))
    # bfloat16 images stay bfloat16, whatever the type of the share.
    return mixed.astype(values.dtype) if jnp.issubdtype(values.dtype, jnp.floating) else mixed
