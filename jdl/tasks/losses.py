"""Losses of optax with their arguments checked: one number for each example, from logits.

Each takes the model's outputs (never a softmax or a sigmoid of them) and the labels, and returns
shape (batch,) or (batch, ...). Integer labels and distributions are never taken for one another.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jdl.core import lowering
from jdl.core.errors import check_range, error
from jdl.metrics import check_integer_labels, check_same_shape

Criterion = Callable[[Any, Any], jax.Array]


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
        if lowering.platform() == "cpu":
            return optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
        return _by_comparison(outputs, labels)
    share = _beside(labels.share, labels.first)
    mixed = share * cross_entropy(outputs, labels.first)
    mixed += (1 - share) * cross_entropy(outputs, labels.second)
    uniform = jax.nn.logsumexp(outputs, axis=-1) - outputs.mean(-1)
    return (1 - labels.smoothing) * mixed + labels.smoothing * uniform


def _by_comparison(outputs: jax.Array, labels: jax.Array) -> jax.Array:
    """The same without looking a logit up.

    A GPU or TPU lays all logits out for the sake of that one, and their gradient too; a sum over
    those whose place is the label's becomes part of the sums that the softmax needs anyway.
    """
    classes = outputs.shape[-1]
    labels = jnp.where(labels < 0, labels + classes, labels)
    shifted = outputs - jax.lax.stop_gradient(outputs.max(-1, keepdims=True))
    own = jax.nn.one_hot(labels, classes, dtype=bool)
    picked = jnp.where(own, shifted, 0).sum(-1)
    picked = jnp.where((labels >= 0) & (labels < classes), picked, jnp.nan)
    return jnp.log(jnp.exp(shifted).sum(-1)) - picked


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


def class_weighted_loss(loss: Criterion, weights: Any) -> Criterion:
    r"""The criterion $w_y\,\ell(z, y)$ for integer labels: rare classes may weigh more.

    The mean is over examples, not over weights as in PyTorch, so that a batch's gradient stays an
    unbiased estimate; `jdl.data.balance.class_weights` average 1. It weights what it is given:
    `class_weighted_loss(focal(2.0), weights)`.

    >>> loss = class_weighted_loss(cross_entropy, jnp.array([1.0, 3.0]))
    >>> loss(jnp.zeros((2, 2)), jnp.array([0, 1]))  # log 2, and three times that
    Array([0.6931472, 2.0794415], dtype=float32)
    """
    weights = jnp.asarray(weights)

    def weighted(outputs: jax.Array, labels: Any) -> jax.Array:
        _refuse_blend("class_weighted", labels)
        check_integer_labels(outputs, labels)
        if weights.shape != outputs.shape[-1:]:
            raise error(
                "class weights",
                expected=f"one for each of {outputs.shape[-1]} classes, the model's outputs",
                got=f"shape {weights.shape}",
                fix="see jdl.data.balance.class_weights(labels, classes)",
            )
        return weights[jnp.asarray(labels)] * loss(outputs, labels)

    return weighted


def focal_loss(gamma: Any = 2.0) -> Criterion:
    r"""The criterion $-(1-p_y)^\gamma \log p_y$ with $p = \mathrm{softmax}(z)$ (Lin et al. 2017).

    Examples that are already classified well count less; with $\gamma = 0$ it is cross-entropy.
    Logits (batch, ..., classes) of two classes or more, labels integers (batch, ...).

    >>> focal_loss(2.0)(jnp.zeros((1, 2)), jnp.array([0])).round(4)  # a quarter of log 2
    Array([0.1733], dtype=float32)
    """
    check_range("focal gamma", gamma, 0)

    def loss(outputs: jax.Array, labels: Any) -> jax.Array:
        _refuse_blend("focal", labels)
        check_integer_labels(outputs, labels)
        own = jax.nn.one_hot(labels, outputs.shape[-1], dtype=bool)
        # log(1 - p) from the other logits: 1 - exp(log p) would lose every digit near p = 1.
        others = jax.nn.logsumexp(jnp.where(own, -jnp.inf, outputs), axis=-1)
        log_rest = others - jax.nn.logsumexp(outputs, axis=-1)
        return jnp.exp(gamma * log_rest) * cross_entropy(outputs, labels)

    return loss


def binary_cross_entropy(outputs: jax.Array, labels: Any) -> jax.Array:
    r"""$-y \log \sigma(z) - (1-y) \log(1-\sigma(z))$, averaged over all axes but the first.

    Logits and labels (0, 1, or between) of the same shape. For rank one, (batch,), there is
    nothing to average.
    """
    check_same_shape(outputs, labels)
    return optax.sigmoid_binary_cross_entropy(rows(outputs), rows(labels)).mean(-1)


def squared_error(outputs: jax.Array, targets: Any) -> jax.Array:
    r"""$(\hat y - y)^2$, averaged over all axes but the first; its mean is the MSE.

    Its gradient has a factor 2 that `half_squared_error` has not.
    """
    check_same_shape(outputs, targets)
    return jnp.square(rows(outputs) - rows(targets)).mean(-1)


def half_squared_error(outputs: jax.Array, targets: Any) -> jax.Array:
    r"""$\tfrac12 (\hat y - y)^2$, averaged over all axes but the first.

    Half of `squared_error`, so the largest stable learning rate is twice as large.
    """
    return 0.5 * squared_error(outputs, targets)


def gaussian_negative_log_likelihood(outputs: Any, targets: Any) -> jax.Array:
    r"""$\log\sigma + \frac{(y-\mu)^2}{2\sigma^2} + \tfrac12\log 2\pi$ (Nix & Weigend 1994).

    Averaged over all axes but the first. Outputs are a dict of `mean` and `std` of the targets'
    shape, as `uncertain_regression` makes them.
    """
    mean, std = outputs["mean"], outputs["std"]
    check_same_shape(mean, targets)
    mean, std, targets = rows(mean), rows(std), rows(targets)
    each = jnp.log(std) + 0.5 * jnp.square((targets - mean) / std) + 0.5 * math.log(2 * math.pi)
    return each.mean(-1)


def pinball_loss(levels: tuple[float, ...]) -> Criterion:
    r"""The criterion whose minimum is at quantiles: $\max(q\,e, (q-1)\,e)$ with $e = y - \hat y$.

    Output j is the quantile of level `levels[j]`: outputs (batch, levels), targets (batch, 1).
    Averaged over levels (Koenker & Bassett 1978).

    >>> pinball_loss((0.75,))(jnp.zeros((2, 1)), jnp.array([[1.0], [-1.0]]))
    Array([0.75, 0.25], dtype=float32)
    """
    if not levels or not all(0 < level < 1 for level in levels):
        raise error(
            "pinball levels",
            expected="one number or more between 0 and 1",
            got=repr(levels),
            fix="for example (0.05, 0.5, 0.95)",
        )

    def loss(outputs: jax.Array, targets: Any) -> jax.Array:
        if outputs.shape[1:] != (len(levels),):
            raise error(
                "outputs of the model",
                expected=f"shape (batch, {len(levels)}), one for each level",
                got=f"shape {outputs.shape}",
                fix=f"give the model {len(levels)} outputs",
            )
        check_same_shape(outputs[:, :1], targets)
        surplus = targets - outputs
        level = jnp.asarray(levels, outputs.dtype)[None]
        return jnp.maximum(level * surplus, (level - 1) * surplus).mean(-1)

    return loss


def _refuse_blend(criterion: str, labels: Any) -> None:
    if isinstance(labels, Blend):
        raise error(
            criterion,
            expected="one class for each example",
            got="labels that are mixed or smoothed",
            fix="use it without mixup and label smoothing",
        )


def rows(values: Any) -> jax.Array:
    """One row for each example, for criteria that average over all of it.

    On CPU XLA adds images of one channel up pixel by pixel, which took 3.4 of an autoencoder's
    4.7 ms a step; and only a barrier keeps it from making images of the rows again.
    """
    values = jnp.asarray(values)
    flat = values.reshape(*values.shape[:1], math.prod(values.shape[1:]))
    is_image = values.ndim > 2 and lowering.platform() == "cpu"
    return jax.lax.optimization_barrier(flat) if is_image else flat


def _beside(share: Any, labels: Any) -> Any:
    """The share, one for each example, with axes for the labels' further ones."""
    share = jnp.asarray(share)
    return share.reshape(share.shape + (1,) * (jnp.ndim(labels) - share.ndim))
