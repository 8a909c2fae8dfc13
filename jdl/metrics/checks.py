"""Checks that labels fit the outputs of a model."""

from typing import Any

import jax.numpy as jnp

from jdl.core.errors import error


def check_same_shape(outputs: Any, targets: Any) -> None:
    """Raise unless outputs and targets have one shape: (n,) against (n, 1) would broadcast."""
    found, given = jnp.shape(outputs), jnp.shape(targets)
    if found == given:
        return
    fix = "give y the shape of the model's outputs"
    if found == (*given, 1):
        fix = "give y a last axis of one: y[..., None]"
    elif given == (*found, 1):
        fix = "drop y's last axis: y[..., 0]"
    raise error("y", expected=f"shape {found}, as the outputs", got=f"shape {given}", fix=fix)


def class_indices(outputs: Any, labels: Any) -> Any:
    """Labels as integers of shape (batch, ...), for outputs (batch, ..., classes)."""
    if jnp.shape(labels) == jnp.shape(outputs):
        return labels.argmax(-1)
    check_integer_labels(outputs, labels)
    return jnp.asarray(labels)


def check_integer_labels(outputs: Any, labels: Any) -> None:
    """Raise unless labels are integers (batch, ...) for outputs (batch, ..., classes)."""
    shape, given, dtype = jnp.shape(outputs), jnp.shape(labels), jnp.result_type(labels)
    if given == shape[:-1] and jnp.issubdtype(dtype, jnp.integer):
        return
    if given == shape:
        fix = "give integers, y.argmax(-1), or use loss=jdl.tasks.soft_cross_entropy"
    elif given == (*shape[:-1], 1):
        fix = "drop the last axis: y[..., 0]"
    elif given == shape[:-1]:
        fix = "give whole numbers: y.astype(int); for 0/1 labels of one output see "
        fix += "jdl.tasks.binary_classification"
    else:
        fix = "give one label for each row of outputs"
    raise error(
        "y",
        expected=f"integer class labels of shape {shape[:-1]} for outputs of shape {shape}",
        got=f"{dtype} of shape {given}",
        fix=fix,
    )
