"""Attention as functions: which keys a query may see, how it weighs them, their values summed.

Queries, keys and values are (batch, time, heads, d). Masks are boolean (batch or 1, 1, queries,
keys), and True where a query may look.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jdl.core import lowering

SMALLEST_PART_QUERIES = 32
"""Queries that are looked up together at least; fewer cost more than what they leave out."""

FLASH_FROM_KEYS = 128
"""Tokens from which cuDNN's attention is taken on a GPU."""


def causal_mask(queries: int, keys: int | None = None, start: Any = 0) -> jax.Array:
    """The mask under which query i, at position `start` + i, sees keys 0 ... `start` + i.

    >>> causal_mask(3)[0, 0].astype(int)
    Array([[1, 0, 0],
           [1, 1, 0],
           [1, 1, 1]], dtype=int32)
    """
    places = start + jnp.arange(queries)[:, None]
    return (jnp.arange(keys or queries)[None] <= places)[None, None]


def padding_mask(lengths: jax.Array, time: int) -> jax.Array:
    """The mask (batch, 1, 1, time) that hides positions at and after each sequence's length.

    >>> padding_mask(jnp.array([1, 3]), 3)[:, 0, 0].astype(int)
    Array([[1, 0, 0],
           [1, 1, 1]], dtype=int32)
    """
    return (jnp.arange(time)[None] < lengths[:, None])[:, None, None]


def attention_weights(query: jax.Array, key: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    r"""Attention weights $\mathrm{softmax}(q k^\top / \sqrt{d})$, (batch, heads, queries, keys).

    The softmax is taken in float32 at least. Where the mask is False the weight is exactly zero; a
    query that may see nothing weighs all alike.
    """
    products = jnp.einsum("bqhd,bkhd->bhqk", query * query.shape[-1] ** -0.5, key)
    return _softmax(products, mask)


def _softmax(products: jax.Array, mask: jax.Array | None) -> jax.Array:
    wide = products.astype(jnp.promote_types(products.dtype, jnp.float32))
    if mask is not None:
        wide = jnp.where(mask, wide, jnp.finfo(wide.dtype).min)
    return jax.nn.softmax(wide).astype(products.dtype)


def weighted_values(weights: jax.Array, value: jax.Array) -> jax.Array:
    """Values summed by `attention_weights`, (batch, queries, heads, d)."""
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value)


def attention(
    query: jax.Array, key: jax.Array, value: jax.Array, *, is_causal: bool = False
) -> jax.Array:
    """`attention_weights` times the values, (batch, time, heads, d); causal where wanted.

    On CPU the queries of causal attention are taken in parts, of which each looks only at keys up
    to its own end: from 128 tokens on three eighths of the products and of the softmax are zero
    and left out. On an NVIDIA GPU from compute capability 8.0, inputs of 16 bits and
    `FLASH_FROM_KEYS` tokens take cuDNN's flash attention, which keeps no weights (Dao et al. 2022)
    and has no forward-mode derivative.
    """
    forms: dict[str, Any] = {"cpu": _in_parts} if is_causal else {}
    if _has_flash(query):
        forms["cuda"] = partial(_flash, is_causal)
    plain = partial(_whole, is_causal)
    if not forms:
        return plain(query, key, value)
    return jax.lax.platform_dependent(query, key, value, default=plain, **forms)


def _whole(is_causal: bool, query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    return weighted_values(
        attention_weights(query, key, causal_mask(query.shape[1]) if is_causal else None), value
    )


def _flash(is_causal: bool, query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    return jax.nn.dot_product_attention(
        query, key, value, is_causal=is_causal, implementation="cudnn"
    )


def _has_flash(query: jax.Array) -> bool:
    """Whether cuDNN's call can be traced, which fails where there is no such device, and is fit."""
    if lowering.platform() != "gpu" or lowering.cuda_capability() < 8:
        return False
    time, size = query.shape[1], query.shape[3]
    is_half = query.dtype in (jnp.bfloat16, jnp.float16)
    return is_half and time >= FLASH_FROM_KEYS and size <= 128 and size % 8 == 0


def _in_parts(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    # Heads before time, once for all parts: each product would else bring its own keys and values
    # into that order.
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
