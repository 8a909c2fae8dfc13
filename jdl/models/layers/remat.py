"""Rematerialisation: recompute activations in the backward pass instead of storing them."""

from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn

from jdl.core.errors import check_one_of

POLICIES: dict[str, Callable[..., Any]] = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


def rematerialize(block: type[nn.Module], policy: str, *, train_at: int) -> Any:
    """Return the class of a block that stores less for its backward pass (Chen et al. 2016).

    - `"none"`: stores every activation;
    - `"dots"`: stores its inputs and the results of its dense layers, and recomputes the rest
      (normalisation, activations, attention weights);
    - `"full"`: stores its inputs only. The block runs twice, a third more arithmetic, and a network
      of n blocks stores n inputs and the activations of one block.

    Names of parameters do not change, and results agree up to rounding. `train_at` is the position
    of `train` among the arguments of the block's call. Raises `InputError` for an unknown policy.
    """
    if check_one_of("remat", policy, ("none", *POLICIES)) == "none":
        return block
    return nn.remat(block, policy=POLICIES[policy], static_argnums=(train_at + 1,))
