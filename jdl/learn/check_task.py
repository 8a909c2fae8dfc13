"""Checks of what the functions of a task take and return, for tasks that you write by hand."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from jdl.core import tree
from jdl.core.errors import error
from jdl.core.nouns import describe
from jdl.core.types import Batch, Key, Mean, Metrics, PyTree, Task
from jdl.learn.training_metrics import summable, widened, without_samples

LOSS = "(Mean, (model_state, metrics))"
"""What `Task.loss` returns."""

RETURN_MEAN = "return jdl.Mean(total, weight), for example jdl.metrics.mean(values, mask)"


def checked_task(task: Task, name: str = "task") -> Task:
    """The same task, whose functions raise `InputError` when they return what no `Task` does.

    Its sums are of 32 bits or wider. In training they are floats, which add up over steps and
    devices without overflow, and metrics with `Samples`, which do not add up, are left out.
    The checks run while JAX traces, so a compiled step does not pay for them.
    """
    _check_signature(task.loss, f"{name}.loss")

    def init(key: Key, batch: Batch) -> tuple[PyTree, PyTree]:
        made = task.init(key, batch)
        if not (isinstance(made, tuple) and len(made) == 2):
            raise error(
                f"{name}.init",
                expected="(params, model_state)",
                got=describe(made),
                fix="return params, {} if the model has no state",
            )
        return made

    def loss(
        params: PyTree, model_state: PyTree, batch: Batch, key: Key | None, *, train: bool
    ) -> tuple[Mean, tuple[PyTree, Metrics]]:
        returned = task.loss(params, model_state, batch, key, train=train)
        after = _check_loss(returned, f"{name}.loss")
        _check_state(after, model_state, f"{name}.loss")
        mean, metrics = widened((returned[0], returned[1][1]))
        return mean, (after, summable(without_samples(metrics)) if train else metrics)

    return task._replace(init=init, loss=loss)


def _check_signature(loss: Callable[..., Any], name: str) -> None:
    try:
        signature = inspect.signature(loss)
    except (TypeError, ValueError):  # some callables have none
        return
    try:
        signature.bind(*["params", "model_state", "batch", "key"], train=True)
    except TypeError as wrong:
        raise error(
            name,
            expected="a function (params, model_state, batch, key, *, train)",
            got=f"{signature} ({wrong})",
            fix="add the missing arguments; ignore those that you do not need",
        ) from None


def _check_loss(returned: Any, name: str) -> PyTree:
    """Raise unless a loss returned what it must; the `model_state` that it returned."""
    if not (isinstance(returned, tuple) and len(returned) == 2):
        raise error(name, expected=LOSS, got=describe(returned), fix=RETURN_MEAN)
    mean, rest = returned
    _check_mean(mean, name)
    if not (isinstance(rest, tuple) and len(rest) == 2 and isinstance(rest[1], Mapping)):
        got = f"(Mean, {describe(rest)})"
        raise error(name, expected=LOSS, got=got, fix='return mean, (model_state, {"loss": mean})')
    after, metrics = rest
    if "loss" not in metrics:
        raise error(
            f"metrics of {name}",
            expected='an entry "loss", the loss of the data without penalties',
            got=f"entries {', '.join(map(str, metrics)) or 'none'}",
            fix='return {"loss": mean, ...}',
        )
    _check_mean(metrics["loss"], f'metrics["loss"] of {name}')
    _check_metrics(metrics, "metrics", name)
    return after


def _check_mean(value: Any, name: str) -> None:
    if not isinstance(value, Mean):
        raise error(name, expected="a jdl.Mean", got=describe(value), fix=RETURN_MEAN)
    for part in ("total", "weight"):
        shape = jnp.shape(getattr(value, part))
        if shape:
            raise error(
                f"{name}: {part} of the Mean",
                expected="a scalar, the sum over the batch",
                got=f"shape {shape}",
                fix=f"sum over the examples: {part}.sum()",
            )


def _check_metrics(metrics: Mapping[str, Any], path: str, name: str) -> None:
    for entry, value in metrics.items():
        if isinstance(value, Mapping):
            _check_metrics(value, f'{path}["{entry}"]', name)
        elif not callable(getattr(value, "compute", None)):
            raise error(
                f'{path}["{entry}"] of {name}',
                expected="a jdl.Mean or jdl.Count, which add up over batches",
                got=describe(value),
                fix='jdl.metrics.mean(values, batch.get("mask")) of values (batch,)',
            )


def _check_state(after: PyTree, before: PyTree, name: str) -> None:
    """The state of a model must keep its leaves, or no second step could follow."""
    new, old = (_kinds(state) for state in (after, before))
    for leaf in dict.fromkeys([*old, *new]):
        if new.get(leaf) != old.get(leaf):
            raise error(
                f"model_state/{leaf} after {name}",
                expected=old.get(leaf, "no such leaf"),
                got=new.get(leaf, "no such leaf"),
                fix="return the model_state that model.apply returned, or the one you were given",
            )


def _kinds(state: PyTree) -> dict[str, str]:
    return {
        leaf: f"{jnp.result_type(value)}{list(jnp.shape(value))}"
        for leaf, value in tree.flatten(state).items()
    }
