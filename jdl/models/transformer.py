"""Transformers: an encoder, a decoder in the manner of GPT, and one for images."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jdl.core.errors import error
from jdl.models.layers import attention, attention_ops, primitives
from jdl.models.layers.attention import Cache, Past


class TransformerDecoder(nn.Module):
    r"""A language model: causal self-attention over tokens (Radford et al. 2019).

    Inputs are integers (batch, time) below `vocabulary`, at most `context` of them in a row;
    outputs (batch, time, vocabulary) are logits of the token that follows each. The table that
    embeds tokens also reads the logits off (Press & Wolf 2017). Layers are `tokens`, `positions`
    and `stack`. With width d and n blocks it has
    $(\text{vocabulary} + \text{context} + 1)\,d + n\,(12 d^2 + 2 d)$ parameters, and with
    `use_bias` $d + n\,11 d$ more. The defaults are nanoGPT's small ones for characters.

    With `cache` (of `empty_cache`) the tokens go on from those already in it, and the result is
    (logits, cache). See `jdl.models.generate`.

    >>> from jdl.core import tree
    >>> from jdl.models import from_linen
    >>> init = from_linen(TransformerDecoder(vocabulary=65)).init
    >>> params, _ = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 64), int))
    >>> tree.count(params)
    804096
    """

    vocabulary: int
    context: int = 64
    blocks: int = 4
    heads: int = 4
    width: int = 128
    dropout: float = 0.0
    use_bias: bool = False
    remat: str = "none"
    scan: bool = False

    @nn.compact
    def __call__(self, tokens: jax.Array, train: bool = False, cache: Cache | None = None) -> Any:
        """The logits; with `cache`, also the cache."""
        primitives.check_rate(self.dropout)
        _check_tokens(tokens)
        batch, time = tokens.shape
        table = primitives.Embed(
            self.vocabulary, self.width, embedding_init=attention.GPT2_NORMAL, name="tokens"
        )
        start = 0 if cache is None else cache.length
        x = attention.Positions(self.context, name="positions")(table(tokens), start)
        x = nn.Dropout(self.dropout, deterministic=not train, name="drop")(x)
        mask = None if cache is None else attention_ops.causal_mask(time, self.context, start)
        stack = attention.Stack(
            self.blocks,
            self.heads,
            None,
            self.dropout,
            self.use_bias,
            self.remat,
            self.scan,
            causal=True,
            name="stack",
        )
        x, cache = stack(x, mask, cache, train)
        logits = table.attend(x.reshape(batch * time, self.width))
        logits = logits.reshape(batch, time, self.vocabulary)
        return logits if cache is None else (logits, cache)

    def empty_cache(self, batch: int, dtype: Any = jnp.float32) -> Cache:
        """A cache with room for `context` tokens of each of `batch` sequences, and none in it."""
        slots = jnp.zeros((batch, self.context, self.heads, self.width // self.heads), dtype)
        return Cache((Past(slots, slots),) * self.blocks, jnp.int32(0))


class TransformerEncoder(nn.Module):
    """Attention in both directions over a sequence (Vaswani et al. 2017, pre-norm).

    Inputs are vectors (batch, time, features) or, with `vocabulary`, integers (batch, time); or a
    dict of such `x` and the true `lengths` (batch,). What lies after a sequence's length is not
    looked at, nan included. Outputs are (batch, outputs), from the mean over the true positions,
    or with `pool=False` (batch, time, outputs), one for each. Layers are `embed` (a table, or
    dense), `positions`, `stack` and `output`.

    >>> from jdl.models import from_linen
    >>> model = from_linen(TransformerEncoder(outputs=3, context=5, blocks=1, heads=2, width=4))
    >>> inputs = {"x": jnp.ones((2, 5, 7)), "lengths": jnp.array([5, 2])}
    >>> params, model_state = jax.eval_shape(model.init, jax.random.key(0), inputs)
    >>> jax.eval_shape(model.apply, params, model_state, inputs)[0].shape
    (2, 3)
    """

    outputs: int
    context: int
    vocabulary: int | None = None
    blocks: int = 2
    heads: int = 4
    width: int = 64
    dropout: float = 0.0
    pool: bool = True
    remat: str = "none"

    @nn.compact
    def __call__(self, inputs: Any, train: bool = False) -> jax.Array:
        """The outputs of a batch of sequences."""
        primitives.check_rate(self.dropout)
        x, lengths = (
            (inputs["x"], inputs.get("lengths")) if isinstance(inputs, Mapping) else (inputs, None)
        )
        time = x.shape[1]
        mask = None if lengths is None else attention_ops.padding_mask(lengths, time)
        if self.vocabulary is not None:
            _check_tokens(x)
            embed = primitives.Embed(
                self.vocabulary, self.width, embedding_init=attention.GPT2_NORMAL, name="embed"
            )
        else:
            _check_vectors(x)
            embed = primitives.Dense(self.width, name="embed")
        true = jnp.ones((1, time), bool) if mask is None else mask[:, 0, 0]
        # Zero weights do not hide nan: zero times nan is nan.
        x = jnp.where(true.reshape(true.shape + (1,) * (x.ndim - 2)), x, 0)
        x = attention.Positions(self.context, name="positions")(embed(x))
        x = nn.Dropout(self.dropout, deterministic=not train, name="drop")(x)
        stack = attention.Stack(
            self.blocks, self.heads, dropout=self.dropout, remat=self.remat, name="stack"
        )
        x, _ = stack(x, mask, None, train)
        if self.pool:
            kept = true[..., None].astype(x.dtype)
            x = (x * kept).sum(1) / jnp.maximum(kept.sum(1), 1)
        return primitives.Dense(self.outputs, name="output")(x)


class ViT(nn.Module):
    """A vision transformer (Dosovitskiy et al. 2021).

    Images (batch, height, width, channels) are cut into squares of `patch` pixels, each becomes a
    token, a learned class token is put before them, and the logits (batch, classes) are read from
    it. Layers are `patches`, `class_token`, `positions`, `stack` and `output`. ViT-B/16 for
    ImageNet is `ViT(1000, patch=16, blocks=12, heads=12, width=768)`, with 86,567,656 parameters.

    >>> from jdl.models import from_linen
    >>> model = from_linen(ViT(10, patch=4, blocks=1, heads=2, width=8))
    >>> params, model_state = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((2, 8, 8, 1)))
    >>> jax.eval_shape(model.apply, params, model_state, jnp.ones((2, 8, 8, 1)))[0].shape
    (2, 10)
    """

    classes: int = 10
    patch: int = 4
    blocks: int = 4
    heads: int = 4
    width: int = 64
    dropout: float = 0.0
    remat: str = "none"

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        """The logits of a batch of images."""
        primitives.check_rate(self.dropout)
        primitives.check_images(inputs)
        x = primitives.Dense(self.width, name="patches")(patches(inputs, self.patch))
        first = self.param("class_token", attention.GPT2_NORMAL, (1, 1, self.width))
        x = jnp.concatenate([jnp.broadcast_to(first, (len(x), 1, self.width)), x], 1)
        x = attention.Positions(x.shape[1], name="positions")(x)
        x = nn.Dropout(self.dropout, deterministic=not train, name="drop")(x)
        stack = attention.Stack(
            self.blocks, self.heads, dropout=self.dropout, remat=self.remat, name="stack"
        )
        x, _ = stack(x, None, None, train)
        return primitives.Dense(self.classes, name="output")(x[:, 0])


def patches(images: jax.Array, size: int) -> jax.Array:
    """Squares of `size` pixels, row by row: (batch, squares, size * size * channels).

    >>> patches(jnp.arange(16.0).reshape(1, 4, 4, 1), 2)[0, 1]
    Array([2., 3., 6., 7.], dtype=float32)
    """
    batch, height, width, channels = images.shape
    if size < 1 or height % size or width % size:
        raise error(
            "patch",
            expected=f"a size that divides the image, {height} by {width}",
            got=str(size),
            fix="choose another size, or pad the images",
        )
    x = images.reshape(batch, height // size, size, width // size, size, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, size * size * channels)


@functools.partial(jax.jit, static_argnames="module")
def attention_weights(module: nn.Module, params: Any, inputs: Any) -> jax.Array:
    """The weights of every block's attention, (blocks, batch, heads, queries, keys).

    >>> module = TransformerDecoder(vocabulary=5, context=4, blocks=2, heads=2, width=4)
    >>> tokens = jnp.array([[0, 3, 1]])
    >>> params = jax.eval_shape(module.init, jax.random.key(0), tokens)["params"]
    >>> jax.eval_shape(lambda p: attention_weights(module, p, tokens), params).shape
    (2, 1, 2, 3, 3)
    """
    seen: Any = module.apply({"params": params}, inputs, mutable=["intermediates"])[1]
    blocks = seen["intermediates"]["stack"]
    names = sorted(blocks, key=lambda name: int(name.rsplit("_", 1)[1]))
    return jnp.stack([blocks[name]["attention"]["weights"][0] for name in names])


def _check_tokens(tokens: Any) -> None:
    shape, dtype = jnp.shape(tokens), jnp.result_type(tokens)
    if len(shape) != 2 or not jnp.issubdtype(dtype, jnp.integer):
        raise error(
            "tokens",
            expected="integers of shape (batch, time)",
            got=f"{dtype} of shape {shape}",
            fix="encode the text with one of jdl.data.tokenizers",
        )


def _check_vectors(x: Any) -> None:
    if jnp.ndim(x) != 3:
        raise error(
            "sequence",
            expected="vectors, shape (batch, time, features)",
            got=f"{jnp.result_type(x)} of shape {jnp.shape(x)}",
            fix="add a feature axis with x[..., None], or give vocabulary= for tokens",
        )
