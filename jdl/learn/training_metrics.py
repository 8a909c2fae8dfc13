"""What metrics must be to add up over steps, micro-batches and devices in training."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jdl.core.errors import error
from jdl.core.types import Metrics, PyTree, Samples, is_samples


def widened(metrics: PyTree) -> PyTree:
    """Metrics of one batch in at least 32 bits, whose sum on the host is exact.

    A bfloat16 sum stops at 256, an int8 sum wraps at 128. `Samples` are not summed and stay.

    >>> widened({"hits": jnp.ones((), bool), "loss": jnp.ones((), jnp.bfloat16)})
    {'hits': Array(1, dtype=int32), 'loss': Array(1., dtype=float32)}
    """

    def widen(leaf: Any) -> Any:
        if is_samples(leaf) or (kind := jnp.result_type(leaf)).itemsize >= 4:
            return leaf
        return jnp.asarray(leaf, jnp.float32 if _is_floating(kind) else jnp.int32)

    return jax.tree.map(widen, metrics, is_leaf=is_samples)


def summable(metrics: PyTree) -> PyTree:
    """Metrics that can be summed on the device: floats of at least 32 bits, or 64-bit integers.

    2^31 pixels or tokens are a few steps, and an int32 sum of them wraps around. A float32 sum is
    exact up to 2^24 and rounds beyond it.

    >>> summable({"hits": jnp.ones((), jnp.int32), "loss": jnp.ones((), jnp.bfloat16)})
    {'hits': Array(1., dtype=float32), 'loss': Array(1., dtype=float32)}
    """

    def widen(leaf: Any) -> Any:
        kind = jnp.result_type(leaf)
        if kind.itemsize >= (4 if _is_floating(kind) else 8):
            return leaf
        return jnp.asarray(leaf, jnp.float32)

    return jax.tree.map(widen, metrics)


def _is_floating(kind: Any) -> bool:
    return jnp.issubdtype(kind, jnp.inexact)


def without_samples(metrics: Mapping[str, Any]) -> Metrics:
    """The metrics that merge by addition; those with `Samples` are left out.

    >>> without_samples({"auc": Samples({}), "steps": 1})
    {'steps': 1}
    """
    return {
        name: without_samples(value) if isinstance(value, Mapping) else value
        for name, value in metrics.items()
        if isinstance(value, Mapping) or not Samples.are_in(value)
    }


def refuse_samples(metrics: Mapping[str, Any]) -> None:
    """Raise `InputError` for metrics of a step that hold `Samples`, which do not add up."""
    for name, value in metrics.items():
        if Samples.are_in(value):
            raise error(
                f'metrics["{name}"] of step',
                expected="metrics that merge by addition",
                got="Samples, which are concatenated after an evaluation",
                fix="return this metric from evaluate only",
            )
