"""Losses of optax with their arguments checked: one number for each example, from logits.

Each takes the model's outputs (never a softmax or a sigmoid of them) and the labels, and returns
shape (batch,) or (batch, ...). Integer labels and distributions are never taken for one another.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jdl.core.check import error
from jdl.metrics import check_integer_labels, check_same_shape


@struct.dataclass
class Blend:
    r"""Integer labels mixed or smoothed on purpose, as a distribution over K classes.

    $q = (1-\epsilon)\,[s\,e_{\text{first}} + (1-s)\,e_{\text{second}}] + \epsilon/K$ with
    `share` $s$ and `smoothing` $\epsilon$. It needs no K, so a task can be transformed without
    knowing its model. `mixup` and `label_smoothing` make it; `cross_entropy` takes it.
    """

    first: Any
    second: Any
    share: Any
    smoothing: Any = 0.0

    def dominant(self) -> Any:
        """The label with the larger share."""
        return jnp.where(_beside(self.share, self.first) >= 0.5, self.first, self.second)


def cross_entropy(outputs: jax.Array, labels: Any) -> jax.Array:
    r"""$-\log \mathrm{softmax}(z)_y$ for logits (batch, ..., classes), integers (batch, ...).

    A label outside 0 ... classes - 1 gives nan (a negative one down to -classes counts from the
    end, as everywhere in numpy).

    >>> cross_entropy(jnp.array([[800.0, -800.0]]), jnp.array([1]))
    Array([1600.], dtype=float32)
    """
    if not isinstance(labels, Blend):
        check_integer_labels(outputs, labels)
        return optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
    share = _beside(labels.share, labels.first)
    mixed = share * cross_entropy(outputs, labels.first)
    mixed += (1 - share) * cross_entropy(outputs, labels.second)
    uniform = jax.nn.logsumexp(outputs, axis=-1) - outputs.mean(-1)
    return (1 - labels.smoothing) * mixed + labels.smoothing * uniform


def soft_cross_entropy(outputs: jax.Array, targets: Any) -> jax.Array:
    r"""$-\sum_k q_k \log \mathrm{softmax}(z)_k$ for one-hot or other distributions q.

    Targets have the shape of the logits, (batch, ..., classes).
    """
    shape, given = jnp.shape(outputs), jnp.shape(targets)
    if given != shape:
        integers = given == shape[:-1]
        raise error(
            "y",
            expected=f"a distribution over the classes, shape {shape}, as the outputs",
            got=f"{jnp.result_type(targets)} of shape {given}",
            fix="use loss=jdl.tasks.cross_entropy for integer labels"
            if integers
            else "give y the shape of the model's outputs",
        )
    return optax.softmax_cross_entropy(outputs, targets)


def binary_cross_entropy(outputs: jax.Array, labels: Any) -> jax.Array:
    r"""$-y \log \sigma(z) - (1-y) \log(1-\sigma(z))$, averaged over all axes but the first.

    Logits and labels (0, 1, or between) of the same shape. For rank one, (batch,), there is
    nothing to average.
    """
    check_same_shape(outputs, labels)
    return _per_example(optax.sigmoid_binary_cross_entropy(outputs, jnp.asarray(labels)))


def squared_error(outputs: jax.Array, targets: Any) -> jax.Array:
    r"""$(\hat y - y)^2$, averaged over all axes but the first; its mean is the MSE.

    Its gradient has a factor 2 that `half_squared_error` has not.
    """
    check_same_shape(outputs, targets)
    return _per_example(jnp.square(outputs - targets))


def half_squared_error(outputs: jax.Array, targets: Any) -> jax.Array:
    r"""$\tfrac12 (\hat y - y)^2$, averaged over all axes but the first.

    Half of `squared_error`, so the largest stable learning rate is twice as large.
    """
    return 0.5 * squared_error(outputs, targets)


def _per_example(values: jax.Array) -> jax.Array:
    return values.mean(axis=tuple(range(1, values.ndim)))


def _beside(share: Any, labels: Any) -> Any:
    """The share, one for each example, with axes for the labels' further ones."""
    share = jnp.asarray(share)
    return share.reshape(share.shape + (1,) * (jnp.ndim(labels) - share.ndim))
