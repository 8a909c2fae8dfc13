"""A generator against a discriminator: two tasks for `jdl.game`."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jdl import metrics as measures
from jdl.core import tree
from jdl.core.types import Batch, Key, Mean, Metrics, Model, PyTree, Task


def adversarial(
    generator: Model, discriminator: Model, latent: int, r1: float = 0.0
) -> tuple[Task, Task]:
    r"""The tasks of `generator` and `discriminator`, which are the players' names in the game.

    With $z \sim N(0, I)$ of size `latent` and logits D: the discriminator minimises
    $-\log\sigma(D(x)) - \log(1 - \sigma(D(G(z)))) + \frac{r_1}{2} \lVert \nabla_x D(x) \rVert^2$,
    the generator $-\log\sigma(D(G(z)))$, the non-saturating form. The penalty is taken at real
    examples (Goodfellow et al. 2014; Mescheder, Geiger & Nowozin 2018, "R1"). It is no part of
    `metrics["loss"]`. `predict` returns the generator's outputs for `batch["z"]`.

    A batch holds real examples `x` and, where needed, a `mask`. Neither network sees the mask.
    """

    def noise(key: Key, batch: Batch) -> jax.Array:
        return jax.random.normal(key, (tree.leading(batch), latent))

    def make_generator(key: Key, batch: Batch) -> tuple[PyTree, PyTree]:
        return generator.init(key, jnp.zeros((tree.leading(batch), latent)))

    def make_discriminator(key: Key, batch: Batch) -> tuple[PyTree, PyTree]:
        return discriminator.init(key, batch["x"])

    def judge(params: PyTree, state: PyTree, x: Any, key: Key, train: bool) -> tuple[Any, PyTree]:
        logits, own = discriminator.apply(
            params["discriminator"], state["discriminator"], x, key=key, train=train
        )
        return logits.reshape(len(x)), {**state, "discriminator": own}

    def invent(
        params: PyTree, state: PyTree, batch: Batch, key: Key, train: bool
    ) -> tuple[Any, PyTree]:
        draw, own = jax.random.split(key)
        images, after = generator.apply(
            params["generator"], state["generator"], noise(draw, batch), key=own, train=train
        )
        return images, {**state, "generator": after}

    def generator_loss(
        params: PyTree, state: PyTree, batch: Batch, key: Key, *, train: bool
    ) -> tuple[Mean, tuple[PyTree, Metrics]]:
        first, second = jax.random.split(key)
        fake, state = invent(params, state, batch, first, train)
        logits, _ = judge(params, state, fake, second, train)
        values = optax.sigmoid_binary_cross_entropy(logits, jnp.ones_like(logits))
        mean = measures.mean(values, batch.get("mask"))
        return mean, (state, {"loss": mean})

    def discriminator_loss(
        params: PyTree, state: PyTree, batch: Batch, key: Key, *, train: bool
    ) -> tuple[Mean, tuple[PyTree, Metrics]]:
        first, second, third = jax.random.split(key, 3)
        fake, _ = invent(params, state, batch, first, train)
        on_real, state = judge(params, state, batch["x"], second, train)
        on_fake, state = judge(params, state, jax.lax.stop_gradient(fake), third, train)
        values = optax.sigmoid_binary_cross_entropy(on_real, jnp.ones_like(on_real))
        values += optax.sigmoid_binary_cross_entropy(on_fake, jnp.zeros_like(on_fake))
        mean = measures.mean(values, batch.get("mask"))
        metrics = {
            "loss": mean,
            "real_accuracy": measures.share(on_real > 0, batch.get("mask")),
            "fake_accuracy": measures.share(on_fake < 0, batch.get("mask")),
        }
        if not (train and r1):
            return mean, (state, metrics)

        def total(x: Any) -> Any:
            return judge(params, state, x, second, train)[0].sum()

        slopes = jnp.square(jax.grad(total)(batch["x"])).reshape(len(on_real), -1).sum(-1)
        penalty = measures.mean(slopes, batch.get("mask"))
        return Mean(mean.total + r1 / 2 * penalty.total, mean.weight), (state, metrics)

    def predict(params: PyTree, state: PyTree, batch: Batch) -> PyTree:
        return generator.apply(params["generator"], state["generator"], batch["z"], train=False)[0]

    return (
        Task(make_generator, generator_loss, predict),
        Task(make_discriminator, discriminator_loss, predict),
    )
