"""Means over the examples of a batch that its mask keeps: what metrics are made of."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jdl.core.errors import error
from jdl.core.types import Batch, Mean, Metric, PyTree


def masked_mean(values: jax.Array, mask: Any = None) -> Mean:
    r"""The sums $\sum_i m_i v_i$ and $\sum_i m_i$ of numbers of shape (batch, ...).

    The mask covers the leading axes: (batch,), or (batch, time) for values of that shape. Where
    it is zero the value is not looked at, so it may be nan. The sums are float32 at least.

    >>> float(masked_mean(jnp.array([1.0, 2.0, jnp.nan]), jnp.array([1, 1, 0])).value)
    1.5
    """
    values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
    weight = mask_weights(mask, values)
    return Mean(jnp.where(weight != 0, weight * values, 0).sum(), weight.sum())


def masked_fraction(hits: jax.Array, mask: Any = None) -> Mean:
    """How often something is true, kept as two integers."""
    used = mask_weights(mask, hits) != 0
    return Mean((hits & used).sum(dtype=jnp.int32), used.sum(dtype=jnp.int32))


def mean_metric(values: Callable[[PyTree, Batch], jax.Array]) -> Metric:
    """The mean of numbers, one for each example, that `values(outputs, batch)` returns."""
    return Metric(
        lambda outputs, batch: masked_mean(values(outputs, batch), batch.get("mask")), Mean.compute
    )


def mask_weights(mask: Any, values: jax.Array) -> jax.Array:
    """The mask as numbers of the values' shape; ones without a mask."""
    kind = values.dtype if jnp.issubdtype(values.dtype, jnp.floating) else jnp.float32
    if mask is None:
        return jnp.ones(values.shape, kind)
    mask = jnp.asarray(mask)
    if mask.ndim == 0 or mask.shape != values.shape[: mask.ndim]:
        raise error(
            "mask",
            expected=f"one number for each example, shape {values.shape[:1]}"
            + (f" or more of {values.shape}" if values.ndim > 1 else ""),
            got=f"shape {mask.shape}",
            fix="1 keeps an example, 0 leaves it out",
        )
    mask = mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim)).astype(kind)
    return jnp.broadcast_to(mask, values.shape)
