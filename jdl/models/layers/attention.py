"""Layers of attention and around it: learned positions, pre-norm blocks, their stack.

Sequences are (batch, time, width), masks those of `jdl.models.layers.attention_ops`. Dense layers
are computed on two-dimensional operands (`layers.Dense`).
"""

from typing import Any, NamedTuple

import jax
from flax import linen as nn

from jdl.core.errors import error
from jdl.core.lowering import constrain_batch
from jdl.models.layers import attention_ops, primitives
from jdl.models.layers.remat import rematerialize

GPT2_NORMAL = nn.initializers.normal(0.02)
"""First weights of a transformer's layers and embeddings, as in GPT-2 (Radford et al. 2019)."""

EPSILON = 1e-5
"""Added to the variance in layer normalisation: PyTorch's value (Flax's own is 1e-6)."""


class Past(NamedTuple):
    """What one layer remembers of earlier tokens: keys and values (batch, slots, heads, size)."""

    keys: Any
    values: Any


class Cache(NamedTuple):
    """The past of every layer, and how many of its slots are filled."""

    layers: tuple[Past, ...]
    length: Any


class SelfAttention(nn.Module):
    r"""Multi-head self-attention (Vaswani et al. 2017).

    $[Q_h, K_h, V_h] = x W_{qkv} + b$, $o_h = \mathrm{softmax}(Q_h K_h^\top/\sqrt{d}) V_h$,
    $y = [o_1, \dots, o_H] W_o + b_o$ with $d = $ width / heads. Inputs and outputs
    (batch, time, width). Layers are `qkv` (query, key and value beside one another, each with its
    heads beside one another, as in PyTorch) and `output`: 4 width² weights.

    With `past`, the new keys and values are written after its first `length` slots, and the
    queries look at all slots under `mask`. The second result is the past with them, or None.
    With `causal`, and no mask given, query i looks at keys 0 ... i. Dropout is on the weights and
    on the output. The weights are sown as `intermediates/weights`.
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
        """The outputs, and the past with the new keys and values."""
        batch, time, width = x.shape
        _check_heads(width, self.heads)
        qkv = primitives.Dense(
            3 * width, use_bias=self.use_bias, kernel_init=GPT2_NORMAL, name="qkv"
        )(x)
        qkv = qkv.reshape(batch, time, 3, self.heads, width // self.heads)
        query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        if past is not None:
            at = (0, length, 0, 0)
            key = jax.lax.dynamic_update_slice(past.keys, key, at)
            value = jax.lax.dynamic_update_slice(past.values, value, at)
            past = Past(key, value)
        is_causal = self.causal and mask is None
        drops = train and self.dropout > 0
        shows = self.is_mutable_collection("intermediates")
        if mask is None and past is None and not drops and not shows:
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


class Block(nn.Module):
    r"""A pre-norm transformer block (Xiong et al. 2020).

    $x \leftarrow x + \mathrm{attention}(\mathrm{norm}_1(x))$,
    $x \leftarrow x + W_2\,\mathrm{gelu}(W_1\,\mathrm{norm}_2(x))$ with the exact GELU
    $x\,\Phi(x)$ (Hendrycks & Gimpel 2016) and `hidden` units. Layers are `norm_1`, `attention`,
    `norm_2`, `dense_1` and `dense_2`; normalisation adds 1e-5 to the variance. With 4 width
    hidden units and no biases it has 12 width² + 2 width parameters. `causal` is that of
    `SelfAttention`.
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
        """The sequence after attention and the dense layers, and the past."""
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
    """Blocks one after the other and a last normalisation: `block_1`, ..., `norm`.

    `hidden` is four times the width where left out. The two layers of each block that write to
    the residual sum start smaller by the root of their number (Radford et al. 2019). `remat` says
    what each block keeps for its backward pass (`jdl.models.layers.remat.rematerialize`), `causal`
    which keys a query looks at where there is no mask (`SelfAttention`). With `scan` the blocks are
    one, `blocks`, whose parameters have a leading axis for each of them: a deep stack is compiled
    as fast as a shallow one, and cannot take a cache.
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
        """The sequence (batch, time, width), and the cache with the new tokens in it."""
        output_init = nn.initializers.normal(0.02 * (2 * self.blocks) ** -0.5)
        length = 0 if cache is None else cache.length
        build = rematerialize(Block, self.remat, train_at=4)
        sizes = (self.heads, self.hidden or 4 * x.shape[-1], self.dropout, self.use_bias)
        if self.scan:
            block = build(*sizes, output_init, self.causal, name="blocks")
            x = _scanned(block, self.blocks, x, mask, cache, train)
            return norm(self.use_bias, "norm")(x), None
        kept = []
        for index in range(self.blocks):
            block = build(*sizes, output_init, self.causal, name=f"block_{index + 1}")
            past = None if cache is None else cache.layers[index]
            x, past = block(x, mask, past, length, train)
            kept.append(past)
        x = norm(self.use_bias, "norm")(x)
        return x, None if cache is None else Cache(tuple(kept), length + x.shape[1])


def _scanned(
    block: nn.Module, blocks: int, x: jax.Array, mask: Any, cache: Any, train: bool
) -> jax.Array:
    """The sequence after `blocks` blocks of one shape, each with its own row of the weights."""
    if cache is not None:
        raise error(
            "cache",
            expected="blocks that are laid out one by one",
            got="a scan over them",
            fix="build the model with scan=False to generate from it",
        )

    def one(block: Any, x: jax.Array, _: None) -> tuple[jax.Array, None]:
        return block(x, mask, None, 0, train)[0], None

    each: Any = {"params": True, "dropout": True}
    axes: Any = {"params": 0, "intermediates": 0}
    return nn.scan(one, variable_axes=axes, split_rngs=each, length=blocks)(block, x, None)[0]


class Positions(nn.Module):
    """Adds to each token a learned vector of its place, of which there are `context`.

    The table is `embedding` (context, width). Raises `InputError` for a longer sequence.
    """

    context: int

    @nn.compact
    def __call__(self, x: jax.Array, start: Any = 0) -> jax.Array:
        """The sequence (batch, time, width), whose first token is at place `start`."""
        time, width = x.shape[1:]
        if time > self.context:
            raise error(
                "sequence",
                expected=f"at most {self.context} positions, the context of the model",
                got=f"{time}",
                fix="cut the sequence, or give the model a larger context",
            )
        table = self.param("embedding", GPT2_NORMAL, (self.context, width))
        return constrain_batch(x + jax.lax.dynamic_slice_in_dim(table, start, time)[None])


def norm(use_bias: bool = True, name: str | None = None) -> nn.LayerNorm:
    r"""Layer normalisation over the last axis, $\gamma (x-\mu)/\sqrt{\sigma^2 + 10^{-5}} + \beta$.

    The variance is that of the deviations from the mean, not a difference of squares, which loses
    digits where the mean is large (Ba, Kiros & Hinton 2016).
    """
    return nn.LayerNorm(EPSILON, use_bias=use_bias, use_fast_variance=False, name=name)


def _check_heads(width: int, heads: int) -> None:
    if heads < 1 or width % heads:
        raise error(
            "heads",
            expected=f"a number that divides the width, {width}",
            got=str(heads),
            fix="each head takes width / heads of the units",
        )
