"""Recommenders: predict a user's rating of an item from their two ids.

Inputs are integers (batch, 2), user and item id, counted from 1. Id 0 is one that training did
not contain, and adds nothing. Outputs are ratings (batch, 1).
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jdl.core.errors import error
from jdl.models.layers import primitives

_FACTOR_INIT = nn.initializers.normal(0.1)


class MatrixFactorization(nn.Module):
    r"""Matrix factorization with biases, $\hat r_{ui} = \mu + b_u + b_i + p_u \cdot q_i$.

    Inputs are integers (batch, 2), user and item id from 1; 0 is unknown. Outputs are ratings
    (batch, 1). `mean` is $\mu$, the mean rating of the training data; for an unknown user,
    $\mu + b_i$ remains. `factors` is the size of $p_u$ and $q_i$; 0 leaves the biases alone. Train
    it with a penalty on all parameters, biases too:
    `jdl.tasks.l2(task, 1e-2, where=lambda path, leaf: True)`, or weight decay.

    Raises `InputError` at `init` for inputs that are not integers (batch, 2). Koren, Bell and
    Volinsky, "Matrix factorization techniques for recommender systems", 2009.

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
        """Return ratings (batch, 1)."""
        _check_pairs(inputs)
        user, item = inputs[:, 0], inputs[:, 1]
        zeros = primitives.INITIALIZERS["zeros"]
        rating = self.mean + _IdEmbedding(self.users, 1, zeros, name="user_bias")(user)
        rating = rating + _IdEmbedding(self.items, 1, zeros, name="item_bias")(item)
        if self.factors:
            user_factors = _IdEmbedding(self.users, self.factors, name="user_factors")(user)
            item_factors = _IdEmbedding(self.items, self.factors, name="item_factors")(item)
            rating = rating + (user_factors * item_factors).sum(-1, keepdims=True)
        return rating


class NeuralCollaborativeFiltering(nn.Module):
    r"""Matrix factorization combined with an MLP, known as NeuMF (He et al. 2017).

    $\hat r_{ui} = \mu + w \cdot [\,p_u \odot q_i,\; \mathrm{MLP}(p'_u, q'_i)\,] + b$. The two parts
    have separate embeddings, of size `factors` and `embedding`; `features` are the widths of the
    MLP. Inputs and outputs are those of `MatrixFactorization`: integers (batch, 2) to ratings
    (batch, 1). The paper predicts whether a user picks an item; this output is linear, for ratings.
    `mean` is $\mu$, the mean rating of the training data.

    Raises `InputError` at `init` for inputs that are not integers (batch, 2) and an unknown
    `activation`.

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
        """Return ratings (batch, 1)."""
        _check_pairs(inputs)
        user, item = inputs[:, 0], inputs[:, 1]
        function = primitives.activation(self.activation).function
        kernel_init = primitives.initializer("matched", self.activation)
        user_factors = _IdEmbedding(self.users, self.factors, name="user_factors")(user)
        item_factors = _IdEmbedding(self.items, self.factors, name="item_factors")(item)
        x = jnp.concatenate(
            [
                _IdEmbedding(self.users, self.embedding, name="user_embedding")(user),
                _IdEmbedding(self.items, self.embedding, name="item_embedding")(item),
            ],
            -1,
        )
        for index, width in enumerate(self.features, start=1):
            x = function(primitives.Dense(width, kernel_init=kernel_init, name=f"dense_{index}")(x))
        x = jnp.concatenate([user_factors * item_factors, x], -1)
        return self.mean + primitives.Dense(1, name="output")(x)


class _IdEmbedding(nn.Module):
    """Embeddings of ids 1 to `size`; zeros for id 0."""

    size: int
    features: int
    embedding_init: primitives.Initializer = _FACTOR_INIT

    @nn.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        shape = (self.size, self.features)
        table = self.param("embedding", self.embedding_init, shape, jnp.float32)
        # An id above `size` gives nan, which training reports, not another id's embedding.
        rows = jnp.take(table, jnp.maximum(ids - 1, 0), axis=0, mode="fill")
        return jnp.where(ids[:, None] > 0, rows, 0)


def _check_pairs(inputs: Any) -> None:
    if inputs.ndim != 2 or inputs.shape[1] != 2 or not jnp.issubdtype(inputs.dtype, jnp.integer):
        raise error(
            "ratings",
            expected="integers of shape (batch, 2), user id and item id",
            got=f"{inputs.dtype} of shape {inputs.shape}",
            fix="load ratings with jdl.data.movielens, which assigns the ids",
        )
