"""Text generation with a `Decoder`, in one compiled program with a key-value cache."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jdl.core.errors import error
from jdl.core.types import Key, PyTree
from jdl.models.transformer import Decoder

SUM_ERROR = 1e-6
"""How far a sum of probabilities in float32 may be from the exact one."""


def generate(
    module: Decoder,
    params: PyTree,
    prompt: ArrayLike,
    key: Key,
    steps: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> jax.Array:
    r"""Continue each prompt by `steps` sampled tokens.

    Takes a prompt (batch, time) of integers and returns (batch, time + steps), which starts with
    the prompt. Each token is drawn from $\mathrm{softmax}(z / T)$ with logits z and `temperature`
    T; T = 0 takes the most likely token. `top_k` restricts sampling to the k most likely tokens
    (Fan et al. 2018), `top_p` to the fewest tokens whose probabilities sum to p or more (Holtzman
    et al. 2020). With both, p applies after the k are selected. Of equally likely tokens the first
    ones stay. Tokens are drawn from logits in float32 or wider, whatever the type of `params`.

    A text may grow longer than the model's `context`. Whenever the key-value cache is full, it is
    rebuilt from the last half of the context. One program is compiled for each combination of
    prompt shape, `steps` and `top_k`.

    Raises `InputError` for a prompt that is empty, not integer, not of shape (batch, time) or
    outside the vocabulary, and for `steps`, `temperature`, `top_k` or `top_p` out of range.

    >>> module = Decoder(vocabulary=5, context=8, blocks=1, heads=2, width=4)
    >>> params = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 2), int))["params"]
    >>> generate(module, params, [[1, 2]], jax.random.key(1), steps=6, top_k=2).shape
    (1, 8)
    """
    prompt = np.asarray(prompt)
    _check(module, prompt, steps, temperature, top_k, top_p)
    p = None if top_p is None else jnp.float32(top_p)
    return _generate(module, params, jnp.asarray(prompt), key, steps, temperature, top_k, p)


@functools.partial(jax.jit, static_argnames=("module", "steps", "top_k"))
def _generate(
    module: Decoder,
    params: PyTree,
    prompt: jax.Array,
    key: Key,
    steps: int,
    temperature: Any,
    top_k: int | None,
    top_p: Any,
) -> jax.Array:
    batch, prompt_length = prompt.shape
    half = max(1, module.context // 2)
    dtype = jax.tree.leaves(params)[0].dtype

    def read(tokens: jax.Array, cache: Any) -> Any:
        logits, cache = module.apply({"params": params}, tokens, cache=cache)
        return logits[:, -1], cache

    def step(carry: Any, index: jax.Array) -> tuple[Any, None]:
        text, logits, cache = carry
        new = choose(jax.random.fold_in(key, index), logits, temperature, top_k, top_p)
        new = new[:, None].astype(text.dtype)
        end = prompt_length + index
        text = jax.lax.dynamic_update_slice_in_dim(text, new, end, axis=1)

        def rebuild_cache() -> Any:
            last = jax.lax.dynamic_slice_in_dim(text, end + 1 - half, half, axis=1)
            return read(last, module.empty_cache(batch, dtype))

        if prompt_length + steps <= module.context:
            logits, cache = read(new, cache)
        else:
            is_full = cache.length == module.context
            logits, cache = jax.lax.cond(is_full, rebuild_cache, lambda: read(new, cache))
        return (text, logits, cache), None

    text = jnp.pad(prompt, ((0, 0), (0, steps)))
    start = read(prompt[:, -module.context :], module.empty_cache(batch, dtype))
    (text, *_), _ = jax.lax.scan(step, (text, *start), jnp.arange(steps))
    return text


def choose(
    key: Key, logits: jax.Array, temperature: Any = 1.0, top_k: int | None = None, top_p: Any = None
) -> jax.Array:
    """Sample a token for each row of logits (batch, vocabulary), as `generate` does.

    >>> choose(jax.random.key(0), jnp.array([[0.0, 3.0, 1.0]]), temperature=0.0)
    Array([1], dtype=int32)
    """
    best = logits.argmax(-1).astype(jnp.int32)
    greedy = jnp.asarray(temperature) <= 0
    # The noise of a draw in 16 bits has no tail, and unlikely tokens would never appear.
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    logits = logits / jnp.where(greedy, 1.0, temperature)
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    if top_p is not None:
        logits = keep_top_p(logits, top_p)
    return jnp.where(greedy, best, jax.random.categorical(key, logits).astype(jnp.int32))


def keep_top_k(logits: jax.Array, k: int) -> jax.Array:
    """Keep the k largest logits (batch, vocabulary), the first of equal ones; others become -inf.

    >>> keep_top_k(jnp.array([[1.0, 3.0, 2.0]]), 2)
    Array([[-inf,   3.,   2.]], dtype=float32)
    """
    largest = jax.lax.top_k(logits, min(k, logits.shape[-1]))[1]
    return _keep(logits, largest, jnp.ones(largest.shape, bool))


def keep_top_p(logits: jax.Array, p: Any) -> jax.Array:
    """Keep the fewest most likely tokens with total probability p; set others to minus infinity.

    Logits (batch, vocabulary). The most likely token always stays, and of equal ones the first.

    >>> jnp.exp(keep_top_p(jnp.log(jnp.array([[0.25, 0.5, 0.25]])), 0.5)).round(2)
    Array([[0. , 0.5, 0. ]], dtype=float32)
    """
    order = jnp.argsort(logits, axis=-1, stable=True, descending=True)
    wide = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    probabilities = jax.nn.softmax(jnp.take_along_axis(wide, order, axis=-1), axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    # The most likely token stays even at p = 0, and all of them at p = 1.
    is_inside = ((before < p - SUM_ERROR) | (jnp.asarray(p) >= 1)).at[:, 0].set(True)
    return _keep(logits, order, is_inside)


def _keep(logits: jax.Array, places: jax.Array, is_kept: jax.Array) -> jax.Array:
    """The logits at those `places` (batch, k) that are kept; minus infinity elsewhere."""
    kept = jnp.zeros(logits.shape, bool)
    kept = jnp.put_along_axis(kept, places, is_kept, axis=-1, inplace=False)
    return jnp.where(kept, logits, -jnp.inf)


def _check(
    module: Decoder,
    prompt: np.ndarray,
    steps: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
) -> None:
    if prompt.ndim != 2 or prompt.size == 0 or prompt.dtype.kind not in "iu":
        raise error(
            "prompt",
            expected="integers of shape (batch, time), at least one token in each row",
            got=f"{prompt.dtype} of shape {prompt.shape}",
            fix="encode a text with tokenizer.encode(text)[None]",
        )
    if prompt.min() < 0 or prompt.max() >= module.vocabulary:
        raise error(
            "prompt",
            expected=f"tokens from 0 to {module.vocabulary - 1}",
            got=f"tokens from {prompt.min()} to {prompt.max()}",
            fix="encode the prompt with the tokenizer that the model was trained with",
        )
    limits = {
        "steps": (steps >= 1, "1 or more", steps),
        "temperature": (temperature >= 0, "a number of at least 0", temperature),
        "top_k": (top_k is None or top_k >= 1, "1 or more", top_k),
        "top_p": (top_p is None or 0 < top_p <= 1, "a number above 0, at most 1", top_p),
    }
    for name, (holds, expected, got) in limits.items():
        if not holds:
            raise error(name, expected=expected, got=str(got), fix="choose a value in that range")
