"""Encoders, their training heads, and the outputs of layers inside a network."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from jdl.core.errors import did_you_mean, error
from jdl.core.types import PyTree
from jdl.models.mlp import MLP


class EncoderWithHead(nn.Module):
    """An encoder, ReLU and a dense head, for tasks that train both (Chen et al. 2020).

    Inputs are the encoder's. The encoder's outputs (batch, features) become (batch, *shape).
    `hidden` are the widths of the head's hidden layers. `params` has two entries, `encoder` and
    `head`; after training you can use `params["encoder"]` alone.

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
        """Return the head's outputs (batch, *shape)."""
        features = nn.relu(self.encoder(inputs))
        head = MLP(self.hidden, outputs=math.prod(self.shape), name="head")
        return head(features).reshape(len(inputs), *self.shape)


def batched_encoder(
    module: nn.Module, params: PyTree, size: int = 2_000
) -> Callable[[jax.Array | np.ndarray], np.ndarray]:
    """Return a function that applies a module to many inputs, `size` of them at a time.

    The function maps inputs (n, ...) to a NumPy array (n, features) in host memory, so that the
    features of a whole data set need no more device memory than those of one batch.

    >>> module = MLP((), 3)
    >>> params = module.init(jax.random.key(0), np.ones((1, 2)))["params"]
    >>> batched_encoder(module, params, size=2)(np.ones((5, 2), np.float32)).shape
    (5, 3)
    """
    apply = jax.jit(lambda inputs: module.apply({"params": params}, inputs))

    def encode(inputs: jax.Array | np.ndarray) -> np.ndarray:
        starts = range(0, len(inputs), size)
        return np.concatenate([apply(inputs[start : start + size]) for start in starts])

    return encode


def layer_outputs(
    module: nn.Module,
    params: PyTree,
    inputs: PyTree,
    layer: str,
    *,
    model_state: Mapping[str, PyTree] | None = None,
) -> jax.Array:
    """Return the outputs of one layer, before any activation that follows it.

    Shape (batch, ..., features), as the layer returns them. `model_state` holds further collections
    such as batch statistics. If several layers share a name, you get the first. Raises `InputError`
    if no layer has that name.

    >>> from jdl.models import MLP
    >>> import jax.numpy as jnp
    >>> module, x = MLP((4,), 2), jnp.ones((3, 5))
    >>> params = module.init(jax.random.key(0), x)["params"]
    >>> layer_outputs(module, params, x, "dense_1").shape
    (3, 4)
    """
    layer_names = set()

    def is_layer(part: nn.Module, method: str) -> bool:
        layer_names.add(str(part.name))
        return part.name == layer and method == "__call__"

    variables = {"params": params, **(model_state or {})}
    captured: Any = module.apply(variables, inputs, capture_intermediates=is_layer)[1]
    outputs = jax.tree.leaves(captured.get("intermediates", {}))
    if not outputs:
        names = sorted(layer_names - {"None"})
        raise error(
            "layer",
            expected=f"one of {', '.join(names)}",
            got=repr(layer),
            fix=did_you_mean(layer, names),
        )
    return outputs[0]
