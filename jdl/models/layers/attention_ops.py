"""Attention as functions: masks, weights and weighted values.

Queries, keys and values are (batch, time, heads, d). Masks are boolean (batch or 1, 1, queries,
keys), True where a query may attend to a key.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jdl.core import lowering

SMALLEST_PART_QUERIES = 32
"""The fewest queries in one part on CPU; smaller parts cost more than they save."""

FLASH_FROM_KEYS = 128
"""Sequence length from which a GPU uses cuDNN's flash attention."""


def causal_mask(queries: int, keys: int | None = None, start: Any = 0) -> jax.Array:
    """The causal mask: query i, at position `start` + i, attends to keys 0 ... `start` + i.

    >>> causal_mask(3)[0, 0].astype(int)
    Array([[1, 0, 0],
           [1, 1, 0],
           [1, 1, 1]], dtype=int32)
    """
    positions = start + jnp.arange(queries)[:, None]
    return (jnp.arange(keys or queries)[None] <= positions)[None, None]


def padding_mask(lengths: jax.Array, time: int) -> jax.Array:
    """The mask (batch, 1, 1, time) that hides positions from each sequence's length on.

    >>> padding_mask(jnp.array([1, 3]), 3)[:, 0, 0].astype(int)
    Array([[1, 0, 0],
           [1, 1, 1]], dtype=int32)
    """
    return (jnp.arange(time)[None] < lengths[:, None])[:, None, None]


def attention_weights(query: jax.Array, key: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    r"""Attention weights $\mathrm{softmax}(q k^\top / \sqrt{d})$, (batch, heads, queries, keys).

    The softmax is computed in float32 or wider. Where the mask is False the weight is exactly zero;
    a query that may attend to no key has equal weights.
    """
    products = jnp.einsum("bqhd,bkhd->bhqk", query * query.shape[-1] ** -0.5, key)
    return _softmax(products, mask)


def _softmax(products: jax.Array, mask: jax.Array | None) -> jax.Array:
    wide = products.astype(jnp.promote_types(products.dtype, jnp.float32))
    if mask is not None:
        wide = jnp.where(mask, wide, jnp.finfo(wide.dtype).min)
    return jax.nn.softmax(wide).astype(products.dtype)


def weighted_values(weights: jax.Array, value: jax.Array) -> jax.Array:
    """Sum values by their attention weights, (batch, queries, heads, d)."""
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value)


def attention(
    query: jax.Array, key: jax.Array, value: jax.Array, *, is_causal: bool = False
) -> jax.Array:
    """Scaled dot-product attention, (batch, time, heads, d).

    On CPU, causal attention runs in parts: each block of queries multiplies only the keys up to its
    end, which saves three eighths of the products from 128 tokens on. On an NVIDIA GPU of compute
    capability 8.0 or more, 16-bit inputs of `FLASH_FROM_KEYS` tokens or more use cuDNN's flash
    attention (Dao et al. 2022), which stores no weights and has no forward-mode derivative.
    """
    implementations: dict[str, Any] = {"cpu": _in_parts} if is_causal else {}
    if _has_flash(query):
        implementations["cuda"] = partial(_flash, is_causal)
    default = partial(_whole, is_causal)
    if not implementations:
        return default(query, key, value)
    return jax.lax.platform_dependent(query, key, value, default=default, **implementations)


def _whole(is_causal: bool, query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    return weighted_values(
        attention_weights(query, key, causal_mask(query.shape[1]) if is_causal else None), value
    )


def _flash(is_causal: bool, query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    return jax.nn.dot_product_attention(
        query, key, value, is_causal=is_causal, implementation="cudnn"
    )


def _has_flash(query: jax.Array) -> bool:
    """Whether cuDNN's flash attention is available and supports the shapes."""
    if lowering.platform() != "gpu" or lowering.cuda_capability() < 8:
        return False
    time, size = query.shape[1], query.shape[3]
    is_half = query.dtype in (jnp.bfloat16, jnp.float16)
    return is_half and time >= FLASH_FROM_KEYS and size <= 128 and size % 8 == 0


def _in_parts(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    # Transpose once for all parts; otherwise each product would transpose its keys and values.
    query, key, value = (jnp.swapaxes(x, 1, 2) for x in (query, key, value))
    query *= query.shape[-1] ** -0.5
    time, parts = query.shape[2], []
    size = max(SMALLEST_PART_QUERIES, -(-time // 4))
    for start in range(0, max(time, 1), size):
        end = min(start + size, time)
        products = jnp.einsum("bhqd,bhkd->bhqk", query[:, :, start:end], key[:, :, :end])
        weights = _softmax(products, causal_mask(end - start, end, start))
        parts.append(jnp.einsum("bhqk,bhkd->bhqd", weights, value[:, :, :end]))
    return jnp.swapaxes(jnp.concatenate(parts, axis=2), 1, 2)
