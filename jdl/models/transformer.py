"""Transformers: a decoder like GPT, an encoder, and a vision transformer."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jdl.core.errors import error
from jdl.core.types import PyTree
from jdl.models.layers import attention, attention_ops, primitives
from jdl.models.layers.attention import Cache, Past


class Decoder(nn.Module):
    """A causal language model like GPT-2 (Radford et al. 2019).

    Inputs are integers (batch, time) below `vocabulary`, with time at most `context`. Outputs
    (batch, time, vocabulary) are the logits of the next token at each position. The output layer
    shares the weights of the token embedding (Press & Wolf 2017). Layers are `tokens`, `positions`
    and `stack`. The defaults are nanoGPT's for a small character-level model.

    `remat` trades compute for memory in the backward pass
    (`jdl.models.layers.remat.rematerialize`); `scan=True` compiles one block for all of them
    (`jdl.models.layers.attention.Stack`). With `cache` (see `empty_cache`) the tokens follow those
    in the cache, and the outputs are (logits, cache). To generate text, use `jdl.models.generate`.

    Raises `InputError` at `init` for inputs that are not integers (batch, time), a sequence longer
    than `context`, `heads` that do not divide `width`, an unknown `remat`, and a `dropout` outside
    [0, 1); and for tokens that do not fit into the cache. In a compiled program, which cannot
    raise, the logits of these tokens are nan.

    >>> from jdl.core import tree
    >>> from jdl.models import from_linen
    >>> init = from_linen(Decoder(vocabulary=65)).init
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
    def __call__(
        self, tokens: jax.Array, train: bool = False, cache: Cache | None = None
    ) -> jax.Array | tuple[jax.Array, Cache]:
        """Return the logits (batch, time, vocabulary); with `cache`, also the new cache."""
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
        """Return a cache with room for `context` tokens of each of `batch` sequences."""
        slots = jnp.zeros((batch, self.context, self.heads, self.width // self.heads), dtype)
        return Cache((Past(slots, slots),) * self.blocks, jnp.int32(0))


class Encoder(nn.Module):
    """Bidirectional attention over sequences (Vaswani et al. 2017), with pre-norm blocks.

    Inputs are vectors (batch, time, features) or, with `vocabulary`, integers (batch, time). For
    padded sequences pass a dict of `x` and `lengths` (batch,): the padding then changes nothing,
    even if it holds nan. With `pool` the outputs (batch, outputs) come from the mean over the
    sequence; without, there is one for each position, (batch, time, outputs). Layers are `embed`
    (embedding or dense), `positions`, `stack` and `output`. `remat` is as in `Decoder`.

    Raises `InputError` at `init` for inputs of another rank or dtype, a sequence longer than
    `context`, `heads` that do not divide `width`, an unknown `remat`, and a `dropout` outside
    [0, 1).

    >>> from jdl.models import from_linen
    >>> model = from_linen(Encoder(outputs=3, context=5, blocks=1, heads=2, width=4))
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
    def __call__(
        self, inputs: jax.Array | Mapping[str, jax.Array], train: bool = False
    ) -> jax.Array:
        """Return the outputs (batch, outputs) or (batch, time, outputs)."""
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
        is_token = jnp.ones((1, time), bool) if mask is None else mask[:, 0, 0]
        # Zero attention weights would not hide nan: zero times nan is nan.
        x = jnp.where(is_token.reshape(is_token.shape + (1,) * (x.ndim - 2)), x, 0)
        x = attention.Positions(self.context, name="positions")(embed(x))
        x = nn.Dropout(self.dropout, deterministic=not train, name="drop")(x)
        stack = attention.Stack(
            self.blocks, self.heads, dropout=self.dropout, remat=self.remat, name="stack"
        )
        x, _ = stack(x, mask, None, train)
        if self.pool:
            weights = is_token[..., None].astype(x.dtype)
            x = (x * weights).sum(1) / jnp.maximum(weights.sum(1), 1)
        return primitives.Dense(self.outputs, name="output")(x)


class ViT(nn.Module):
    """A vision transformer (Dosovitskiy et al. 2021).

    Inputs (batch, height, width, channels) are cut into patches of `patch` x `patch` pixels, and
    each patch becomes a token. A learned class token precedes them, and its output gives the logits
    (batch, classes). Layers are `patches`, `class_token`, `positions`, `stack` and `output`.
    ViT-B/16 for ImageNet is `ViT(1000, patch=16, blocks=12, heads=12, width=768)`, with 86,567,656
    parameters. `remat` is as in `Decoder`.

    Raises `InputError` at `init` for inputs of another rank, a `patch` that does not divide height
    and width, `heads` that do not divide `width`, an unknown `remat`, and a `dropout` outside
    [0, 1).

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
        """Return the logits (batch, classes)."""
        primitives.check_rate(self.dropout)
        primitives.check_images(inputs)
        x = primitives.Dense(self.width, name="patches")(patches(inputs, self.patch))
        class_token = self.param(
            "class_token", attention.GPT2_NORMAL, (1, 1, self.width), jnp.float32
        )
        x = jnp.concatenate([jnp.broadcast_to(class_token, (len(x), 1, self.width)), x], 1)
        x = attention.Positions(x.shape[1], name="positions")(x)
        x = nn.Dropout(self.dropout, deterministic=not train, name="drop")(x)
        stack = attention.Stack(
            self.blocks, self.heads, dropout=self.dropout, remat=self.remat, name="stack"
        )
        x, _ = stack(x, None, None, train)
        return primitives.Dense(self.classes, name="output")(x[:, 0])


def patches(images: jax.Array, size: int) -> jax.Array:
    """Cut images into square patches, row by row: (batch, patches, size * size * channels).

    Raises `InputError` if `size` does not divide height and width.

    >>> patches(jnp.arange(16.0).reshape(1, 4, 4, 1), 2)[0, 1]
    Array([2., 3., 6., 7.], dtype=float32)
    """
    batch, height, width, channels = images.shape
    if size < 1 or height % size or width % size:
        raise error(
            "patch",
            expected=f"a size that divides the image, {height} by {width}",
            got=str(size),
            fix="pass another patch size, or pad the images",
        )
    x = images.reshape(batch, height // size, size, width // size, size, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, size * size * channels)


@functools.partial(jax.jit, static_argnames="module")
def attention_weights(module: nn.Module, params: PyTree, inputs: PyTree) -> jax.Array:
    """Return the attention weights of every block (Vaswani et al. 2017).

    Shape (blocks, batch, heads, queries, keys); the weights of a query sum to 1. `module` is a
    `Decoder` without `scan`, a `Encoder` or a `ViT`.

    >>> module = Decoder(vocabulary=5, context=4, blocks=2, heads=2, width=4)
    >>> tokens = jnp.array([[0, 3, 1]])
    >>> params = jax.eval_shape(module.init, jax.random.key(0), tokens)["params"]
    >>> jax.eval_shape(lambda p: attention_weights(module, p, tokens), params).shape
    (2, 1, 2, 3, 3)
    """
    variables: Any = module.apply({"params": params}, inputs, mutable=["intermediates"])[1]
    blocks = variables["intermediates"]["stack"]
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
            fix="add a feature axis with x[..., None], or pass vocabulary= for tokens",
        )
