"""Means over the examples of a batch whose mask is not zero, from which metrics are built."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jdl.core.errors import error
from jdl.core.types import Batch, Mean, Metric, PyTree


def example_weights(batch: Batch) -> dict[str, Any]:
    """The entries of a batch that say how much an example counts, as arguments of `mean`.

    `mask` is 0 or 1: whether the example (or a part of it) exists. `weight` is real and at least 0:
    how much it counts. Both have shape (batch,) or cover more leading axes; each is None where the
    batch has none.

    >>> example_weights({"x": jnp.ones(2), "weight": jnp.array([0.5, 2.0])})["mask"] is None
    True
    """
    return {name: batch.get(name) for name in ("mask", "weight")}


def mean(values: jax.Array, mask: Any = None, weight: Any = None) -> Mean:
    r"""The weighted mean $\sum_i m_i w_i v_i / \sum_i m_i w_i$ of values (batch, ...).

    Mask and weight have the leading axes of the values: (batch,), or (batch, time). A value whose
    mask is zero may be nan. The sums are float32 or wider. Raises `InputError` for a mask or weight
    of another shape.

    >>> float(mean(jnp.array([1.0, 2.0, jnp.nan]), jnp.array([1, 1, 0])).value)
    1.5
    """
    values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
    weights = mask_weights(mask, values, weight)
    return Mean(jnp.where(weights != 0, weights * values, 0).sum(), weights.sum())


def fraction(hits: jax.Array, mask: Any = None, weight: Any = None) -> Mean:
    """The fraction of booleans (batch, ...) that are true: integer counts, or sums of weights.

    Mask and weight have the leading axes of the booleans. Raises `InputError` for a mask or weight
    of another shape.

    >>> fraction = fraction(jnp.array([True, False, True]), jnp.array([1, 1, 0]))
    >>> print(fraction.total, fraction.weight)
    1 2
    """
    counts = count_or_weight(hits, mask, weight)
    return Mean(jnp.where(hits, counts, 0).sum(), counts.sum())


def mean_of(values: Callable[[PyTree, Batch], jax.Array]) -> Metric:
    """The metric that averages `values(outputs, batch)`, of shape (batch, ...), over the examples.

    >>> metric = mean_of(lambda outputs, batch: jnp.abs(outputs - batch["y"]))
    >>> print(metric.compute(metric.count(jnp.array([1.0, 4.0]), {"y": jnp.array([0.0, 1.0])})))
    2.0
    """

    def count(outputs: PyTree, batch: Batch) -> Mean:
        return mean(values(outputs, batch), **example_weights(batch))

    return Metric(count, Mean.compute)


def count_or_weight(like: jax.Array, mask: Any = None, weight: Any = None) -> jax.Array:
    """What each entry of `like` counts: int32 0 or 1, or float32 where examples have weights."""
    weights = mask_weights(mask, like, weight)
    return weights if weight is not None else (weights != 0).astype(jnp.int32)


def mask_weights(mask: Any, values: jax.Array, weight: Any = None) -> jax.Array:
    """Mask times weight, in the shape of the values; ones without both."""
    kind = values.dtype if jnp.issubdtype(values.dtype, jnp.floating) else jnp.float32
    given = {"mask": mask, "weight": weight}
    wide = [_cover(name, one, values, kind) for name, one in given.items() if one is not None]
    if not wide:
        return jnp.ones(values.shape, kind)
    # A weight may be anything where the mask is zero.
    return wide[0] if len(wide) == 1 else jnp.where(wide[0] != 0, wide[0] * wide[1], 0)


def _cover(name: str, given: Any, values: jax.Array, kind: Any) -> jax.Array:
    """A mask or a weight broadcast over the axes that it lacks."""
    given = jnp.asarray(given)
    if given.ndim == 0 or given.shape != values.shape[: given.ndim]:
        raise error(
            name,
            expected=f"one value per example, shape {values.shape[:1]}"
            + (f", or more axes of {values.shape}" if values.ndim > 1 else ""),
            got=f"shape {given.shape}",
            fix="pass 1 for each example that counts and 0 for the others"
            if name == "mask"
            else "pass one weight of at least 0 per example",
        )
    given = given.reshape(given.shape + (1,) * (values.ndim - given.ndim)).astype(kind)
    return jnp.broadcast_to(given, values.shape)
