"""Means over the examples of a batch whose mask is not zero, from which metrics are built."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jdl.core.errors import error
from jdl.core.types import Batch, Mean, Metric, PyTree


def masked_mean(values: jax.Array, mask: Any = None) -> Mean:
    r"""The weighted mean $\sum_i m_i v_i / \sum_i m_i$ of values (batch, ...).

    The mask has the leading axes of the values: (batch,), or (batch, time). A value whose mask is
    zero may be nan. The sums are float32 or wider. Raises `InputError` for a mask of another shape.

    >>> float(masked_mean(jnp.array([1.0, 2.0, jnp.nan]), jnp.array([1, 1, 0])).value)
    1.5
    """
    values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
    weight = mask_weights(mask, values)
    return Mean(jnp.where(weight != 0, weight * values, 0).sum(), weight.sum())


def masked_fraction(hits: jax.Array, mask: Any = None) -> Mean:
    """The fraction of booleans (batch, ...) that are true, as two integer counts.

    The mask has the leading axes of the booleans; those whose mask is zero do not count. Raises
    `InputError` for a mask of another shape.

    >>> fraction = masked_fraction(jnp.array([True, False, True]), jnp.array([1, 1, 0]))
    >>> print(fraction.total, fraction.weight)
    1 2
    """
    used = mask_weights(mask, hits) != 0
    return Mean((hits & used).sum(dtype=jnp.int32), used.sum(dtype=jnp.int32))


def mean_metric(values: Callable[[PyTree, Batch], jax.Array]) -> Metric:
    """The metric that averages `values(outputs, batch)`, of shape (batch, ...), over the examples.

    >>> metric = mean_metric(lambda outputs, batch: jnp.abs(outputs - batch["y"]))
    >>> print(metric.compute(metric.count(jnp.array([1.0, 4.0]), {"y": jnp.array([0.0, 1.0])})))
    2.0
    """
    return Metric(
        lambda outputs, batch: masked_mean(values(outputs, batch), batch.get("mask")), Mean.compute
    )


def mask_weights(mask: Any, values: jax.Array) -> jax.Array:
    """The mask as floats of the values' shape; ones without a mask."""
    kind = values.dtype if jnp.issubdtype(values.dtype, jnp.floating) else jnp.float32
    if mask is None:
        return jnp.ones(values.shape, kind)
    mask = jnp.asarray(mask)
    if mask.ndim == 0 or mask.shape != values.shape[: mask.ndim]:
        raise error(
            "mask",
            expected=f"one value per example, shape {values.shape[:1]}"
            + (f", or more axes of {values.shape}" if values.ndim > 1 else ""),
            got=f"shape {mask.shape}",
            fix="pass 1 for each example that counts and 0 for the others",
        )
    mask = mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim)).astype(kind)
    return jnp.broadcast_to(mask, values.shape)
