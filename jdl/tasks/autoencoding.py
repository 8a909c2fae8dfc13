"""Tasks without labels: give back the input, clean it, or explain it by a hidden code."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jdl import metrics as measures
from jdl.core.errors import check_one_of, check_range, error, require_key
from jdl.core.types import Batch, Key, Mean, Metrics, Model, PyTree, Task
from jdl.tasks import losses
from jdl.tasks.supervised import examples, supervised_task

Corruption = Callable[[Key, Any], Any]


class Pixels(NamedTuple):
    """How pixels are distributed around a model's outputs."""

    loss: Callable[[Any, Any], jax.Array]
    """Of outputs and true pixels, one number for each example."""
    mean: Callable[[Any], jax.Array]
    """The pixels that outputs stand for."""


PIXELS = {
    "bernoulli": Pixels(losses.binary_cross_entropy, jax.nn.sigmoid),
    "gaussian": Pixels(losses.squared_error, lambda outputs: outputs),
}


def reconstruction(model: Model, pixels: str = "bernoulli") -> Task:
    r"""Give back the input: outputs of the inputs' shape, and no labels.

    `pixels="bernoulli"` takes outputs as logits z of pixels x in [0, 1] and minimises the mean
    over all pixels of $-x \log \sigma(z) - (1-x) \log(1-\sigma(z))$. Its smallest value is the
    pixels' own entropy, above zero for grey ones. `pixels="gaussian"` takes outputs as the pixels
    and minimises the mean of $(\hat x - x)^2$. Either way the metric `mse` is the mean squared
    difference of pixels, and `predict` returns pixels. A batch's entry `target`, where it has one,
    stands in for the input in the comparison.

    Raises `InputError` at `init` for pixels outside [0, 1] with "bernoulli", whose loss has no
    lower end there.

    >>> from jdl.models import Autoencoder, from_linen
    >>> task = reconstruction(from_linen(Autoencoder(2, shape=(4,))))
    >>> batch = {"x": jnp.zeros((3, 4))}
    >>> params, model_state = task.init(jax.random.key(0), batch)
    >>> mean, _ = task.loss(params, model_state, batch, None, train=False)
    >>> print(mean.value.round(4))  # logits zero: log 2
    0.6931
    """
    kind = _kind(pixels)

    def squared(outputs: Any, batch: Batch) -> jax.Array:
        means = kind.mean(losses.rows(outputs))
        return losses.squared_error(means, losses.rows(batch["y"]))

    inner = _itself(supervised_task(model, kind.loss, {"mse": measures.mean_metric(squared)}))

    def init(key: Key, batch: Batch) -> tuple[PyTree, PyTree]:
        if pixels == "bernoulli":
            _check_unit(examples(batch))
        return inner.init(key, batch)

    def predict(params: PyTree, model_state: PyTree, batch: Batch) -> PyTree:
        return kind.mean(inner.predict(params, model_state, batch))

    return inner._replace(init=init, predict=predict)


def gaussian_noise(scale: float) -> Corruption:
    """Adds normal noise of this deviation to every number.

    >>> gaussian_noise(0.0)(jax.random.key(0), jnp.ones(2))
    Array([1., 1.], dtype=float32)
    """
    check_range("gaussian_noise", scale, 0)
    return lambda key, x: x + scale * jax.random.normal(key, x.shape, x.dtype)


def masking_noise(share: float) -> Corruption:
    """Sets each number to zero with this probability.

    >>> masking_noise(1.0)(jax.random.key(0), jnp.ones(2))
    Array([0., 0.], dtype=float32)
    """
    check_range("masking_noise", share, 0, 1)
    return lambda key, x: jnp.where(jax.random.bernoulli(key, share, x.shape), 0, x)


def denoising_autoencoding(task: Task, corrupt: Corruption) -> Task:
    r"""Give back the clean input for a spoiled one (Vincent et al. 2008).

    `task` is a `reconstruction` or `variational_autoencoding`. `corrupt(key, x) -> x` runs inside
    the step with its key, in training and in evaluation, and the outputs are compared with the
    clean input. `predict` takes its input as it is: give it spoiled ones.

    >>> from jdl.models import Autoencoder, from_linen
    >>> clean = reconstruction(from_linen(Autoencoder(2, shape=(4,))))
    >>> task = denoising_autoencoding(clean, gaussian_noise(1))
    >>> batch = {"x": jnp.zeros((3, 4))}
    >>> params, model_state = task.init(jax.random.key(0), batch)
    >>> mean, _ = task.loss(params, model_state, batch, jax.random.key(1), train=False)
    """

    def loss(
        params: PyTree, model_state: PyTree, batch: Batch, key: Key | None, *, train: bool
    ) -> tuple[Mean, tuple[PyTree, Metrics]]:
        key = require_key(key, "a random key, from which the noise is drawn")
        own, key = jax.random.split(key)
        clean = examples(batch)
        spoiled = {**batch, "x": corrupt(own, clean), "target": clean}
        return task.loss(params, model_state, spoiled, key, train=train)

    return task._replace(loss=loss)


def variational_autoencoding(model: Model) -> Task:
    r"""Minimise $-\mathrm{ELBO}$ of a variational autoencoder, in nats an example.

    $-E_{q(z|x)} \log p(x|z) + \mathrm{KL}(q(z|x)\,\|\,N(0, I))$ with the expectation taken at one
    draw of z (Kingma & Welling 2014). The first term, metric `reconstruction`, is the binary
    cross-entropy summed over the pixels; the second, metric `kl`, is
    $\frac12 \sum_j (\mu_j^2 + \sigma_j^2 - 1 - \log \sigma_j^2)$. The model's outputs are a dict of
    `logits`, `mean` and `log_variance`, as those of `jdl.models.VariationalAutoencoder`.
    `predict` returns pixels, by way of the mean code.

    Raises `InputError` at `init` for pixels outside [0, 1].

    >>> from jdl.models import VariationalAutoencoder, from_linen
    >>> task = variational_autoencoding(from_linen(VariationalAutoencoder(2, (8,), shape=(4,))))
    >>> batch = {"x": jnp.zeros((3, 4))}
    >>> params, model_state = task.init(jax.random.key(0), batch)
    >>> _, (_, metrics) = task.loss(params, model_state, batch, jax.random.key(1), train=False)
    >>> sorted(metrics)
    ['kl', 'loss', 'reconstruction']
    """

    def surprise(outputs: Any, batch: Batch) -> jax.Array:
        pixels = batch["y"].size // len(batch["y"])
        return pixels * losses.binary_cross_entropy(outputs["logits"], batch["y"])

    def distance(outputs: Any, batch: Batch) -> jax.Array:
        return divergence(outputs["mean"], outputs["log_variance"])

    def negative_elbo(outputs: Any, targets: Any) -> jax.Array:
        batch = {"y": targets}
        return surprise(outputs, batch) + distance(outputs, batch)

    metrics = {
        "reconstruction": measures.mean_metric(surprise),
        "kl": measures.mean_metric(distance),
    }
    inner = _itself(supervised_task(model, negative_elbo, metrics))

    def init(key: Key, batch: Batch) -> tuple[PyTree, PyTree]:
        _check_unit(examples(batch))
        return inner.init(key, batch)

    def predict(params: PyTree, model_state: PyTree, batch: Batch) -> PyTree:
        return jax.nn.sigmoid(inner.predict(params, model_state, batch)["logits"])

    return inner._replace(init=init, predict=predict)


def divergence(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    r"""$\mathrm{KL}(N(\mu, \sigma^2)\,\|\,N(0, I))$ in nats: (batch, code) twice to (batch,).

    >>> print(divergence(jnp.ones((1, 3)), jnp.zeros((1, 3))))
    [1.5]
    """
    terms = jnp.square(mean) + jnp.expm1(log_variance) - log_variance
    return terms.sum(-1) / 2


def _itself(task: Task) -> Task:
    """The task with `target` as labels, and where a batch has none with the inputs."""

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


def _check_unit(pixels: Any) -> None:
    """Raise for pixels outside [0, 1]; inside a compiled function nothing can be looked at."""
    if not isinstance(pixels, np.ndarray | jax.Array) or isinstance(pixels, Tracer):
        return
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 1:
        raise error(
            "x",
            expected="pixels from 0 to 1, because binary cross-entropy has no lower end for others",
            got=f"numbers from {low:g} to {high:g}",
            fix='divide by the largest value, or use pixels="gaussian"',
        )
