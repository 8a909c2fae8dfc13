"""Mixed precision: compute in bfloat16, keep in float32."""

from typing import Any

import jax
import jax.numpy as jnp

from jdl.core import tree
from jdl.core.errors import error
from jdl.core.types import Key, Model, PyTree


def precision(model: Model, dtype: str = "bfloat16") -> Model:
    r"""The same model, computed in `dtype`: `"bfloat16"`, or `"float32"` for the model as it is.

    Parameters and inputs are rounded to bfloat16 as they enter, $y = f(r(\theta), r(x))$, so that
    products and activations take half the bytes; integers, and the model state (running
    statistics), stay as they are. Outputs are given back in float32: the loss, its log-sum-exp
    and the metrics are those of a float32 model. So are the means and variances of the
    normalisation layers and the softmax of attention, whose layers sum in float32 whatever they
    are given.

    The parameters themselves stay float32, and so do their gradients, moments and averages: small
    updates are not lost. bfloat16 has float32's range, so no loss is scaled (float16 would need
    it, and is refused). Micikevicius et al., "Mixed precision training", 2018; Kalamkar et al.,
    "A study of bfloat16 for deep learning training", 2019.

    >>> from jdl.models import MLP, from_linen
    >>> model = precision(from_linen(MLP((4,), outputs=3)))
    >>> params, model_state = model.init(jax.random.key(0), jnp.ones((5, 2)))
    >>> outputs, _ = model.apply(params, model_state, jnp.ones((5, 2)))
    >>> params["output"]["kernel"].dtype, outputs.dtype
    (dtype('float32'), dtype('float32'))
    """
    if dtype == "float32":
        return model
    if dtype != "bfloat16":
        raise error(
            "precision",
            expected='"float32" or "bfloat16"',
            got=repr(dtype),
            fix="take bfloat16: it has float32's range, where float16 would underflow",
        )

    def apply(
        params: PyTree,
        model_state: PyTree,
        inputs: PyTree,
        *,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[PyTree, PyTree]:
        low = jax.tree.map(_rounded, (params, inputs))
        outputs, changed = model.apply(low[0], model_state, low[1], key=key, train=train)
        changed = jax.tree.map(lambda new, old: new.astype(old.dtype), changed, model_state)
        return jax.tree.map(_widened, outputs), changed

    return Model(model.init, apply)


def _rounded(leaf: Any) -> Any:
    return jnp.asarray(leaf, jnp.bfloat16) if tree.is_float(leaf) else leaf


def _widened(leaf: Any) -> Any:
    return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)) if tree.is_float(leaf) else leaf
