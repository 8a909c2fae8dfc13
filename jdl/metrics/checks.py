"""Checks that labels fit the outputs of a model."""

from typing import Any

import jax.numpy as jnp

from jdl.core.errors import error


def check_same_shape(outputs: Any, targets: Any) -> None:
    """Raise `InputError` unless outputs and targets have the same shape.

    >>> check_same_shape(jnp.zeros((3, 1)), jnp.zeros(3))
    Traceback (most recent call last):
    jdl.core.errors.InputError: y
      expected: the outputs' shape (3, 1)
      got:      shape (3,)
      fix:      add a last axis: y[..., None]
    """
    shape, given = jnp.shape(outputs), jnp.shape(targets)
    if shape == given:
        return
    fix = "pass y of the shape of the model's outputs"
    if shape == (*given, 1):
        fix = "add a last axis: y[..., None]"
    elif given == (*shape, 1):
        fix = "drop the last axis: y[..., 0]"
    raise error("y", expected=f"the outputs' shape {shape}", got=f"shape {given}", fix=fix)


def class_indices(outputs: Any, labels: Any) -> Any:
    """Integer labels (batch, ...), from integer or one-hot ones; outputs (batch, ..., classes)."""
    if jnp.shape(labels) == jnp.shape(outputs):
        return labels.argmax(-1)
    check_integer_labels(outputs, labels)
    return jnp.asarray(labels)


def check_integer_labels(outputs: Any, labels: Any) -> None:
    """Raise `InputError` unless labels are integers (batch, ...) for logits (batch, ..., classes).

    >>> check_integer_labels(jnp.zeros((3, 2)), jnp.zeros((3, 1), int))
    Traceback (most recent call last):
    jdl.core.errors.InputError: y
      expected: integer class labels of shape (3,) for outputs of shape (3, 2)
      got:      int32 of shape (3, 1)
      fix:      drop the last axis: y[..., 0]
    """
    shape, given, dtype = jnp.shape(outputs), jnp.shape(labels), jnp.result_type(labels)
    if given == shape[:-1] and jnp.issubdtype(dtype, jnp.integer):
        return
    if given == shape:
        fix = "pass y.argmax(-1), or use loss=jdl.tasks.soft_cross_entropy"
    elif given == (*shape[:-1], 1):
        fix = "drop the last axis: y[..., 0]"
    elif given == shape[:-1]:
        fix = "pass y.astype(int); for labels 0 and 1 of one output use jdl.binary_classification"
    else:
        fix = "pass one label per example"
    raise error(
        "y",
        expected=f"integer class labels of shape {shape[:-1]} for outputs of shape {shape}",
        got=f"{dtype} of shape {given}",
        fix=fix,
    )
