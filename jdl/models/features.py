"""Encoders: what networks, or layers inside them, make of inputs; heads that are thrown away."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from jdl.core.errors import did_you_mean, error
from jdl.models.mlp import MLP


class EncoderWithHead(nn.Module):
    """An encoder, ReLU, and a dense network of its own behind it, for a task that trains both.

    Inputs are the encoder's, whose outputs (batch, n) become (batch, *shape). The parameters are
    `encoder` and `head`: after training the encoder's serve alone, as in Chen et al. (2020).

    >>> import jax.numpy as jnp
    >>> module, x = EncoderWithHead(MLP((), 8), (4,)), jnp.ones((2, 6))
    >>> sorted(jax.eval_shape(module.init, jax.random.key(0), x)["params"])
    ['encoder', 'head']
    """

    encoder: nn.Module
    shape: Sequence[int]
    hidden: Sequence[int] = (128,)

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """What the head makes of the encoder's features."""
        features = nn.relu(self.encoder(inputs))
        head = MLP(self.hidden, outputs=math.prod(self.shape), name="head")
        return head(features).reshape(len(inputs), *self.shape)


def batched_encoder(
    module: nn.Module, params: Any, size: int = 2_000
) -> Callable[[Any], np.ndarray]:
    """A trained module as a function of any number of inputs (n, ...), `size` of them at a time.

    >>> module = MLP((), 3)
    >>> params = module.init(jax.random.key(0), np.ones((1, 2)))["params"]
    >>> batched_encoder(module, params, size=2)(np.ones((5, 2), np.float32)).shape
    (5, 3)
    """
    part = jax.jit(lambda inputs: module.apply({"params": params}, inputs))

    def encode(inputs: Any) -> np.ndarray:
        starts = range(0, len(inputs), size)
        return np.concatenate([part(inputs[start : start + size]) for start in starts])

    return encode


def layer_outputs(
    module: nn.Module,
    params: Any,
    inputs: Any,
    layer: str,
    *,
    model_state: Mapping[str, Any] | None = None,
) -> jax.Array:
    """What the layer of that name returned for the inputs, before any activation that follows it.

    `model_state` holds further collections, such as batch statistics. Of several layers of one name
    in different parts of the network the first counts. Raises `InputError` where there is none.

    >>> from jdl.models import MLP
    >>> import jax.numpy as jnp
    >>> module, x = MLP((4,), 2), jnp.ones((3, 5))
    >>> params = module.init(jax.random.key(0), x)["params"]
    >>> layer_outputs(module, params, x, "dense_1").shape
    (3, 4)
    """
    seen = set()

    def wanted(part: nn.Module, method: str) -> bool:
        seen.add(str(part.name))
        return part.name == layer and method == "__call__"

    variables = {"params": params, **(model_state or {})}
    kept: Any = module.apply(variables, inputs, capture_intermediates=wanted)[1]
    found = jax.tree.leaves(kept.get("intermediates", {}))
    if not found:
        names = sorted(seen - {"None"})
        raise error(
            "layer",
            expected=f"one of {', '.join(names)}",
            got=repr(layer),
            fix=did_you_mean(layer, names),
        )
    return found[0]
