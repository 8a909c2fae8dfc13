"""A generator against a discriminator: two tasks for `jdl.game`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jdl import metrics as measures
from jdl.core import tree
from jdl.core.errors import check_one_of, check_range, error, require_key
from jdl.core.types import Batch, Key, Mean, Metrics, Model, PyTree, Task
from jdl.tasks.supervised import examples, refuse_masked_statistics


class Objective(NamedTuple):
    """What the players minimise, for each example, given the discriminator's outputs."""

    discriminator: Callable[[jax.Array, jax.Array], jax.Array]
    """Of the outputs on real and on invented examples."""
    generator: Callable[[jax.Array], jax.Array]
    """Of the outputs on invented examples."""


OBJECTIVES = {
    "hinge": Objective(
        lambda real, fake: jnp.maximum(0, 1 - real) + jnp.maximum(0, 1 + fake), lambda fake: -fake
    ),
    # -log σ(D) = softplus(-D) and -log(1 - σ(D)) = softplus(D), finite for any logit.
    "non_saturating": Objective(
        lambda real, fake: jax.nn.softplus(-real) + jax.nn.softplus(fake),
        lambda fake: jax.nn.softplus(-fake),
    ),
    "wasserstein": Objective(lambda real, fake: fake - real, lambda fake: -fake),
}


def gan_tasks(
    generator: Model,
    discriminator: Model,
    latent: int,
    r1: float = 0.0,
    *,
    objective: str = "non_saturating",
    gradient_penalty: float = 0.0,
) -> tuple[Task, Task]:
    r"""The tasks of `generator` and `discriminator`, which are the players' names in the game.

    With $z \sim N(0, I)$ of size `latent`, the discriminator and the generator minimise

    - "non_saturating": $-\log\sigma(D(x)) - \log(1 - \sigma(D(G(z))))$ and
      $-\log\sigma(D(G(z)))$ (Goodfellow et al. 2014);
    - "wasserstein": $D(G(z)) - D(x)$ and $-D(G(z))$ (Arjovsky et al. 2017), which bounds nothing
      unless D's slope is bounded, as by `gradient_penalty` or by spectral normalisation;
    - "hinge": $\max(0, 1 - D(x)) + \max(0, 1 + D(G(z)))$ and $-D(G(z))$ (Miyato et al. 2018).

    To the discriminator's mean the penalties add $\frac{r_1}{2} \lVert \nabla_x D(x) \rVert^2$ at
    real examples (Mescheder, Geiger & Nowozin 2018) and, with weight $\lambda$,
    $\lambda (\lVert \nabla_{\hat x} D(\hat x) \rVert - 1)^2$ at
    $\hat x = \epsilon x + (1 - \epsilon) G(z)$, $\epsilon \sim U(0, 1)$ for each example, the
    WGAN-GP of Gulrajani et al. (2017), whose $\lambda$ is 10. They are no part of
    `metrics["loss"]`, and want a discriminator without batch statistics, since D of an example
    must depend on this example alone. `predict` returns the generator's outputs for `batch["z"]`.

    A batch holds real examples `x` and, where needed, a `mask`. Neither network sees the mask, so
    it is refused in training if the discriminator has batch statistics.
    """
    check_one_of("objective", objective, OBJECTIVES)
    check_range("r1", r1, 0)
    check_range("gradient_penalty", gradient_penalty, 0)
    aims = OBJECTIVES[objective]

    def noise(key: Key, batch: Batch) -> jax.Array:
        return jax.random.normal(key, (tree.leading(batch), latent))

    def make_generator(key: Key, batch: Batch) -> tuple[PyTree, PyTree]:
        params, model_state = generator.init(key, jnp.zeros((tree.leading(batch), latent)))
        z = jax.ShapeDtypeStruct((tree.leading(batch), latent), jnp.float32)
        images, _ = jax.eval_shape(lambda p, s, z: generator.apply(p, s, z), params, model_state, z)
        _check_alike(images, examples(batch))
        return params, model_state

    def make_discriminator(key: Key, batch: Batch) -> tuple[PyTree, PyTree]:
        return discriminator.init(key, examples(batch))

    def judge(
        params: PyTree, model_state: PyTree, x: Any, key: Key, train: bool
    ) -> tuple[Any, PyTree]:
        logits, own = discriminator.apply(
            params["discriminator"], model_state["discriminator"], x, key=key, train=train
        )
        return logits.reshape(len(x)), {**model_state, "discriminator": own}

    def invent(
        params: PyTree, model_state: PyTree, batch: Batch, key: Key, train: bool
    ) -> tuple[Any, PyTree]:
        draw, own = jax.random.split(key)
        images, after = generator.apply(
            params["generator"], model_state["generator"], noise(draw, batch), key=own, train=train
        )
        return images, {**model_state, "generator": after}

    def generator_loss(
        params: PyTree, model_state: PyTree, batch: Batch, key: Key | None, *, train: bool
    ) -> tuple[Mean, tuple[PyTree, Metrics]]:
        first, second = jax.random.split(require_key(key, "a random key, to draw z"))
        fake, model_state = invent(params, model_state, batch, first, train)
        logits, _ = judge(params, model_state, fake, second, train)
        mean = measures.masked_mean(aims.generator(logits), batch.get("mask"))
        return mean, (model_state, {"loss": mean})

    def discriminator_loss(
        params: PyTree, model_state: PyTree, batch: Batch, key: Key | None, *, train: bool
    ) -> tuple[Mean, tuple[PyTree, Metrics]]:
        if train:
            refuse_masked_statistics(model_state["discriminator"], batch)
        first, second, third = jax.random.split(require_key(key, "a random key, to draw z"), 3)
        fake, _ = invent(params, model_state, batch, first, train)
        fake = jax.lax.stop_gradient(fake)
        on_real, model_state = judge(params, model_state, batch["x"], second, train)
        on_fake, model_state = judge(params, model_state, fake, third, train)
        mean = measures.masked_mean(aims.discriminator(on_real, on_fake), batch.get("mask"))
        metrics = {
            "loss": mean,
            "real_accuracy": measures.masked_fraction(on_real > 0, batch.get("mask")),
            "fake_accuracy": measures.masked_fraction(on_fake < 0, batch.get("mask")),
        }
        if not train:
            return mean, (model_state, metrics)

        def slopes(x: Any) -> Any:
            """The squared norm of D's gradient at each example."""
            total = lambda x: judge(params, model_state, x, second, train)[0].sum()
            return jnp.square(jax.grad(total)(x)).reshape(len(x), -1).sum(-1)

        penalties = []
        if r1:
            penalties.append(r1 / 2 * slopes(batch["x"]))
        if gradient_penalty:
            between = _between(jax.random.fold_in(third, 1), batch["x"], fake)
            penalties.append(gradient_penalty * jnp.square(_root(slopes(between)) - 1))
        total = mean.total + sum(
            measures.masked_mean(p, batch.get("mask")).total for p in penalties
        )
        return Mean(total, mean.weight), (model_state, metrics)

    def predict(params: PyTree, model_state: PyTree, batch: Batch) -> PyTree:
        return generator.apply(
            params["generator"], model_state["generator"], batch["z"], train=False
        )[0]

    return (
        Task(make_generator, generator_loss, predict),
        Task(make_discriminator, discriminator_loss, predict),
    )


def _between(key: Key, real: Any, fake: Any) -> jax.Array:
    """A point on the line from each invented example to a real one."""
    share = jax.random.uniform(key, (len(real),) + (1,) * (real.ndim - 1), real.dtype)
    return share * real + (1 - share) * fake


def _root(squared: jax.Array) -> jax.Array:
    """The square root, with gradient zero instead of infinite at zero."""
    positive = squared > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1)), 0)


def _check_alike(invented: Any, real: Any) -> None:
    if jnp.shape(invented)[1:] != jnp.shape(real)[1:]:
        raise error(
            "generator",
            expected=f"outputs of the real examples' shape, {tuple(jnp.shape(real)[1:])}",
            got=f"{tuple(jnp.shape(invented)[1:])}",
            fix="give the generator that shape",
        )
