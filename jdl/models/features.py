"""What the layers inside a network make of its inputs."""

from collections.abc import Mapping
from typing import Any

import jax
from flax import linen as nn

from jdl.core.check import error, nearest


def layer_outputs(
    module: nn.Module,
    params: Any,
    inputs: Any,
    layer: str,
    *,
    state: Mapping[str, Any] | None = None,
) -> jax.Array:
    """What the layer of that name returned for the inputs, before any activation that follows it.

    `state` holds further collections, such as batch statistics. Of several layers of one name in
    different parts of the network the first counts. Raises `InputError` where there is none.

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

    variables = {"params": params, **(state or {})}
    kept: Any = module.apply(variables, inputs, capture_intermediates=wanted)[1]
    found = jax.tree.leaves(kept.get("intermediates", {}))
    if not found:
        names = sorted(seen - {"None"})
        raise error(
            "layer",
            expected=f"one of {', '.join(names)}",
            got=repr(layer),
            fix=nearest(layer, names),
        )
    return found[0]
