"""Recommenders: how a user would rate an item, from who and which alone.

Inputs are int (batch, 2), user and item, numbered from 1; 0 is one that training never saw, and
adds nothing. Outputs are (batch, 1).
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jdl.core.errors import error
from jdl.models.layers import primitives

_SMALL = nn.initializers.normal(0.1)


class MatrixFactorization(nn.Module):
    r"""Biases and a product of factors (Koren et al. 2009).

    $\hat r_{ui} = \mu + b_u + b_i + p_u \cdot q_i$. `mean` is $\mu$, the mean rating of the
    training part; for an unknown user $\mu + b_i$ remains. `factors=0` leaves the biases alone.
    It has (users + items)(factors + 1) parameters. Train it with a penalty on all of them, biases
    too: `jdl.tasks.l2(task, 1e-2, where=lambda path, leaf: True)`, or a weight decay of optax.

    >>> from jdl.core import tree
    >>> from jdl.models import from_linen
    >>> model = from_linen(MatrixFactorization(users=30, items=20, factors=4, mean=3.5))
    >>> params, model_state = model.init(jax.random.key(0), jnp.array([[1, 1]]))
    >>> tree.count(params), model.apply(params, model_state, jnp.array([[0, 0]]))[0].tolist()
    (250, [[3.5]])
    """

    users: int
    items: int
    factors: int = 8
    mean: float = 0.0

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """The ratings that are expected, (batch, 1)."""
        _check_pairs(inputs)
        user, item = inputs[:, 0], inputs[:, 1]
        zeros = primitives.INITIALIZERS["zeros"]
        rating = self.mean + _Known(self.users, 1, zeros, name="user_bias")(user)
        rating = rating + _Known(self.items, 1, zeros, name="item_bias")(item)
        if self.factors:
            mine = _Known(self.users, self.factors, name="user_factors")(user)
            its = _Known(self.items, self.factors, name="item_factors")(item)
            rating = rating + (mine * its).sum(-1, keepdims=True)
        return rating


class NeuralCollaborativeFiltering(nn.Module):
    r"""Products of factors beside a multilayer perceptron (He et al. 2017, "NeuMF").

    $\hat r_{ui} = \mu + w \cdot [\,p_u \odot q_i,\; \mathrm{MLP}(p'_u, q'_i)\,] + b$: the two
    parts have embeddings of their own, of `factors` and of `embedding` numbers, and `features`
    are the widths of the perceptron. The paper's output is a probability of use; here it is
    linear, for ratings, and `mean` is the mean rating of the training part.

    >>> from jdl.models import from_linen
    >>> model = from_linen(NeuralCollaborativeFiltering(users=30, items=20))
    >>> params, model_state = model.init(jax.random.key(0), jnp.array([[1, 1]]))
    >>> model.apply(params, model_state, jnp.array([[3, 2], [0, 5]]))[0].shape
    (2, 1)
    """

    users: int
    items: int
    factors: int = 8
    embedding: int = 8
    features: Sequence[int] = (16, 8)
    mean: float = 0.0
    activation: str = "relu"

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """The ratings that are expected, (batch, 1)."""
        _check_pairs(inputs)
        user, item = inputs[:, 0], inputs[:, 1]
        function = primitives.activation(self.activation).function
        make = primitives.initializer("matched", self.activation)
        mine = _Known(self.users, self.factors, name="user_factors")(user)
        its = _Known(self.items, self.factors, name="item_factors")(item)
        x = jnp.concatenate(
            [
                _Known(self.users, self.embedding, name="user_embedding")(user),
                _Known(self.items, self.embedding, name="item_embedding")(item),
            ],
            -1,
        )
        for index, width in enumerate(self.features, start=1):
            x = function(primitives.Dense(width, kernel_init=make, name=f"dense_{index}")(x))
        both = jnp.concatenate([mine * its, x], -1)
        return self.mean + primitives.Dense(1, name="output")(both)


class _Known(nn.Module):
    """A vector for each number from 1 to `size`; zeros for 0."""

    size: int
    features: int
    start: primitives.Initializer = _SMALL

    @nn.compact
    def __call__(self, numbers: jax.Array) -> jax.Array:
        shape = (self.size, self.features)
        table = self.param("embedding", self.start, shape, jnp.float32)
        # A number beyond the table gives nan, which training refuses, and no other row's vector.
        found = jnp.take(table, jnp.maximum(numbers - 1, 0), axis=0, mode="fill")
        return jnp.where(numbers[:, None] > 0, found, 0)


def _check_pairs(inputs: Any) -> None:
    if inputs.ndim != 2 or inputs.shape[1] != 2 or not jnp.issubdtype(inputs.dtype, jnp.integer):
        raise error(
            "ratings",
            expected="integers of shape (batch, 2), user and item",
            got=f"{inputs.dtype} of shape {inputs.shape}",
            fix="read them with jdl.data.movielens, which numbers users and items",
        )
