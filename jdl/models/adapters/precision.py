"""Mixed precision: compute in bfloat16, keep parameters in float32."""

from typing import Any

import jax
import jax.numpy as jnp

from jdl.core import tree
from jdl.core.errors import error
from jdl.core.nouns import check_model
from jdl.core.types import Key, Model, PyTree


def precision(model: Model, dtype: str = "bfloat16") -> Model:
    r"""Compute a model in `dtype`, `"bfloat16"` or `"float32"` (Micikevicius et al. 2018).

    Parameters and inputs are rounded to bfloat16 on entry, $y = f(r(\theta), r(x))$, so products
    and activations take half the bytes. Integers and `model_state` are not rounded. Outputs are
    float32, so the loss and the metrics are computed in float32, as are the means and variances of
    normalisation layers and the softmax of attention. Shapes do not change.

    Parameters, gradients and optimizer state stay float32, so small updates are not lost. bfloat16
    has the range of float32, so the loss needs no scaling (Kalamkar et al. 2019, "A study of
    bfloat16 for deep learning training"). `"float32"` returns the model unchanged. Raises
    `InputError` for any other dtype, float16 included.

    >>> from jdl.models import MLP, from_linen
    >>> model = precision(from_linen(MLP((4,), outputs=3)))
    >>> params, model_state = model.init(jax.random.key(0), jnp.ones((5, 2)))
    >>> outputs, _ = model.apply(params, model_state, jnp.ones((5, 2)))
    >>> params["output"]["kernel"].dtype, outputs.dtype
    (dtype('float32'), dtype('float32'))
    """
    check_model(model, "precision: model")
    if dtype == "float32":
        return model
    if dtype != "bfloat16":
        raise error(
            "precision",
            expected='"float32" or "bfloat16"',
            got=repr(dtype),
            fix="pass bfloat16: it has the range of float32, where float16 would underflow",
        )

    def apply(
        params: PyTree,
        model_state: PyTree,
        inputs: PyTree,
        *,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[PyTree, PyTree]:
        params, inputs = jax.tree.map(_to_bfloat16, (params, inputs))
        outputs, new_state = model.apply(params, model_state, inputs, key=key, train=train)
        new_state = jax.tree.map(lambda new, old: new.astype(old.dtype), new_state, model_state)
        return jax.tree.map(_to_float32, outputs), new_state

    return Model(model.init, apply)


def _to_bfloat16(leaf: Any) -> Any:
    return jnp.asarray(leaf, jnp.bfloat16) if tree.is_float(leaf) else leaf


def _to_float32(leaf: Any) -> Any:
    return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)) if tree.is_float(leaf) else leaf
