"""What a mask leaves out of a batch: it reaches no check and no gradient."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jdl.core import tree
from jdl.core.types import Batch


def hide_masked(batch: Batch) -> Batch:
    """The batch with zeros where `x` and `y` are real and the mask is 0.

    What a masked example holds, even nan, must not reach the gradient, and zero times nan is nan.
    Of a mask with more axes than (batch,) only examples without any part that counts are hidden in
    `x`. In other entries only what is not finite becomes zero.

    >>> batch = {"x": jnp.array([jnp.nan, 2.0]), "mask": jnp.array([0, 1])}
    >>> hide_masked(batch)["x"].tolist()
    [0.0, 2.0]
    """
    if "mask" not in batch or jnp.ndim(batch["mask"]) == 0:
        return batch
    parts = jnp.asarray(batch["mask"]) == 0
    rows = parts.reshape(len(parts), -1).all(1)

    def hide(name: str, leaf: Any) -> Any:
        shape = jnp.shape(leaf)
        hidden = parts if name == "y" and shape[: parts.ndim] == parts.shape else rows
        if not tree.is_float(leaf) or shape[: hidden.ndim] != hidden.shape:
            return leaf
        hidden = hidden.reshape(hidden.shape + (1,) * (len(shape) - hidden.ndim))
        if name not in ("x", "y"):
            hidden = hidden & ~jnp.isfinite(leaf)
        return jnp.where(hidden, jnp.zeros((), jnp.result_type(leaf)), leaf)

    return {
        name: jax.tree.map(lambda leaf, name=name: hide(name, leaf), value)
        if name not in ("mask", "weight")
        else value
        for name, value in batch.items()
    }


def counted(name: str, batch: Batch) -> np.ndarray | None:
    """The values of an entry whose mask is not 0, as a vector; None where they are not known.

    >>> counted("y", {"y": np.array([[0, 1], [-1, -1]]), "mask": np.array([1, 0])}).tolist()
    [0, 1]
    """
    values, mask = batch[name], batch.get("mask")
    known = np.ndarray | jax.Array
    if not isinstance(values, known) or isinstance(values, Tracer) or isinstance(mask, Tracer):
        return None
    values = np.asarray(values)
    if mask is not None and values.shape[: np.ndim(mask)] == np.shape(mask):
        return values[np.asarray(mask) != 0].ravel()
    return values.ravel()
