"""Task to task: penalties on the weights, and changes to the training data.

Penalties add to the objective only; `metrics["loss"]` stays the data's own loss. Changes to the
data happen in training only, so that evaluation measures the plain task.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from jdl.core import tree
from jdl.core.errors import error, require_key
from jdl.core.types import Batch, Key, Mean, Metrics, PyTree, Task
from jdl.optim import is_weight
from jdl.tasks.losses import Blend
from jdl.tasks.supervised import entry, examples

Selection = Callable[[str, Any], bool]


def l1(task: Task, weight: Any, *, where: Selection = is_weight) -> Task:
    r"""Add $\lambda \sum |w|$ over the weights to the mean loss.

    Biases and normalisation scales are left out by default; `where(path, leaf)` says which leaves
    count. A gradient step on this rarely gives exact zeros; a proximal one does.
    """
    return _penalised(task, "l1", weight, jnp.abs, where)


def l2(task: Task, weight: Any, *, where: Selection = is_weight) -> Task:
    r"""Add $\lambda \sum w^2$ over the weights to the mean loss.

    Without a factor ½, so its gradient is $2 \lambda w$: under SGD the same as a decay of
    $2\lambda$, under Adam not the same as AdamW's decay (Loshchilov & Hutter 2019). Biases and
    normalisation scales are left out by default; `where(path, leaf)` says which leaves count.
    """
    return _penalised(task, "l2", weight, jnp.square, where)


def _penalised(
    task: Task, name: str, weight: Any, size: Callable[[Any], jax.Array], where: Selection
) -> Task:
    if isinstance(weight, int | float) and not weight >= 0:
        raise error(
            f"{name} weight",
            expected="a number of at least 0",
            got=repr(weight),
            fix="1e-5 to 1e-2 is usual",
        )

    def loss(
        params: PyTree, model_state: PyTree, batch: Batch, key: Key | None, *, train: bool
    ) -> tuple[Mean, tuple[PyTree, Metrics]]:
        mean, aux = task.loss(params, model_state, batch, key, train=train)
        chosen = [leaf for path, leaf in tree.flatten(params).items() if where(path, leaf)]
        penalty = sum((size(leaf).sum() for leaf in chosen), start=jnp.zeros(()))
        # Times the batch's weight: the total is divided by it, in whatever parts it was summed.
        return Mean(mean.total + weight * penalty * mean.weight, mean.weight), aux

    return task._replace(loss=loss)


def label_smoothing(task: Task, amount: float) -> Task:
    r"""In training, labels $(1-\epsilon)\,e_y + \epsilon/K$ (Szegedy et al. 2016).

    Takes integer labels with `cross_entropy`, and distributions with `soft_cross_entropy`.
    """
    if isinstance(amount, int | float) and not 0 <= amount < 1:
        raise error(
            "label_smoothing",
            expected="an amount of at least 0 and below 1",
            got=repr(amount),
            fix="0.1 is usual",
        )

    def smooth(key: Key, batch: Batch) -> Batch:
        labels = batch["y"]
        if isinstance(labels, Blend):
            return {**batch, "y": replace(labels, smoothing=amount)}
        if _are_classes(labels):
            return {**batch, "y": Blend(labels, labels, jnp.ones(len(labels)), amount)}
        return {**batch, "y": (1 - amount) * labels + amount / labels.shape[-1]}

    return _in_training(task, smooth)


def mixup(task: Task, alpha: float) -> Task:
    r"""In training, $\lambda x_i + (1-\lambda) x_j$ with labels mixed alike (Zhang et al. 2018).

    $\lambda \sim \mathrm{Beta}(\alpha, \alpha)$ for each example; its partner j is the one before
    it in the batch, which is in random order already. An example is not mixed with a masked one.
    Integer labels are mixed for `cross_entropy`, others as numbers.
    """
    if isinstance(alpha, int | float) and not alpha > 0:
        raise error("mixup alpha", expected="a number above 0", got=repr(alpha), fix="0.2 is usual")

    def mix(key: Key, batch: Batch) -> Batch:
        inputs, labels = examples(batch), batch["y"]
        share = jax.random.beta(key, alpha, alpha, (inputs.shape[0],))
        if "mask" in batch:
            share = jnp.where(_partner(batch["mask"]) != 0, share, 1.0)
        mixed = {**batch, "x": _interpolate(share, inputs)}
        if isinstance(labels, Blend):
            if labels.second is not labels.first:
                raise error(
                    "mixup",
                    expected="labels that are not mixed yet",
                    got="mixup around mixup",
                    fix="use it once, with a larger alpha",
                )
            smoothed = replace(labels, second=_partner(labels.first), share=share)
            return {**mixed, "y": smoothed}
        if _are_classes(labels):
            return {**mixed, "y": Blend(labels, _partner(labels), share)}
        return {**mixed, "y": _interpolate(share, labels)}

    return _in_training(task, mix)


def augment(task: Task, fn: Callable[[Key, Any], Any]) -> Task:
    """In training, `fn(key, x) -> x` on the batch's inputs, inside the compiled step.

    The key is new at each step and independent of the one that the task itself is given.
    """
    return _in_training(task, lambda key, batch: {**batch, "x": fn(key, examples(batch))})


def mask_training(task: Task, name: str) -> Task:
    """In training, only the examples whose `batch[name]` is not zero; in evaluation all of them.

    Lets several learners see the same batches and learn from different parts of them.
    """

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
        own, key = jax.random.split(key)
        return task.loss(params, model_state, change(own, batch), key, train=True)

    return task._replace(loss=loss)


def _are_classes(labels: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(labels), jnp.integer)


def _partner(values: Any) -> jax.Array:
    return jnp.roll(jnp.asarray(values), 1, axis=0)


def _interpolate(share: jax.Array, values: Any) -> jax.Array:
    values = jnp.asarray(values)
    share = share.reshape(share.shape + (1,) * (values.ndim - 1))
    mixed = share * values + (1 - share) * _partner(values)
    # The share's precision must not raise that of the data (bfloat16 images stay bfloat16).
    return mixed.astype(values.dtype) if jnp.issubdtype(values.dtype, jnp.floating) else mixed
