"""Whether an evaluation honours the mask: padded examples must change nothing."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.extend import core
from jax.interpreters import partial_eval

from jdl.core import tree
from jdl.core.errors import error
from jdl.core.types import Batch, Count, Learner, Metrics, Samples, TrainState

Evaluate = Callable[[TrainState, Batch], Metrics]

USE_MASK = 'mask the values: jdl.metrics.mean(values, batch.get("mask")) of values (batch,)'


def check_mask_weight(learner: Learner, state: TrainState, batch: Batch) -> None:
    r"""Raise `InputError` unless the loss weighs only the examples that the mask keeps.

    For a mask $m$ the weight $w$ of the loss must satisfy $w(m) + w(1 - m) = w(1)$ and
    $w(0) = 0$. `batch` is one of an evaluation and has a mask. Only what the weight depends on is
    computed, which takes milliseconds.
    """
    whole = np.asarray(batch["mask"], np.float32)
    half = whole * (np.arange(len(whole)) % 2).reshape(-1, *[1] * (whole.ndim - 1))
    weight = _weight_of_loss((learner.info.unsharded or learner).evaluate, state, batch)
    if weight is None:
        return
    full, odd, even, none = (weight(mask) for mask in (whole, half, whole - half, 0 * whole))
    if not np.allclose(odd + even, full, rtol=1e-4) or np.any(none != 0):
        raise error(
            'metrics["loss"] of the task',
            expected='a weight that counts only examples whose batch["mask"] is not 0',
            got=f"weight {_brief(full)} for {len(whole)} examples, {_brief(even)} and "
            f"{_brief(odd)} for two halves of them, {_brief(none)} for none",
            fix=USE_MASK,
        )


def with_mask(batch: Batch) -> Batch:
    """The batch as an evaluation sees it: with a mask, of ones if it has none."""
    return {"mask": np.ones(tree.leading(batch), np.float32), **batch}


def _brief(weight: np.ndarray) -> str:
    return f"{weight.ravel()[0]:g}"


def _weight_of_loss(
    evaluate: Evaluate, state: TrainState, batch: Batch
) -> Callable[[np.ndarray], np.ndarray] | None:
    """The weight as a function of the mask.

    None if it depends on the weights of the model, or if the loss does not depend on the batch.
    """

    def loss(mask: Any, state: TrainState, rest: Batch) -> Any:
        mean: Any = evaluate(state, {**rest, "mask": mask}).get("loss")
        return (mean.weight, mean.total) if hasattr(mean, "weight") else (0.0, 0.0)

    rest = {name: value for name, value in batch.items() if name != "mask"}
    traced = jax.make_jaxpr(loss)(batch["mask"], _shapes(state), rest)
    values, leaves = jax.tree.leaves(rest), len(jax.tree.leaves(state))
    _, used = partial_eval.dce_jaxpr(traced.jaxpr, [False, True])
    if not (used[0] or any(used[1 + leaves :])):
        return None
    jaxpr, used = partial_eval.dce_jaxpr(traced.jaxpr, [True, False])
    if any(used[1 : 1 + leaves]):
        return None
    given = [x for x, is_used in zip(values, used[1 + leaves :], strict=True) if is_used]
    call = core.jaxpr_as_fun(core.ClosedJaxpr(jaxpr, traced.consts))

    def weight(mask: np.ndarray) -> np.ndarray:
        return np.asarray(call(*([mask] if used[0] else []), *given)[0])

    return weight


def _shapes(state: TrainState) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)


def with_other_padding(batch: Batch) -> Batch | None:
    """The batch with other examples in the rows that do not count; None where all rows count.

    >>> batch = {"x": np.array([5, 6, 0]), "mask": np.array([1.0, 1.0, 0.0])}
    >>> with_other_padding(batch)["x"].tolist()
    [5, 6, 6]
    """
    mask = np.asarray(batch["mask"])
    counts = mask.reshape(len(mask), -1).any(1)
    if counts.all() or not counts.any():
        return None
    last = np.flatnonzero(counts)[-1]
    rows = np.where(counts, np.arange(len(mask)), last)
    return {name: value if name == "mask" else value[rows] for name, value in batch.items()}


def check_same_metrics(found: Metrics, again: Metrics) -> None:
    """Raise `InputError` where metrics depend on the content of rows that do not count."""
    one, other = (tree.flatten(_comparable(jax.device_get(each))) for each in (found, again))
    for name in one:
        if not np.allclose(one[name], other[name], rtol=1e-4, atol=1e-6, equal_nan=True):
            metric = name.removesuffix("/total").removesuffix("/weight")
            raise error(
                f'metrics["{metric}"] of the task',
                expected="a value that examples whose mask is 0 do not change",
                got=f"{np.ravel(one[name])[0]:.6g}, and {np.ravel(other[name])[0]:.6g} with other "
                "content in those examples",
                fix=f"{USE_MASK}; a loss over the whole batch takes `mask` as an argument",
            )


def _comparable(metrics: Metrics) -> Any:
    """The metrics, with the values of those whose `Samples` hold the other rows too."""

    def value(metric: Any) -> Any:
        is_gathered = isinstance(metric, Count) and Samples.are_in(metric)
        return metric.compute() if is_gathered else metric

    return jax.tree.map(value, metrics, is_leaf=lambda x: isinstance(x, Count))
