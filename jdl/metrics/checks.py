"""Checks that labels fit the outputs of a model."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp

from jdl.core.errors import error
from jdl.core.nouns import describe


def check_one_array(outputs: Any, user: str = "this loss or metric") -> None:
    """Raise `InputError` unless a model's outputs are one array of real numbers, as `user` takes.

    >>> check_one_array((jnp.zeros((3, 1)), jnp.zeros(3)), "regression")
    Traceback (most recent call last):
    jdl.core.errors.InputError: outputs of the model
      expected: one array of real numbers, as regression takes
      got:      a tuple of 2
      fix:      pass loss= and metrics= for such outputs, or write a jdl.Task(init, loss, predict)
    """
    fix = "pass loss= and metrics= for such outputs, or write a jdl.Task(init, loss, predict)"
    if not (hasattr(outputs, "shape") and hasattr(outputs, "dtype")):
        got = describe(outputs)
    elif jnp.iscomplexobj(outputs):
        got = f"complex values, {outputs.dtype}"
        fix = "pass real inputs: np.concatenate([x.real, x.imag], -1)"
    else:
        return
    expected = f"one array of real numbers, as {user} takes"
    raise error("outputs of the model", expected=expected, got=got, fix=fix)


def check_named_outputs(outputs: Any, names: Iterable[str], user: str, fix: str) -> None:
    """Raise `InputError` unless the outputs of a model are a dict with all of `names`.

    >>> check_named_outputs({"mean": 0}, ["mean"], "variational", "")
    """
    names = list(names)
    if isinstance(outputs, Mapping) and all(name in outputs for name in names):
        return
    raise error(
        "outputs of the model",
        expected=f"a dict of {', '.join(names)}, as {user} takes",
        got=describe(outputs),
        fix=fix,
    )


def check_same_shape(outputs: Any, targets: Any) -> None:
    """Raise `InputError` unless outputs and targets are arrays of the same shape.

    >>> check_same_shape(jnp.zeros((3, 1)), jnp.zeros(3))
    Traceback (most recent call last):
    jdl.core.errors.InputError: y
      expected: the outputs' shape (3, 1)
      got:      shape (3,)
      fix:      add a last axis: y[..., None]
    """
    check_one_array(outputs)
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
    check_one_array(outputs)
    if jnp.shape(labels) == jnp.shape(outputs):
        return labels.argmax(-1)
    check_integer_labels(outputs, labels)
    labels = jnp.asarray(labels)
    return labels.astype(jnp.int32) if labels.dtype == bool else labels


def check_integer_labels(outputs: Any, labels: Any) -> None:
    """Raise `InputError` unless labels are integers (batch, ...) for logits (batch, ..., classes).

    >>> check_integer_labels(jnp.zeros((3, 2)), jnp.zeros((3, 1), int))
    Traceback (most recent call last):
    jdl.core.errors.InputError: y
      expected: integer class labels of shape (3,) for outputs of shape (3, 2)
      got:      int32 of shape (3, 1)
      fix:      drop the last axis: y[..., 0]
    """
    check_one_array(outputs)
    shape, given, dtype = jnp.shape(outputs), jnp.shape(labels), jnp.result_type(labels)
    if given == shape[:-1] and any(
        jnp.issubdtype(dtype, kind) for kind in (jnp.integer, jnp.bool_)
    ):
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
