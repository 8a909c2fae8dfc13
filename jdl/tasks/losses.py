"""Losses (batch,) or (batch, ...) of outputs and labels, with checks of shapes and types.

Losses of classification take logits, never probabilities. Integer labels and distributions are
never confused with one another.
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
from jdl.core.types import Mean
from jdl.metrics import check_integer_labels, check_same_shape
from jdl.metrics.checks import check_named_outputs, check_one_array, class_indices

Criterion = Callable[[Any, Any], jax.Array | Mean]
"""`loss(outputs, labels)`: one value per example, (batch,), or per part of one, (batch, ...).

A loss with weights of its own returns a `Mean` of such arrays, `Mean(weight * value, weight)`.
"""


@struct.dataclass
class Blend:
    r"""Mixed or smoothed integer labels, as a distribution over K classes.

    $q = (1-\epsilon)\,[s\,e_{\text{first}} + (1-s)\,e_{\text{second}}] + \epsilon/K$ with
    `share` $s$ (batch,) and `smoothing` $\epsilon$. It does not store K, so `mixup` and
    `label_smoothing` can return it without knowing the model. `cross_entropy` takes it, and with
    one-hot labels (batch, ..., classes) as `first` and `second`, `soft_cross_entropy`. The share
    may have more axes, such as (batch, time).
    """

    first: Any
    second: Any
    share: Any
    smoothing: Any = 0.0

    def dominant(self) -> Any:
        """The label with the larger share."""
        return jnp.where(_expand(self.share, self.first) >= 0.5, self.first, self.second)

    def distribution(self) -> jax.Array:
        """The distribution of one-hot labels (batch, ..., classes)."""
        share = _expand(self.share, self.first)
        mixed = share * self.first + (1 - share) * self.second
        return (1 - self.smoothing) * mixed + self.smoothing / mixed.shape[-1]


def cross_entropy(outputs: jax.Array, labels: Any) -> jax.Array:
    r"""Softmax cross-entropy with integer labels, $-\log \mathrm{softmax}(z)_y$, in nats.

    Logits are (batch, ..., classes), labels and result (batch, ...). Labels may be booleans, for
    classes 0 and 1, or floats (batch, ..., classes), as in `soft_cross_entropy`. A negative label
    counts from the last class, as an index in numpy does; a label out of range gives nan. Raises
    `InputError` for labels of another shape or type.

    >>> cross_entropy(jnp.array([[800.0, -800.0]]), jnp.array([1]))
    Array([1600.], dtype=float32)
    """
    if not isinstance(labels, Blend):
        if _are_distributions(outputs, labels):
            return soft_cross_entropy(outputs, labels)
        check_integer_labels(outputs, labels)
        labels = class_indices(outputs, labels)
        if lowering.platform() == "cpu":
            return optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
        return _by_comparison(outputs, labels)
    check_one_array(outputs, "cross_entropy")
    share = _expand(labels.share, labels.first)
    mixed = share * cross_entropy(outputs, labels.first)
    mixed += (1 - share) * cross_entropy(outputs, labels.second)
    if isinstance(labels.smoothing, float) and labels.smoothing == 0:
        return mixed  # the logits of masked classes may be minus infinity
    uniform = jax.nn.logsumexp(outputs, axis=-1) - outputs.mean(-1)
    return (1 - labels.smoothing) * mixed + labels.smoothing * uniform


def _are_distributions(outputs: Any, labels: Any) -> bool:
    is_float = jnp.issubdtype(jnp.result_type(labels), jnp.floating)
    return is_float and jnp.shape(outputs) == jnp.shape(labels)


def _by_comparison(outputs: jax.Array, labels: jax.Array) -> jax.Array:
    """The same without indexing.

    On GPU and TPU a gather of the label's logit writes all logits and their gradient to memory. A
    masked sum fuses with the sums of the softmax.
    """
    classes = outputs.shape[-1]
    labels = jnp.where(labels < 0, labels + classes, labels)
    shifted = outputs - jax.lax.stop_gradient(outputs.max(-1, keepdims=True))
    own = jax.nn.one_hot(labels, classes, dtype=bool)
    picked = jnp.where(own, shifted, 0).sum(-1)
    picked = jnp.where((labels >= 0) & (labels < classes), picked, jnp.nan)
    return jnp.log(jnp.exp(shifted).sum(-1)) - picked


def soft_cross_entropy(outputs: jax.Array, targets: Any) -> jax.Array:
    r"""Softmax cross-entropy with distributions, $-\sum_k q_k \log \mathrm{softmax}(z)_k$, in nats.

    Logits z and targets q, such as one-hot labels, are (batch, ..., classes); the result is
    (batch, ...). Raises `InputError` for targets of another shape.

    >>> soft_cross_entropy(jnp.zeros((1, 2)), jnp.array([[0.5, 0.5]])).round(4)  # log 2
    Array([0.6931], dtype=float32)
    """
    check_one_array(outputs, "soft_cross_entropy")
    labels = targets.first if isinstance(targets, Blend) else targets
    shape, given = jnp.shape(outputs), jnp.shape(labels)
    if given != shape:
        integers = given == shape[:-1]
        raise error(
            "y",
            expected=f"a distribution over the classes, of the outputs' shape {shape}",
            got=f"{jnp.result_type(labels)} of shape {given}",
            fix="use loss=jdl.tasks.cross_entropy for integer labels"
            if integers
            else "give y the shape of the model's outputs",
        )
    targets = targets.distribution() if isinstance(targets, Blend) else targets
    # The logit of a class that cannot be may be minus infinity.
    return -jnp.where(targets == 0, 0, targets * jax.nn.log_softmax(outputs)).sum(-1)


def class_weighted(loss: Criterion, weights: Any) -> Criterion:
    r"""Weight a loss by class: $\sum_i w_{y_i} \ell_i / \sum_i w_{y_i}$.

    This is the mean of PyTorch's `CrossEntropyLoss(weight=...)`: over the weights, not over the
    examples. Both sums run over the whole batch, so micro-batches and devices do not change it, and
    a batch in which all examples are of one class has the loss without weights. To divide by the
    number of examples instead, pass `loss=lambda z, y: weights[y] * jdl.tasks.cross_entropy(z, y)`.

    Takes logits (batch, ..., classes), integer labels (batch, ...) and weights (classes,). The loss
    returns a `Mean` of arrays (batch, ...): $w_y\,\ell$ as `total` and $w_y$ as `weight`. You can
    weight any loss: `class_weighted(focal(2.0), weights)`.

    The loss raises `InputError` for labels or weights of another shape, and for mixed or smoothed
    labels.

    >>> loss = class_weighted(cross_entropy, jnp.array([1.0, 3.0]))
    >>> values = loss(jnp.zeros((2, 2)), jnp.array([0, 1]))
    >>> print(values.total, values.weight)  # log 2, and three times that
    [0.6931472 2.0794415] [1. 3.]
    """
    weights = jnp.asarray(weights)

    def weighted(outputs: jax.Array, labels: Any) -> Mean:
        _refuse_blend("class_weighted", labels)
        check_integer_labels(outputs, labels)
        if weights.shape != outputs.shape[-1:]:
            raise error(
                "class weights",
                expected=f"shape {outputs.shape[-1:]}, one per class, as the model has outputs",
                got=f"shape {weights.shape}",
                fix="pass jdl.data.balance.class_weights(labels, classes)",
            )
        own, values = weights[jnp.asarray(labels)], loss(outputs, labels)
        if not isinstance(values, Mean):
            values = Mean(values, jnp.ones_like(values))
        return Mean(own * values.total, own * values.weight)

    return weighted


def focal(gamma: float | jax.Array = 2.0) -> Criterion:
    r"""The focal loss, $-(1-p_y)^\gamma \log p_y$ with $p = \mathrm{softmax}(z)$, in nats.

    Examples that are already classified well count less; $\gamma = 0$ is the cross-entropy. It
    takes logits (batch, ..., classes) of at least two classes and integer labels (batch, ...). A
    negative label counts from the last class, as in `cross_entropy`, and the logits of classes that
    cannot be may be minus infinity. Raises `InputError` for a negative `gamma`; the loss raises it
    for labels of another shape or type, and for mixed or smoothed labels.

    >>> focal(2.0)(jnp.zeros((1, 2)), jnp.array([0])).round(4)  # a quarter of log 2
    Array([0.1733], dtype=float32)

    Lin et al. 2017, "Focal loss for dense object detection".
    """
    check_range("focal gamma", gamma, 0)

    def loss(outputs: jax.Array, labels: Any) -> jax.Array:
        _refuse_blend("focal", labels)
        check_integer_labels(outputs, labels)
        classes = class_indices(outputs, labels)
        classes = jnp.where(classes < 0, classes + outputs.shape[-1], classes)
        own = jax.nn.one_hot(classes, outputs.shape[-1], dtype=bool)
        # log(1 - p) from the other logits, because 1 - exp(log p) loses its digits near p = 1.
        others = jnp.where(own, -jnp.inf, outputs)
        # Without any other class p is 1, where the logarithm has no gradient.
        is_alone = (others == -jnp.inf).all(-1)
        others = jax.nn.logsumexp(jnp.where(is_alone[..., None], 0, others), axis=-1)
        log_rest = jnp.where(is_alone, 0, others - jax.nn.logsumexp(outputs, axis=-1))
        factor = jnp.where(is_alone & (jnp.asarray(gamma) > 0), 0, jnp.exp(gamma * log_rest))
        return factor * cross_entropy(outputs, labels)

    return loss


def binary_cross_entropy(outputs: jax.Array, labels: Any) -> jax.Array:
    r"""Sigmoid cross-entropy, $-y \log \sigma(z) - (1-y) \log(1-\sigma(z))$, in nats.

    Logits and labels in [0, 1] have the same shape, (batch, ...); the result is averaged over all
    axes but the first. Raises `InputError` if the shapes differ.

    >>> binary_cross_entropy(jnp.zeros(2), jnp.array([0.0, 1.0])).round(4)  # log 2
    Array([0.6931, 0.6931], dtype=float32)
    """
    check_same_shape(outputs, labels)
    return optax.sigmoid_binary_cross_entropy(rows(outputs), rows(labels)).mean(-1)


def squared_error(outputs: jax.Array, targets: Any) -> jax.Array:
    r"""The squared error $(\hat y - y)^2$, averaged over all axes but the first.

    Outputs and targets have the same shape, (batch, ...); the mean of the result (batch,) is the
    MSE. Raises `InputError` if the shapes differ.

    >>> squared_error(jnp.array([[1.0, 3.0]]), jnp.zeros((1, 2)))
    Array([5.], dtype=float32)
    """
    check_same_shape(outputs, targets)
    return jnp.square(rows(outputs) - rows(targets)).mean(-1)


def half_squared_error(outputs: jax.Array, targets: Any) -> jax.Array:
    r"""Half of `squared_error`, $\tfrac12 (\hat y - y)^2$, averaged over all axes but the first.

    The gradient is half as large, so the largest stable learning rate is twice as large. Raises
    `InputError` if the shapes of outputs and targets, (batch, ...), differ.

    >>> half_squared_error(jnp.array([[1.0, 3.0]]), jnp.zeros((1, 2)))
    Array([2.5], dtype=float32)
    """
    return 0.5 * squared_error(outputs, targets)


def gaussian_negative_log_likelihood(outputs: Any, targets: Any) -> jax.Array:
    r"""$\log\sigma + \frac{(y-\mu)^2}{2\sigma^2} + \tfrac12\log 2\pi$, in nats.

    Outputs are a dict of `mean` $\mu$ and `std` $\sigma$, both of the targets' shape (batch, ...),
    as in `uncertain_regression`. The result is averaged over all axes but the first. Raises
    `InputError` if the shapes of `mean` and targets differ.

    >>> outputs = {"mean": jnp.zeros((1, 1)), "std": jnp.ones((1, 1))}
    >>> gaussian_negative_log_likelihood(outputs, jnp.ones((1, 1))).round(4)
    Array([1.4189], dtype=float32)

    Nix and Weigend 1994, "Estimating the mean and variance of the target probability distribution".
    """
    check_named_outputs(
        outputs,
        ("mean", "std"),
        "gaussian_negative_log_likelihood",
        'return {"mean": ..., "std": ...}, or use jdl.tasks.uncertain_regression',
    )
    mean, std = outputs["mean"], outputs["std"]
    check_same_shape(mean, targets)
    mean, std, targets = rows(mean), rows(std), rows(targets)
    each = jnp.log(std) + 0.5 * jnp.square((targets - mean) / std) + 0.5 * math.log(2 * math.pi)
    return each.mean(-1)


def pinball(levels: tuple[float, ...]) -> Criterion:
    r"""The loss of quantile regression, $\max(q\,e, (q-1)\,e)$ with $e = y - \hat y$.

    Output j is the quantile of level $q$ = `levels[j]`: outputs are (batch, levels), targets
    (batch, 1), and the result is averaged over levels. Raises `InputError` for levels outside
    (0, 1); the loss raises it for outputs or targets of another shape.

    >>> pinball((0.75,))(jnp.zeros((2, 1)), jnp.array([[1.0], [-1.0]]))
    Array([0.75, 0.25], dtype=float32)

    Koenker and Bassett 1978, "Regression quantiles".
    """
    if not levels or not all(0 < level < 1 for level in levels):
        raise error(
            "pinball levels",
            expected="at least one number, all between 0 and 1",
            got=repr(levels),
            fix="pass levels such as (0.05, 0.5, 0.95)",
        )

    def loss(outputs: jax.Array, targets: Any) -> jax.Array:
        check_one_array(outputs, "pinball")
        if outputs.shape[1:] != (len(levels),):
            raise error(
                "outputs of the model",
                expected=f"shape (batch, {len(levels)}), one per level",
                got=f"shape {outputs.shape}",
                fix=f"build the model with {len(levels)} outputs",
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
            expected="integer labels, one class per example",
            got="mixed or smoothed labels",
            fix="use it without mixup and label_smoothing",
        )


def rows(values: Any) -> jax.Array:
    """Flatten (batch, ...) to (batch, n), for losses that average over an example.

    On CPU XLA sums images of one channel pixel by pixel, which is slow (3.4 of an autoencoder's
    4.7 ms per step), and without the barrier it undoes the reshape.
    """
    values = jnp.asarray(values)
    flat = values.reshape(*values.shape[:1], math.prod(values.shape[1:]))
    is_image = values.ndim > 2 and lowering.platform() == "cpu"
    return jax.lax.optimization_barrier(flat) if is_image else flat


def _expand(share: Any, labels: Any) -> Any:
    """The share (batch,) with trailing axes of one, up to the rank of the labels."""
    share = jnp.asarray(share)
    return share.reshape(share.shape + (1,) * (jnp.ndim(labels) - share.ndim))
