"""Tables of the arrays of a model, task or learner, without running it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from jdl.core import tree
from jdl.core.errors import error
from jdl.core.text import align_columns, format_bytes, format_shape
from jdl.core.types import Learner, Model, PyTree, Task


class Leaf(NamedTuple):
    """One array: its path, shape, type and number of elements."""

    path: str
    shape: tuple[int, ...]
    dtype: Any
    size: int

    @property
    def bytes(self) -> int:
        """Size in bytes."""
        return self.size * self.dtype.itemsize


@dataclass(frozen=True)
class Summary:
    """The arrays of a model, task or learner; `print` shows them as a table."""

    parameters: tuple[Leaf, ...]
    """The trainable parameters, with those of all members of an ensemble."""
    model_state: tuple[Leaf, ...]
    """Arrays without a gradient, such as batch statistics."""
    optimizer: tuple[Leaf, ...]
    """The optimizer's state: moments and counts; empty for a model or task."""
    extra: tuple[Leaf, ...]
    """The state of learner transforms, such as the average of `ema`."""
    inputs: tuple[Leaf, ...]
    outputs: tuple[Leaf, ...]

    @property
    def count(self) -> int:
        """Number of trainable parameters."""
        return _size(self.parameters)

    @property
    def model_state_count(self) -> int:
        """Number of elements of the model state."""
        return _size(self.model_state)

    @property
    def bytes(self) -> int:
        """Size in bytes of everything but inputs and outputs; activations come on top."""
        state = (*self.parameters, *self.model_state, *self.optimizer, *self.extra)
        return sum(leaf.bytes for leaf in state)

    def __str__(self) -> str:
        lines = [("parameter", "shape", "type", "count"), *map(_cells, self.parameters)]
        if self.model_state:
            lines += [("model state", "shape", "type", "count"), *map(_cells, self.model_state)]
        body = align_columns(lines)
        rule = "-" * len(body[0])
        if self.model_state:
            body.insert(len(self.parameters) + 2, rule)
        body.insert(1, rule)
        totals = [("inputs", _shapes(self.inputs)), ("outputs", _shapes(self.outputs))]
        totals.append(("parameters", _total(self.parameters)))
        totals.append(("model state", _total(self.model_state)))
        totals += [("optimizer", _total(self.optimizer))] if self.optimizer else []
        totals += [("transforms", _total(self.extra))] if self.extra else []
        return "\n".join([*body, rule, *(f"{name:<12}{value}" for name, value in totals)])


def summary(thing: Model | Task | Learner, batch: Any) -> Summary:
    """List every array of a model, task or learner with its shape, type and size.

    `batch` is a training batch, as arrays or `jax.ShapeDtypeStruct`; for a model, it may be the
    inputs alone. Only shapes are computed: nothing runs and no memory is allocated, however large
    the model. Raises `InputError` for another kind of `thing`, or a batch without arrays.

    >>> import jdl, numpy as np
    >>> model = jdl.from_linen(jdl.models.CNN())
    >>> table = jdl.summary(model, {"x": np.zeros((1, 28, 28, 1), np.float32)})
    >>> table.count
    225034
    >>> print(table)
    parameter       shape      type       count
    -------------------------------------------
    conv_1/bias     32         float32       32
    conv_1/kernel   3x3x1x32   float32      288
    conv_2/bias     64         float32       64
    conv_2/kernel   3x3x32x64  float32   18,432
    dense_1/bias    128        float32      128
    dense_1/kernel  1600x128   float32  204,800
    output/bias     10         float32       10
    output/kernel   128x10     float32    1,280
    -------------------------------------------
    inputs      1x28x28x1 float32
    outputs     1x10 float32
    parameters  225,034 (900.1 kB)
    model state 0 (0 bytes)
    """
    batch = jax.tree.map(_abstract, batch)
    key = tree.any_key()
    optimizer, extra = (), {}
    if isinstance(thing, Model):
        inputs = batch["x"] if isinstance(batch, Mapping) and "x" in batch else batch
        params, model_state = jax.eval_shape(thing.init, key, inputs)
        outputs, _ = jax.eval_shape(thing.apply, params, model_state, inputs)
    elif isinstance(thing, Task):
        inputs = batch
        params, model_state = jax.eval_shape(thing.init, key, batch)
        outputs = jax.eval_shape(thing.predict, params, model_state, batch)
    elif isinstance(thing, Learner):
        inputs = batch
        state = jax.eval_shape(thing.init, key, batch)
        params, model_state = state.params, state.model_state
        optimizer, extra = state.opt_state, state.extra
        outputs = jax.eval_shape(thing.predict, state, batch)
    else:
        raise error(
            "summary",
            expected="a jdl.Model, jdl.Task or jdl.Learner",
            got=type(thing).__name__,
            fix="wrap a module: jdl.from_linen(module) or jdl.from_nnx(build)",
        )
    return Summary(*map(_leaves, (params, model_state, optimizer, extra, inputs, outputs)))


def _abstract(value: Any) -> jax.ShapeDtypeStruct:
    """The shape and type that JAX would give an array."""
    dtype = getattr(value, "dtype", None)
    if dtype is None or getattr(dtype, "kind", "") in "OSUM":
        raise error(
            "batch",
            expected="numeric arrays, or jax.ShapeDtypeStruct",
            got=type(value).__name__ if dtype is None else f"an array of {dtype}",
            fix='pass a batch such as {"x": np.zeros((1, 28, 28, 1), np.float32)}',
        )
    if not tree.is_key(value):
        dtype = jax.dtypes.canonicalize_dtype(dtype)
    return jax.ShapeDtypeStruct(value.shape, dtype)


def _leaves(values: PyTree) -> tuple[Leaf, ...]:
    """The arrays of a tree by name, layer 2 before layer 10."""
    leaves = [
        Leaf(path or "(all)", tuple(leaf.shape), leaf.dtype, leaf.size)
        for path, leaf in tree.flatten(values).items()
    ]
    return tuple(sorted(leaves, key=lambda leaf: _natural_order(leaf.path)))


def _natural_order(path: str) -> list[tuple[str, int]]:
    parts = re.findall(r"(\D*)(\d*)", path)
    return [(text, int(digits or -1)) for text, digits in parts]


def _size(leaves: Sequence[Leaf]) -> int:
    return sum(leaf.size for leaf in leaves)


def _cells(leaf: Leaf) -> tuple[str, str, str, str]:
    return leaf.path, format_shape(leaf.shape), str(leaf.dtype), f"{leaf.size:,}"


def _shapes(leaves: Sequence[Leaf]) -> str:
    single = len(leaves) == 1
    return ", ".join(
        f"{'' if single else leaf.path + ' '}{format_shape(leaf.shape)} {leaf.dtype}"
        for leaf in leaves
    )


def _total(leaves: Sequence[Leaf]) -> str:
    return f"{_size(leaves):,} ({format_bytes(sum(leaf.bytes for leaf in leaves))})"
