"""Tasks without labels: autoencoders, denoising autoencoders and variational autoencoders."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jdl import metrics as measures
from jdl.core.errors import check_one_of, check_range, error, require_key
from jdl.core.nouns import check_model, check_task
from jdl.core.types import Batch, Key, Mean, Metrics, Model, PyTree, Task
from jdl.metrics.checks import check_named_outputs
from jdl.tasks import losses
from jdl.tasks.masks import counted
from jdl.tasks.supervised import entry, examples, supervised_task

Corruption = Callable[[Key, jax.Array], jax.Array]
"""`corrupt(key, x) -> x`, of the same shape."""


class Pixels(NamedTuple):
    """The distribution of pixels given a model's outputs."""

    loss: Callable[[Any, Any], jax.Array]
    """The loss (batch,) of outputs and true pixels."""
    mean: Callable[[Any], jax.Array]
    """The expected pixels."""


PIXELS = {
    "bernoulli": Pixels(losses.binary_cross_entropy, jax.nn.sigmoid),
    "gaussian": Pixels(losses.squared_error, lambda outputs: outputs),
}


def reconstruction(model: Model, pixels: str = "bernoulli") -> Task:
    r"""Reconstruct the input, as an autoencoder does.

    The outputs have the shape of the inputs, (batch, ...), and there are no labels.

    - `pixels="bernoulli"`: outputs are logits z of pixels x in [0, 1]. The loss is the mean over
      pixels of $-x \log \sigma(z) - (1-x) \log(1-\sigma(z))$ in nats. Its minimum is the entropy of
      the pixels, which is above zero for grey ones.
    - `pixels="gaussian"`: outputs are the pixels. The loss is the mean of $(\hat x - x)^2$.

    The metric `mse` is the mean squared error of the pixels, and `predict` returns pixels. If a
    batch has an entry `target`, outputs are compared with it instead of the input.

    Raises `InputError` for an unknown `pixels`, and at `init` for pixels outside [0, 1] with
    "bernoulli".

    >>> from jdl.models import from_functions
    >>> zero_logits = from_functions(lambda key, x: {}, lambda params, x: 0 * x)
    >>> batch = {"x": jnp.ones((3, 4))}
    >>> mean, _ = reconstruction(zero_logits).loss({}, {}, batch, None, train=False)
    >>> print(mean.value.round(4))  # log 2
    0.6931
    """
    check_model(model, "reconstruction: model")
    kind = _kind(pixels)

    def squared(outputs: Any, batch: Batch) -> jax.Array:
        means = kind.mean(losses.rows(outputs))
        return losses.squared_error(means, losses.rows(batch["y"]))

    inner = _input_as_label(supervised_task(model, kind.loss, {"mse": measures.mean_of(squared)}))

    def init(key: Key, batch: Batch) -> tuple[PyTree, PyTree]:
        if pixels == "bernoulli":
            _check_unit(batch)
        return inner.init(key, batch)

    def predict(params: PyTree, model_state: PyTree, batch: Batch) -> PyTree:
        return kind.mean(inner.predict(params, model_state, batch))

    return inner._replace(init=init, predict=predict)


def gaussian_noise(scale: float) -> Corruption:
    """The corruption that adds normal noise of standard deviation `scale` to an array of any shape.

    Raises `InputError` if `scale` is negative.

    >>> gaussian_noise(0.0)(jax.random.key(0), jnp.ones(2))
    Array([1., 1.], dtype=float32)
    """
    check_range("gaussian_noise", scale, 0)
    return lambda key, x: x + scale * jax.random.normal(key, x.shape, x.dtype)


def masking_noise(share: float) -> Corruption:
    """The corruption that sets elements to zero, each with probability `share`, in any shape.

    Raises `InputError` if `share` is outside [0, 1]. Vincent et al. 2008, "Extracting and composing
    robust features with denoising autoencoders".

    >>> masking_noise(1.0)(jax.random.key(0), jnp.ones(2))
    Array([0., 0.], dtype=float32)
    """
    check_range("masking_noise", share, 0, 1)
    return lambda key, x: jnp.where(jax.random.bernoulli(key, share, x.shape), 0, x)


def denoising(task: Task, corrupt: Corruption) -> Task:
    r"""Reconstruct the clean input from a corrupted one.

    `task` is a `reconstruction` or a `variational`. `corrupt(key, x)` returns an array
    of the shape of x, (batch, ...). It runs in training and in evaluation, and the outputs are
    compared with the clean input. `predict` corrupts nothing: pass it corrupted inputs. Raises
    `InputError` for a loss without a key.

    >>> from jdl.models import from_functions
    >>> identity = from_functions(lambda key, x: {}, lambda params, x: x)
    >>> task = reconstruction(identity, pixels="gaussian")
    >>> task = denoising(task, masking_noise(1.0))
    >>> mean, _ = task.loss({}, {}, {"x": jnp.ones((3, 4))}, jax.random.key(0), train=True)
    >>> print(mean.value)  # the identity returns zeros, the clean pixels are ones
    1.0

    Vincent et al. 2008, "Extracting and composing robust features with denoising autoencoders".
    """
    check_task(task, "denoising: task")

    def loss(
        params: PyTree, model_state: PyTree, batch: Batch, key: Key | None, *, train: bool
    ) -> tuple[Mean, tuple[PyTree, Metrics]]:
        key = require_key(key, "a random key, to draw the noise")
        own_key, key = jax.random.split(key)
        clean = examples(batch)
        corrupted = {**batch, "x": corrupt(own_key, clean), "target": clean}
        return task.loss(params, model_state, corrupted, key, train=train)

    return task._replace(loss=loss)


def variational(model: Model) -> Task:
    r"""Minimise the negative ELBO of a variational autoencoder, in nats per example.

    $-E_{q(z|x)} \log p(x|z) + \mathrm{KL}(q(z|x)\,\|\,N(0, I))$, with one sample of z for the
    expectation. The first term, metric `reconstruction`, is the binary cross-entropy summed over
    the pixels. The second, metric `kl`, is
    $\frac12 \sum_j (\mu_j^2 + \sigma_j^2 - 1 - \log \sigma_j^2)$.

    The model returns a dict, as `jdl.models.VariationalAutoencoder` does: `logits` of the inputs'
    shape, `mean` and `log_variance` (batch, code). `predict` returns the pixels decoded from the
    mean. Raises `InputError` at `init` for pixels outside [0, 1] and for other outputs.

    >>> from jdl.models import VariationalAutoencoder, from_linen
    >>> task = variational(from_linen(VariationalAutoencoder(2, (8,), shape=(4,))))
    >>> batch = {"x": jax.ShapeDtypeStruct((3, 4), float)}
    >>> params, model_state = jax.eval_shape(task.init, jax.random.key(0), batch)
    >>> jax.eval_shape(task.predict, params, model_state, batch).shape
    (3, 4)

    Kingma and Welling 2014, "Auto-encoding variational Bayes".
    """
    check_model(model, "variational: model")

    def reconstruction_loss(outputs: Any, batch: Batch) -> jax.Array:
        pixels = batch["y"].size // len(batch["y"])
        return pixels * losses.binary_cross_entropy(outputs["logits"], batch["y"])

    def kl(outputs: Any, batch: Batch) -> jax.Array:
        return divergence(outputs["mean"], outputs["log_variance"])

    def negative_elbo(outputs: Any, targets: Any) -> jax.Array:
        fix = "return this dict, as jdl.models.VariationalAutoencoder does"
        names = ("logits", "mean", "log_variance")
        check_named_outputs(outputs, names, "variational", fix)
        batch = {"y": targets}
        return reconstruction_loss(outputs, batch) + kl(outputs, batch)

    metrics = {
        "reconstruction": measures.mean_of(reconstruction_loss),
        "kl": measures.mean_of(kl),
    }
    inner = _input_as_label(supervised_task(model, negative_elbo, metrics))

    def init(key: Key, batch: Batch) -> tuple[PyTree, PyTree]:
        _check_unit(batch)
        return inner.init(key, batch)

    def predict(params: PyTree, model_state: PyTree, batch: Batch) -> PyTree:
        return jax.nn.sigmoid(inner.predict(params, model_state, batch)["logits"])

    return inner._replace(init=init, predict=predict)


def divergence(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    r"""$\mathrm{KL}(N(\mu, \sigma^2)\,\|\,N(0, I))$ in nats, from (batch, code) to (batch,).

    >>> print(divergence(jnp.ones((1, 3)), jnp.zeros((1, 3))))
    [1.5]
    """
    terms = jnp.square(mean) + jnp.expm1(log_variance) - log_variance
    return terms.sum(-1) / 2


def _input_as_label(task: Task) -> Task:
    """The task with the entry `target` as labels, or the inputs if a batch has none."""

    def labelled(batch: Batch) -> Batch:
        inputs = examples(batch)
        return {**batch, "y": batch.get("target", inputs)}

    def loss(
        params: PyTree, model_state: PyTree, batch: Batch, key: Key | None, *, train: bool
    ) -> tuple[Mean, tuple[PyTree, Metrics]]:
        return task.loss(params, model_state, labelled(batch), key, train=train)

    return task._replace(
        init=lambda key, batch: task.init(key, labelled(batch)),
        loss=loss,
    )


def _kind(pixels: str) -> Pixels:
    return PIXELS[check_one_of("pixels", pixels, PIXELS)]


def _check_unit(batch: Batch) -> None:
    """Raise for pixels outside [0, 1]; traced values cannot be checked."""
    entry(batch, "x")
    pixels = counted("x", batch)
    if pixels is None or pixels.size == 0:
        return
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 1:
        raise error(
            "x",
            expected="pixels from 0 to 1, because the loss is a binary cross-entropy",
            got=f"values from {low:g} to {high:g}",
            fix='divide by the largest value, or use jdl.tasks.reconstruction(pixels="gaussian")',
        )
