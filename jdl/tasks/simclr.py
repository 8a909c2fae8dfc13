"""Learning without labels by telling examples apart: two views of each, and its partner."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jdl import metrics as measures
from jdl.core.errors import error, require_key
from jdl.core.types import Batch, Key, Mean, Metrics, Model, PyTree, Task
from jdl.tasks.supervised import examples, refuse_masked_statistics

MIN_SQUARED_NORM = 1e-12
"""Below this squared length an embedding is not stretched further: at zero the gradient is nan."""


def contrastive_learning(
    model: Model, views: Callable[[Key, Any], Any], *, temperature: float = 0.5
) -> Task:
    """Find each example's other view among all of the batch (SimCLR, Chen et al. 2020).

    `views(key, x) -> x` changes examples at random, as those of `jdl.data.augmentations` do; it is
    called twice, in evaluation too. The model's outputs (batch, n) are compared by `nt_xent`.
    Beside `loss` it reports `accuracy`, the share of views whose nearest is their partner.
    `predict` returns the embeddings of x as it is.

    An example's loss depends on the others in its batch: neither gradient accumulation nor `pmap`
    gives the numbers of the whole batch, which `shard` does.

    >>> from jdl.models import MLP, from_linen
    >>> def noisy(key, x):
    ...     return x + 0.1 * jax.random.normal(key, x.shape)
    >>> task = contrastive_learning(from_linen(MLP((), 2)), noisy)
    >>> batch = {"x": jnp.ones((4, 3))}
    >>> jax.eval_shape(task.init, jax.random.key(0), batch)[0]["output"]["kernel"].shape
    (3, 2)
    """
    if not temperature > 0:
        raise error(
            "temperature",
            expected="a number above 0",
            got=repr(temperature),
            fix="0.1 to 0.5 is usual",
        )

    def init(key: Key, batch: Batch) -> tuple[PyTree, PyTree]:
        return model.init(key, examples(batch))

    def loss(
        params: PyTree, model_state: PyTree, batch: Batch, key: Key | None, *, train: bool
    ) -> tuple[Mean, tuple[PyTree, Metrics]]:
        key = require_key(key, "a random key, to draw two views of each example")
        x, mask = examples(batch), batch.get("mask")
        if train:
            refuse_masked_statistics(model_state, batch)
        first, second, own = jax.random.split(key, 3)
        both = jnp.concatenate([views(first, x), views(second, x)])
        outputs, model_state = model.apply(params, model_state, both, key=own, train=train)
        one, other = jnp.split(outputs, 2)
        losses, hits = _compared(one, other, temperature, mask)
        mean = measures.masked_mean(losses, mask)
        return mean, (model_state, {"loss": mean, "accuracy": measures.masked_fraction(hits, mask)})

    def predict(params: PyTree, model_state: PyTree, batch: Batch) -> PyTree:
        return model.apply(params, model_state, examples(batch), train=False)[0]

    return Task(init, loss, predict)


def nt_xent(one: jax.Array, other: jax.Array, temperature: Any = 0.5, mask: Any = None) -> Any:
    r"""The normalised temperature-scaled cross-entropy of pairs of embeddings, (batch,).

    For the 2B embeddings of both views, stretched to length one, view i with partner p(i) costs
    $\ell_i = \log \sum_{k \ne i} \exp(z_i \cdot z_k / \tau) - z_i \cdot z_{p(i)} / \tau$; an
    example costs the mean of its two views. Examples whose `mask` (batch,) is zero are nobody's
    negatives (Chen et al. 2020).

    >>> far = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
    >>> nt_xent(far, far, temperature=0.1).round(3)
    Array([0., 0.], dtype=float32)
    """
    return _compared(one, other, temperature, mask)[0]


def _compared(one: Any, other: Any, temperature: Any, mask: Any) -> tuple[jax.Array, jax.Array]:
    """The loss of each example, and whether each of its views (batch, 2) is next to its partner."""
    measures.check_same_shape(one, other)
    batch = one.shape[0]
    both = jnp.concatenate([one, other]).reshape(2 * batch, -1)
    both = both.astype(jnp.promote_types(both.dtype, jnp.float32))
    both = both * jax.lax.rsqrt(
        jnp.maximum(jnp.square(both).sum(-1, keepdims=True), MIN_SQUARED_NORM)
    )
    likeness = both @ both.T / temperature
    hidden = jnp.eye(2 * batch, dtype=bool)
    if mask is not None:
        hidden = hidden | jnp.tile(jnp.asarray(mask) == 0, 2)[None]
    # The partner itself always counts, so a hidden example's own loss stays finite.
    partner = jnp.roll(jnp.arange(2 * batch), batch)
    hidden = hidden & (jnp.arange(2 * batch)[None] != partner[:, None])
    likeness = jnp.where(hidden, -jnp.inf, likeness)
    own = jnp.take_along_axis(likeness, partner[:, None], axis=1)[:, 0]
    losses = jax.nn.logsumexp(likeness, axis=-1) - own
    hits = likeness.argmax(-1) == partner
    return losses.reshape(2, batch).mean(0), hits.reshape(2, batch).T
