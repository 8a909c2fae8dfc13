"""Networks over trees: a node's state is computed from its label and its children's states.

All trees of a batch are climbed together, level by level inside the compiled program, from the
arrays of `jdl.data.tree_batches.pad_trees`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jdl.core.errors import did_you_mean, error
from jdl.models.layers import primitives

Inputs = dict[str, Any]


class Cell(NamedTuple):
    """How a node's state comes about; `signal` is a linear map of its label, [..., signals].

    The first `features` numbers of a state are the node's output.
    """

    leaf: Callable[[jax.Array], jax.Array]
    """`leaf(signal) -> state`."""
    node: Callable[[jax.Array, jax.Array], jax.Array]
    """`node(signal, children) -> state` from states [..., arity, state], 0 where no child is."""


def climb(cell: Cell, signal: jax.Array, children: jax.Array) -> jax.Array:
    """The state of every node, [batch, nodes, state], from its signal [batch, nodes, signals].

    `children` [batch, levels, width, arity] are places among the leaves or the level below.
    """
    batch, levels, width = children.shape[:3]
    leaves = signal.shape[1] - levels * width
    bottom = cell.leaf(signal[:, :leaves])
    inner = signal[:, leaves:].reshape(batch, levels, width, -1)

    def level(below: jax.Array, at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        own, places = at
        known = jnp.concatenate([bottom, below], 1)
        found = jax.vmap(lambda states, index: states[index])(known, jnp.maximum(places, 0))
        states = cell.node(own, jnp.where(places[..., None] >= 0, found, 0))
        return states, states

    empty = jnp.zeros((batch, width, bottom.shape[-1]), bottom.dtype)
    _, above = jax.lax.scan(level, empty, (inner.swapaxes(0, 1), children.swapaxes(0, 1)))
    above = above.swapaxes(0, 1).reshape(batch, levels * width, -1)
    return jnp.concatenate([bottom, above], 1)


def recursive_cell(kernel: jax.Array, activation: Callable[[jax.Array], jax.Array]) -> Cell:
    """The plain cell; `kernel` [arity · features, features]."""

    def node(signal: jax.Array, children: jax.Array) -> jax.Array:
        return activation(signal + _joined(children) @ kernel)

    return Cell(activation, node)


def child_sum_cell(gates: jax.Array, forget: jax.Array) -> Cell:
    """The child-sum LSTM cell; `gates` [features, 3 · features], `forget` [features, features].

    Signals are those of input, output, update and forget gate. A state is (h, c, U h): the child
    computes its part of the parent's forget gate once, in place of once for each free slot.
    """

    def state(signal: jax.Array, kept: jax.Array | float) -> jax.Array:
        enter, leave, update = jnp.split(signal, 3, -1)
        memory = nn.sigmoid(enter) * jnp.tanh(update) + kept
        hidden = nn.sigmoid(leave) * jnp.tanh(memory)
        return jnp.concatenate([hidden, memory, _times(hidden, forget)], -1)

    def node(signal: jax.Array, children: jax.Array) -> jax.Array:
        hidden, memory, remembered = jnp.split(children, 3, -1)
        own, gate = _split(signal, 3)
        kept = nn.sigmoid(gate[..., None, :] + remembered) * memory
        return state(own + _times(hidden.sum(-2), gates), kept.sum(-2))

    return Cell(lambda signal: state(_split(signal, 3)[0], 0.0), node)


def nary_cell(kernel: jax.Array, arity: int) -> Cell:
    """The N-ary LSTM cell; `kernel` [arity · features, (3 + arity) · features].

    Signals are those of input, output, update and forget gate. A state is (h, c).
    """

    def state(signal: jax.Array, kept: jax.Array | float) -> jax.Array:
        enter, leave, update = jnp.split(signal, 3, -1)
        memory = nn.sigmoid(enter) * jnp.tanh(update) + kept
        return jnp.concatenate([nn.sigmoid(leave) * jnp.tanh(memory), memory], -1)

    def node(signal: jax.Array, children: jax.Array) -> jax.Array:
        hidden, memory = jnp.split(children, 2, -1)
        own, gate = _split(signal, 3)
        shared, gates = _split(_joined(hidden) @ kernel, 3, 3 + arity)
        forget = gate[..., None, :] + gates.reshape(memory.shape)
        return state(own + shared, (nn.sigmoid(forget) * memory).sum(-2))

    return Cell(lambda signal: state(_split(signal, 3)[0], 0.0), node)


class _TreeNet(nn.Module):
    """What the networks share: labels to signals, up the tree, hidden states to outputs."""

    features: int = 128
    outputs: int = 10
    vocabulary: int | None = None
    embedding: int = 64
    at: str = "root"

    def climbed(self, cell: Cell, signals: int, inputs: Inputs) -> jax.Array:
        """The outputs of a batch; called once, within the compact `__call__`."""
        x, present, children = inputs["x"], inputs["present"], inputs["children"]
        if self.vocabulary is not None:
            _check_tokens(x)
            x = primitives.Embed(self.vocabulary, self.embedding, name="embed")(x)
        else:
            # Whatever stands in the padding, nan too, must not reach the weights' gradient.
            x = jnp.where(present[..., None] != 0, x, 0)
        states = climb(cell, primitives.Dense(signals, name="labels")(x), children)
        hidden, width = states[..., : self.features], children.shape[2]
        places = {"root": hidden[:, -width], "roots": hidden[:, -width:], "nodes": hidden}
        if self.at not in places:
            raise error(
                "at",
                expected=" or ".join(places),
                got=repr(self.at),
                fix=did_you_mean(self.at, places),
            )
        return primitives.Dense(self.outputs, name="output")(places[self.at])


class RvNN(_TreeNet):
    r"""The plain recursive network (Socher et al. 2011).

    $h = \phi(W x + b + \sum_k U_k h_k)$ for a node with label vector x and children k = 1, 2, ...;
    each place has its own matrix, and a missing child adds nothing.

    Inputs are `x`, `children` and `present` as `jdl.data.tree_batches` makes them: x int [n, nodes]
    with a `vocabulary`, whose labels get vectors of `embedding` numbers, or float
    [n, nodes, d] without. Outputs are linear in h: [n, outputs] for `at="root"`, [n, width,
    outputs] for the packed `"roots"`, [n, nodes, outputs] for all `"nodes"`. For features n,
    embedding d and arity K it has (d + 1) n + K n² parameters beside embedding and output.

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
        """The outputs of a batch of trees."""
        arity = inputs["children"].shape[-1]
        shape = (arity * self.features, self.features)
        kernel = self.param("children_kernel", primitives.INITIALIZERS["lecun"], shape, jnp.float32)
        cell = recursive_cell(kernel, primitives.activation(self.activation).function)
        return self.climbed(cell, self.features, inputs)


class ChildSumTreeLSTM(_TreeNet):
    r"""The child-sum Tree-LSTM (Tai et al. 2015, equations 2 to 8): children in any order.

    With $\tilde h = \sum_k h_k$: $i, o = \sigma(W x + U \tilde h + b)$,
    $u = \tanh(W x + U \tilde h + b)$, a forget gate for each child,
    $f_k = \sigma(W x + U h_k + b)$, then $c = i \odot u + \sum_k f_k \odot c_k$ and
    $h = o \odot \tanh c$.

    Inputs and outputs are those of `RvNN`. For features n and embedding d it has
    4 (d + 1) n + 4 n² parameters beside embedding and output, whatever the arity.
    """

    @nn.compact
    def __call__(self, inputs: Inputs) -> jax.Array:
        """The outputs of a batch of trees."""
        make, width = primitives.INITIALIZERS["lecun"], self.features
        gates = self.param("sum_kernel", make, (width, 3 * width), jnp.float32)
        forget = self.param("forget_kernel", make, (width, width), jnp.float32)
        return self.climbed(child_sum_cell(gates, forget), 4 * width, inputs)


class NaryTreeLSTM(_TreeNet):
    r"""The N-ary Tree-LSTM (Tai et al. 2015, equations 9 to 14): each place has its matrices.

    $i, o = \sigma(W x + \sum_l U_l h_l + b)$, $u = \tanh(W x + \sum_l U_l h_l + b)$,
    $f_k = \sigma(W x + \sum_l U_{kl} h_l + b)$, $c = i \odot u + \sum_k f_k \odot c_k$,
    $h = o \odot \tanh c$; a missing child adds nothing.

    Inputs and outputs are those of `RvNN`. For features n, embedding d and arity K it has
    4 (d + 1) n + K (3 + K) n² parameters beside embedding and output.
    """

    @nn.compact
    def __call__(self, inputs: Inputs) -> jax.Array:
        """The outputs of a batch of trees."""
        arity, width = inputs["children"].shape[-1], self.features
        shape = (arity * width, (3 + arity) * width)
        kernel = self.param("children_kernel", primitives.INITIALIZERS["lecun"], shape, jnp.float32)
        return self.climbed(nary_cell(kernel, arity), 4 * width, inputs)


def _check_tokens(x: Any) -> None:
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise error(
            "x of trees",
            expected="integer labels, because the network has a vocabulary",
            got=f"{x.dtype} of shape {x.shape}",
            fix="number them with jdl.data.trees.encode_labels, or leave out vocabulary",
        )


def _times(values: jax.Array, kernel: jax.Array) -> jax.Array:
    """The product over the last axis, as one of two matrices."""
    flat = values.reshape(-1, values.shape[-1])
    return (flat @ kernel).reshape(*values.shape[:-1], kernel.shape[-1])


def _joined(children: jax.Array) -> jax.Array:
    """States [..., arity, n] of children side by side, [..., arity · n]."""
    return children.reshape(*children.shape[:-2], -1)


def _split(values: jax.Array, first: int, parts: int = 4) -> tuple[jax.Array, jax.Array]:
    """The first of so many equal parts of the last axis, and the rest."""
    at = values.shape[-1] // parts * first
    return values[..., :at], values[..., at:]
