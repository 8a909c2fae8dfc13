"""Contrastive learning: recognise two random views of the same example (SimCLR)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jdl import metrics as measures
from jdl.core.errors import error, require_key
from jdl.core.nouns import check_model
from jdl.core.types import Batch, Key, Mean, Metrics, Model, PyTree, Task
from jdl.metrics.checks import check_one_array
from jdl.metrics.classification import predicted_class
from jdl.tasks.masks import hide_masked
from jdl.tasks.supervised import examples, refuse_masked_statistics

MIN_SQUARED_NORM = 1e-12
"""A lower bound on the squared length that embeddings are divided by, since 1/0 has no gradient."""


def contrastive(
    model: Model, views: Callable[[Key, jax.Array], jax.Array], *, temperature: float = 0.5
) -> Task:
    """Find the other view of each example among all views in the batch (SimCLR).

    `views(key, x)` returns randomly augmented examples of the shape of x, (batch, ...), as the
    functions of `jdl.data.augmentations` do. It is called twice, in evaluation too. The loss is
    `nt_xent` of the model's outputs (batch, features). The metric `accuracy` is the share of views
    whose nearest neighbour is the other view of their example. `predict` returns the embeddings of
    examples without augmentation.

    The loss of an example depends on the others in its batch. So `accumulate` and `pmap`, which
    split the batch, change the loss; `shard` does not.

    Raises `InputError` unless `temperature` is above 0, and for a loss without a key.

    >>> from jdl.models import MLP, from_linen
    >>> def noisy(key, x):
    ...     return x + 0.1 * jax.random.normal(key, x.shape)
    >>> task = contrastive(from_linen(MLP((), 2)), noisy)
    >>> batch = {"x": jnp.ones((4, 3))}
    >>> jax.eval_shape(task.init, jax.random.key(0), batch)[0]["output"]["kernel"].shape
    (3, 2)

    Chen et al. 2020, "A simple framework for contrastive learning of visual representations".
    """
    check_model(model, "contrastive: model")
    if not temperature > 0:
        raise error(
            "temperature",
            expected="a number above 0",
            got=repr(temperature),
            fix="choose 0.1 to 0.5, as is usual",
        )

    def init(key: Key, batch: Batch) -> tuple[PyTree, PyTree]:
        return model.init(key, examples(batch))

    def loss(
        params: PyTree, model_state: PyTree, batch: Batch, key: Key | None, *, train: bool
    ) -> tuple[Mean, tuple[PyTree, Metrics]]:
        key = require_key(key, "a random key, to draw two views of each example")
        if train:
            refuse_masked_statistics(model_state, batch)
            batch = hide_masked(batch)
        x, mask = examples(batch), batch.get("mask")
        first, second, own_key = jax.random.split(key, 3)
        both = jnp.concatenate([views(first, x), views(second, x)])
        outputs, model_state = model.apply(params, model_state, both, key=own_key, train=train)
        check_one_array(outputs, "contrastive")
        one, other = jnp.split(outputs, 2)
        losses, hits = _compare(one, other, temperature, mask)
        weights = measures.example_weights(batch)
        mean = measures.mean(losses, **weights)
        accuracy = measures.fraction(hits, **weights)
        return mean, (model_state, {"loss": mean, "accuracy": accuracy})

    def predict(params: PyTree, model_state: PyTree, batch: Batch) -> PyTree:
        return model.apply(params, model_state, examples(batch), train=False)[0]

    return Task(init, loss, predict)


def nt_xent(
    one: jax.Array,
    other: jax.Array,
    temperature: float | jax.Array = 0.5,
    mask: jax.Array | None = None,
) -> jax.Array:
    r"""The normalised temperature-scaled cross-entropy of pairs of embeddings, in nats.

    `one` and `other` (batch, features) hold the two views of each example. With all 2 batch
    embeddings z scaled to unit length, view i with partner p(i) has the loss
    $\ell_i = \log \sum_{k \ne i} \exp(z_i \cdot z_k / \tau) - z_i \cdot z_{p(i)} / \tau$, and an
    example the mean of its two views, (batch,). Examples whose `mask` (batch,) is zero are not
    used as negatives. Raises `InputError` if the shapes of the views differ.

    >>> far = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
    >>> nt_xent(far, far, temperature=0.1).round(3)
    Array([0., 0.], dtype=float32)

    Chen et al. 2020, "A simple framework for contrastive learning of visual representations".
    """
    return _compare(one, other, temperature, mask)[0]


def _compare(one: Any, other: Any, temperature: Any, mask: Any) -> tuple[jax.Array, jax.Array]:
    """The loss (batch,), and whether each view's nearest neighbour is its partner, (batch, 2)."""
    measures.check_same_shape(one, other)
    batch = one.shape[0]
    both = jnp.concatenate([one, other]).reshape(2 * batch, -1)
    both = both.astype(jnp.promote_types(both.dtype, jnp.float32))
    both = both * jax.lax.rsqrt(
        jnp.maximum(jnp.square(both).sum(-1, keepdims=True), MIN_SQUARED_NORM)
    )
    similarity = both @ both.T / temperature
    hidden = jnp.eye(2 * batch, dtype=bool)
    if mask is not None:
        hidden = hidden | jnp.tile(jnp.asarray(mask) == 0, 2)[None]
    # The partner always counts, so the loss of a masked example stays finite.
    partner = jnp.roll(jnp.arange(2 * batch), batch)
    hidden = hidden & (jnp.arange(2 * batch)[None] != partner[:, None])
    similarity = jnp.where(hidden, -jnp.inf, similarity)
    own = jnp.take_along_axis(similarity, partner[:, None], axis=1)[:, 0]
    losses = jax.nn.logsumexp(similarity, axis=-1) - own
    hits = predicted_class(similarity) == partner
    return losses.reshape(2, batch).mean(0), hits.reshape(2, batch).T
