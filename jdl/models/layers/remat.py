"""Rematerialisation: compute activations again in the backward pass instead of keeping them."""

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
    """The class of a block that keeps, for its backward pass, only what `policy` says.

    - `"none"`: every activation, as without;
    - `"dots"`: its inputs and the results of its dense layers; what lies between (normalisation,
      activations, attention weights) is computed again;
    - `"full"`: its inputs only. The whole block is computed twice, a third more arithmetic, and a
      network of n blocks keeps n inputs and the activations of one block.

    Parameters keep their names and the numbers stay the same up to rounding. `train_at` is the
    place of `train` among the arguments of its call, which is no array (Chen et al. 2016,
    "Training deep nets with sublinear memory cost").
    """
    if check_one_of("remat", policy, ("none", *POLICIES)) == "none":
        return block
    return nn.remat(block, policy=POLICIES[policy], static_argnums=(train_at + 1,))
