"""Networks over trees: a node's state depends on its label and on its children's states.

All trees of a batch are processed together, level by level inside the compiled program, from the
arrays of `jdl.data.tree_batches.pad_trees`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jdl.core.errors import did_you_mean, error
from jdl.models.layers import primitives

Inputs = Mapping[str, jax.Array]
"""A batch of `jdl.data.tree_batches.pad_trees`."""


class Cell(NamedTuple):
    """A cell over trees. `signal` is a linear map of a node's label, (..., signals).

    The first `features` entries of a state are the node's output.
    """

    leaf: Callable[[jax.Array], jax.Array]
    """`leaf(signal) -> state`."""
    node: Callable[[jax.Array, jax.Array], jax.Array]
    """`node(signal, children) -> state`; children (..., arity, state), 0 for a missing child."""


def node_states(cell: Cell, signal: jax.Array, children: jax.Array) -> jax.Array:
    """States of all nodes (batch, nodes, state), from their signals (batch, nodes, signals).

    `children` (batch, levels, width, arity) are indices into the leaves and the level below.
    """
    batch, levels, width = children.shape[:3]
    leaves = signal.shape[1] - levels * width
    bottom = cell.leaf(signal[:, :leaves])
    inner = signal[:, leaves:].reshape(batch, levels, width, -1)

    def level(below: jax.Array, xs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        signal, indices = xs
        lower = jnp.concatenate([bottom, below], 1)
        nodes = jax.vmap(lambda states, index: states[index])(lower, jnp.maximum(indices, 0))
        states = cell.node(signal, jnp.where(indices[..., None] >= 0, nodes, 0))
        return states, states

    empty = jnp.zeros((batch, width, bottom.shape[-1]), bottom.dtype)
    _, above = jax.lax.scan(level, empty, (inner.swapaxes(0, 1), children.swapaxes(0, 1)))
    above = above.swapaxes(0, 1).reshape(batch, levels * width, -1)
    return jnp.concatenate([bottom, above], 1)


def recursive_cell(kernel: jax.Array, activation: Callable[[jax.Array], jax.Array]) -> Cell:
    """The plain recursive cell; `kernel` (arity · features, features)."""

    def node(signal: jax.Array, children: jax.Array) -> jax.Array:
        return activation(signal + _concatenate(children) @ kernel)

    return Cell(activation, node)


def child_sum_cell(gates: jax.Array, forget: jax.Array) -> Cell:
    """The child-sum LSTM cell; `gates` (features, 3 · features), `forget` (features, features).

    Signals are those of input, output, update and forget gate. A state is (h, c, U h): each child
    computes its term of the parent's forget gate once, rather than once for each slot.
    """

    def state(signal: jax.Array, retained: jax.Array | float) -> jax.Array:
        input_gate, output_gate, update = jnp.split(signal, 3, -1)
        memory = nn.sigmoid(input_gate) * jnp.tanh(update) + retained
        hidden = nn.sigmoid(output_gate) * jnp.tanh(memory)
        return jnp.concatenate([hidden, memory, _matmul(hidden, forget)], -1)

    def node(signal: jax.Array, children: jax.Array) -> jax.Array:
        hidden, memory, forget_terms = jnp.split(children, 3, -1)
        signal, forget_signal = _split(signal, 3)
        retained = nn.sigmoid(forget_signal[..., None, :] + forget_terms) * memory
        return state(signal + _matmul(hidden.sum(-2), gates), retained.sum(-2))

    return Cell(lambda signal: state(_split(signal, 3)[0], 0.0), node)


def nary_cell(kernel: jax.Array, arity: int) -> Cell:
    """The N-ary LSTM cell; `kernel` (arity · features, (3 + arity) · features).

    Signals are those of input, output, update and forget gate. A state is (h, c).
    """

    def state(signal: jax.Array, retained: jax.Array | float) -> jax.Array:
        input_gate, output_gate, update = jnp.split(signal, 3, -1)
        memory = nn.sigmoid(input_gate) * jnp.tanh(update) + retained
        return jnp.concatenate([nn.sigmoid(output_gate) * jnp.tanh(memory), memory], -1)

    def node(signal: jax.Array, children: jax.Array) -> jax.Array:
        hidden, memory = jnp.split(children, 2, -1)
        signal, forget_signal = _split(signal, 3)
        recurrent, forget_terms = _split(_concatenate(hidden) @ kernel, 3, 3 + arity)
        forget = forget_signal[..., None, :] + forget_terms.reshape(memory.shape)
        return state(signal + recurrent, (nn.sigmoid(forget) * memory).sum(-2))

    return Cell(lambda signal: state(_split(signal, 3)[0], 0.0), node)


class _TreeNet(nn.Module):
    """Shared parts of the networks: label embedding, recursion over levels, output layer."""

    features: int = 128
    outputs: int = 10
    vocabulary: int | None = None
    embedding: int = 64
    at: str = "root"

    def _apply_cell(self, cell: Cell, signals: int, inputs: Inputs) -> jax.Array:
        """The outputs of a batch; call it once, within the compact `__call__`."""
        x, present, children = inputs["x"], inputs["present"], inputs["children"]
        if self.vocabulary is not None:
            _check_tokens(x)
            x = primitives.Embed(self.vocabulary, self.embedding, name="embed")(x)
        else:
            # The padding may hold nan, which must not reach the gradient.
            x = jnp.where(present[..., None] != 0, x, 0)
        states = node_states(cell, primitives.Dense(signals, name="labels")(x), children)
        hidden, width = states[..., : self.features], children.shape[2]
        states_at = {"root": hidden[:, -width], "roots": hidden[:, -width:], "nodes": hidden}
        if self.at not in states_at:
            raise error(
                "at",
                expected=" or ".join(states_at),
                got=repr(self.at),
                fix=did_you_mean(self.at, states_at),
            )
        return primitives.Dense(self.outputs, name="output")(states_at[self.at])


class RvNN(_TreeNet):
    r"""A plain recursive network over trees (Socher et al. 2011).

    $h = \phi(W x + b + \sum_k U_k h_k)$ for a node with label vector x and children k = 1, 2, ...;
    each child position has its own matrix, and a missing child adds nothing.

    Inputs are a batch of `jdl.data.tree_batches.pad_trees`: a dict with `x`, `children` and
    `present`. With a `vocabulary`, x are integers (batch, nodes), embedded in `embedding`
    dimensions; without, vectors (batch, nodes, channels). `at` selects the outputs: `"root"`
    (batch, outputs); `"roots"` (batch, width, outputs), for several trees packed into one example;
    or `"nodes"` (batch, nodes, outputs).

    Raises `InputError` at `init` for labels that are not integers with a `vocabulary`, and an
    unknown `at` or `activation`.

    >>> from jdl.data import tree_batches, trees
    >>> from jdl.models import from_linen
    >>> batch = tree_batches.pad_trees([trees.from_nested((2, 0, (2, 0, 1))), trees.from_nested(1)])
    >>> model = from_linen(RvNN(8, outputs=3, vocabulary=3))
    >>> params, model_state = model.init(jax.random.key(0), batch)
    >>> model.apply(params, model_state, batch)[0].shape
    (2, 3)
    """

    activation: str = "tanh"

    @nn.compact
    def __call__(self, inputs: Inputs) -> jax.Array:
        """Return the outputs, of the shape that `at` selects."""
        arity = inputs["children"].shape[-1]
        shape = (arity * self.features, self.features)
        kernel = self.param("children_kernel", primitives.INITIALIZERS["lecun"], shape, jnp.float32)
        cell = recursive_cell(kernel, primitives.activation(self.activation).function)
        return self._apply_cell(cell, self.features, inputs)


class ChildSumTreeLSTM(_TreeNet):
    r"""An LSTM over trees that sums the children's states, in any order (Tai et al. 2015, eq. 2-8).

    With $\tilde h = \sum_k h_k$: $i, o = \sigma(W x + U \tilde h + b)$,
    $u = \tanh(W x + U \tilde h + b)$, a forget gate for each child,
    $f_k = \sigma(W x + U h_k + b)$, then $c = i \odot u + \sum_k f_k \odot c_k$ and
    $h = o \odot \tanh c$.

    Inputs and output shapes are those of `RvNN`. The number of parameters does not depend on the
    arity. Raises `InputError` as `RvNN` does.

    >>> from jdl.data import tree_batches, trees
    >>> from jdl.models import from_linen
    >>> batch = tree_batches.pad_trees([trees.from_nested((2, 0, (2, 0, 1))), trees.from_nested(1)])
    >>> model = from_linen(ChildSumTreeLSTM(8, outputs=3, vocabulary=3))
    >>> params, model_state = jax.eval_shape(model.init, jax.random.key(0), batch)
    >>> jax.eval_shape(model.apply, params, model_state, batch)[0].shape
    (2, 3)
    """

    @nn.compact
    def __call__(self, inputs: Inputs) -> jax.Array:
        """Return the outputs, of the shape that `at` selects."""
        init, width = primitives.INITIALIZERS["lecun"], self.features
        gates = self.param("sum_kernel", init, (width, 3 * width), jnp.float32)
        forget = self.param("forget_kernel", init, (width, width), jnp.float32)
        return self._apply_cell(child_sum_cell(gates, forget), 4 * width, inputs)


class NaryTreeLSTM(_TreeNet):
    r"""An LSTM over trees with weights for each child position (Tai et al. 2015, eq. 9-14).

    $i, o = \sigma(W x + \sum_l U_l h_l + b)$, $u = \tanh(W x + \sum_l U_l h_l + b)$,
    $f_k = \sigma(W x + \sum_l U_{kl} h_l + b)$, $c = i \odot u + \sum_k f_k \odot c_k$,
    $h = o \odot \tanh c$; a missing child adds nothing.

    Inputs and output shapes are those of `RvNN`. Raises `InputError` as `RvNN` does.

    >>> from jdl.data import tree_batches, trees
    >>> from jdl.models import from_linen
    >>> batch = tree_batches.pad_trees([trees.from_nested((2, 0, (2, 0, 1))), trees.from_nested(1)])
    >>> model = from_linen(NaryTreeLSTM(8, outputs=3, vocabulary=3, at="nodes"))
    >>> params, model_state = jax.eval_shape(model.init, jax.random.key(0), batch)
    >>> jax.eval_shape(model.apply, params, model_state, batch)[0].shape == (*batch["x"].shape, 3)
    True
    """

    @nn.compact
    def __call__(self, inputs: Inputs) -> jax.Array:
        """Return the outputs, of the shape that `at` selects."""
        arity, width = inputs["children"].shape[-1], self.features
        shape = (arity * width, (3 + arity) * width)
        kernel = self.param("children_kernel", primitives.INITIALIZERS["lecun"], shape, jnp.float32)
        return self._apply_cell(nary_cell(kernel, arity), 4 * width, inputs)


def _check_tokens(x: Any) -> None:
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise error(
            "x of trees",
            expected="integer labels, because the network has a vocabulary",
            got=f"{x.dtype} of shape {x.shape}",
            fix="encode labels with jdl.data.trees.encode_labels, or leave out vocabulary",
        )


def _matmul(values: jax.Array, kernel: jax.Array) -> jax.Array:
    """Multiply over the last axis, as one product of two matrices."""
    flat = values.reshape(-1, values.shape[-1])
    return (flat @ kernel).reshape(*values.shape[:-1], kernel.shape[-1])


def _concatenate(children: jax.Array) -> jax.Array:
    """Concatenate the children's states (..., arity, n) to (..., arity · n)."""
    return children.reshape(*children.shape[:-2], -1)


def _split(values: jax.Array, first: int, parts: int = 4) -> tuple[jax.Array, jax.Array]:
    """Split the last axis of `parts` equal blocks after the `first` blocks."""
    at = values.shape[-1] // parts * first
    return values[..., :at], values[..., at:]
