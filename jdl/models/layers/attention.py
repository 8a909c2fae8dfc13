"""Attention layers: learned positions, pre-norm blocks and their stack.

Sequences are (batch, time, width), masks those of `jdl.models.layers.attention_ops`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.core import Tracer

from jdl.core.errors import error
from jdl.core.lowering import constrain_batch
from jdl.models.layers import attention_ops, primitives
from jdl.models.layers.remat import rematerialize

GPT2_NORMAL = nn.initializers.normal(0.02)
"""Initializer of layers and embeddings, as in GPT-2 (Radford et al. 2019)."""

EPSILON = 1e-5
"""Added to the variance in layer normalisation: PyTorch's value (Flax's is 1e-6)."""


class Past(NamedTuple):
    """Keys and values of earlier tokens in one layer, (batch, slots, heads, size) each."""

    keys: Any
    values: Any


class Cache(NamedTuple):
    """The keys and values of every layer, and the number of slots in use."""

    layers: tuple[Past, ...]
    length: Any


class SelfAttention(nn.Module):
    r"""Multi-head self-attention (Vaswani et al. 2017).

    $[Q_h, K_h, V_h] = x W_{qkv} + b$, $o_h = \mathrm{softmax}(Q_h K_h^\top/\sqrt{d}) V_h$,
    $y = [o_1, \dots, o_H] W_o + b_o$ with $d = $ width / heads. Inputs and outputs are
    (batch, time, width). Layers are `qkv` (queries, keys and values of all heads, in PyTorch's
    order) and `output`.

    With `past`, the new keys and values are written after its first `length` slots, those that
    still fit, and queries attend to all slots that `mask` allows; the second result is the updated
    past. With `causal` and
    no mask, query i attends to keys 0 ... i. Dropout applies to the weights and to the output. The
    weights are sown as `intermediates/weights`. Raises `InputError` if `heads` does not divide the
    width.
    """

    heads: int
    dropout: float = 0.0
    use_bias: bool = True
    output_init: primitives.Initializer = GPT2_NORMAL
    causal: bool = False

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array | None = None,
        past: Past | None = None,
        length: Any = 0,
        train: bool = False,
    ) -> tuple[jax.Array, Past | None]:
        """Return the outputs, and the past with the new keys and values."""
        batch, time, width = x.shape
        _check_heads(width, self.heads)
        qkv = primitives.Dense(
            3 * width, use_bias=self.use_bias, kernel_init=GPT2_NORMAL, name="qkv"
        )(x)
        qkv = qkv.reshape(batch, time, 3, self.heads, width // self.heads)
        query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        if past is not None:
            key, value = _write(past.keys, key, length), _write(past.values, value, length)
            past = Past(key, value)
        is_causal = self.causal and mask is None
        has_dropout = train and self.dropout > 0
        sows_weights = self.is_mutable_collection("intermediates")
        if mask is None and past is None and not has_dropout and not sows_weights:
            y = attention_ops.attention(query, key, value, is_causal=is_causal)
        else:
            mask = attention_ops.causal_mask(time) if is_causal else mask
            weights = attention_ops.attention_weights(query, key, mask)
            self.sow("intermediates", "weights", weights)
            drop = nn.Dropout(self.dropout, deterministic=not train, name="drop_weights")
            y = attention_ops.weighted_values(drop(weights), value)
        y = y.reshape(batch, time, width)
        output = primitives.Dense(
            width, use_bias=self.use_bias, kernel_init=self.output_init, name="output"
        )
        y = nn.Dropout(self.dropout, deterministic=not train, name="drop_output")(output(y))
        return y, past


def _write(slots: jax.Array, new: jax.Array, length: Any) -> jax.Array:
    """Write `new` after the first `length` slots; what does not fit is dropped."""
    count, time = slots.shape[1], new.shape[1]
    if time > 1:
        # Room for what does not fit: an update beyond the end would move back and overwrite.
        slots = jnp.pad(slots, ((0, 0), (0, time), (0, 0), (0, 0)))
    return jax.lax.dynamic_update_slice_in_dim(slots, new, length, axis=1)[:, :count]


class Block(nn.Module):
    r"""A pre-norm transformer block (Xiong et al. 2020).

    $x \leftarrow x + \mathrm{attention}(\mathrm{norm}_1(x))$,
    $x \leftarrow x + W_2\,\mathrm{gelu}(W_1\,\mathrm{norm}_2(x))$ with the exact GELU and `hidden`
    units. Inputs and outputs are (batch, time, width). Layers are `norm_1`, `attention`, `norm_2`,
    `dense_1` and `dense_2`. `causal` is that of `SelfAttention`.
    """

    heads: int
    hidden: int
    dropout: float = 0.0
    use_bias: bool = True
    output_init: primitives.Initializer = GPT2_NORMAL
    causal: bool = False

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array | None = None,
        past: Past | None = None,
        length: Any = 0,
        train: bool = False,
    ) -> tuple[jax.Array, Past | None]:
        """Return the outputs (batch, time, width), and the past."""
        attention = SelfAttention(
            self.heads,
            self.dropout,
            self.use_bias,
            self.output_init,
            self.causal,
            name="attention",
        )
        y, past = attention(norm(self.use_bias, "norm_1")(x), mask, past, length, train)
        x = x + y
        y = norm(self.use_bias, "norm_2")(x)
        y = primitives.Dense(
            self.hidden, use_bias=self.use_bias, kernel_init=GPT2_NORMAL, name="dense_1"
        )(y)
        y = primitives.gelu(y)
        y = primitives.Dense(
            x.shape[-1], use_bias=self.use_bias, kernel_init=self.output_init, name="dense_2"
        )(y)
        return x + nn.Dropout(self.dropout, deterministic=not train, name="drop")(y), past


class Stack(nn.Module):
    r"""A stack of pre-norm blocks and a final layer normalisation: `block_1`, ..., `norm`.

    `hidden` defaults to four times the width. The layers that write to the residual stream start
    with weights smaller by $\sqrt{2\,\mathrm{blocks}}$ (Radford et al. 2019). `remat` is the
    rematerialisation policy (`jdl.models.layers.remat.rematerialize`), `causal` that of
    `SelfAttention`. With `scan` one block, `blocks`, runs in a loop over parameters with a leading
    axis: a deep stack then compiles as fast as a shallow one, but raises `InputError` for a cache.
    """

    blocks: int
    heads: int
    hidden: int | None = None
    dropout: float = 0.0
    use_bias: bool = True
    remat: str = "none"
    scan: bool = False
    causal: bool = False

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array | None = None,
        cache: Cache | None = None,
        train: bool = False,
    ) -> tuple[jax.Array, Cache | None]:
        """Return the sequence (batch, time, width), and the cache with the new tokens."""
        output_init = nn.initializers.normal(0.02 * (2 * self.blocks) ** -0.5)
        length = 0 if cache is None else cache.length
        build = rematerialize(Block, self.remat, train_at=4)
        sizes = (self.heads, self.hidden or 4 * x.shape[-1], self.dropout, self.use_bias)
        if self.scan:
            block = build(*sizes, output_init, self.causal, name="blocks")
            x = _scan_blocks(block, self.blocks, x, mask, cache, train)
            return norm(self.use_bias, "norm")(x), None
        pasts = []
        for index in range(self.blocks):
            block = build(*sizes, output_init, self.causal, name=f"block_{index + 1}")
            past = None if cache is None else cache.layers[index]
            x, past = block(x, mask, past, length, train)
            pasts.append(past)
        x = norm(self.use_bias, "norm")(x)
        return x, None if cache is None else Cache(tuple(pasts), length + x.shape[1])


def _scan_blocks(
    block: nn.Module, blocks: int, x: jax.Array, mask: Any, cache: Any, train: bool
) -> jax.Array:
    """Apply `blocks` blocks of the same shape in a scan, each with its own parameters."""
    if cache is not None:
        raise error(
            "cache",
            expected="a stack without scan",
            got="scan=True",
            fix="build the model with scan=False to generate text",
        )

    def apply_block(block: Any, x: jax.Array, _: None) -> tuple[jax.Array, None]:
        return block(x, mask, None, 0, train)[0], None

    split_rngs: Any = {"params": True, "dropout": True}
    axes: Any = {"params": 0, "intermediates": 0}
    scan = nn.scan(apply_block, variable_axes=axes, split_rngs=split_rngs, length=blocks)
    return scan(block, x, None)[0]


class Positions(nn.Module):
    """Add a learned embedding of its position to each token, for up to `context` positions.

    The parameter is `embedding` (context, width). Raises `InputError` for a longer sequence. With a
    traced `start` nothing can be raised, and tokens beyond the last position become nan.
    """

    context: int

    @nn.compact
    def __call__(self, x: jax.Array, start: Any = 0) -> jax.Array:
        """Return the sequence (batch, time, width); its first token is at position `start`."""
        time, width = x.shape[1:]
        if time > self.context:
            raise error(
                "sequence",
                expected=f"at most {self.context} positions, the context of the model",
                got=f"{time}",
                fix="shorten the sequence, or build the model with a larger context",
            )
        if not isinstance(start, Tracer) and start + time > self.context:
            raise error(
                "cache",
                expected=f"room for {time} more of {self.context} tokens, the context of the model",
                got=f"{start} tokens in it",
                fix="read the last tokens again into an empty cache, as jdl.models.generate does",
            )
        table = self.param("embedding", GPT2_NORMAL, (self.context, width), jnp.float32)
        if isinstance(start, Tracer):
            own = table.at[start + jnp.arange(time)].get(mode="fill", fill_value=jnp.nan)
        else:
            own = jax.lax.dynamic_slice_in_dim(table, start, time)
        return constrain_batch(x + own[None])


def norm(use_bias: bool = True, name: str | None = None) -> nn.LayerNorm:
    r"""Layer normalisation, $\gamma (x-\mu)/\sqrt{\sigma^2 + 10^{-5}} + \beta$ (Ba et al. 2016).

    The variance is the mean squared deviation. A difference of squares would lose digits when the
    mean is large.
    """
    return nn.LayerNorm(EPSILON, use_bias=use_bias, use_fast_variance=False, name=name)


def _check_heads(width: int, heads: int) -> None:
    if heads < 1 or width % heads:
        raise error(
            "heads",
            expected=f"a number that divides the width, {width}",
            got=str(heads),
            fix="choose heads that divide the width; each head gets width / heads units",
        )
