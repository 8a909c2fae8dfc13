"""Generative adversarial networks: two tasks for `jdl.game`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jdl import metrics as measures
from jdl.core import tree
from jdl.core.errors import check_one_of, check_range, error, require_key
from jdl.core.nouns import check_model
from jdl.core.types import Batch, Key, Mean, Metrics, Model, PyTree, Task
from jdl.metrics.checks import check_one_array
from jdl.tasks.masks import hide_masked
from jdl.tasks.supervised import examples, refuse_masked_statistics


class Objective(NamedTuple):
    """The losses (batch,) of both players, from the discriminator's outputs (batch,)."""

    discriminator: Callable[[jax.Array, jax.Array], jax.Array]
    """From the outputs on real and on generated examples."""
    generator: Callable[[jax.Array], jax.Array]
    """From the outputs on generated examples."""


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
    r"""The generator's and the discriminator's task, for the players of these names in a `game`.

    A batch holds real examples `x` (batch, ...) and may have a `mask` (batch,). The generator maps
    $z \sim N(0, I)$ (batch, latent) to examples, the discriminator maps examples to logits (batch,)
    or (batch, 1). The discriminator and the generator minimise

    - "non_saturating": $-\log\sigma(D(x)) - \log(1 - \sigma(D(G(z))))$ and
      $-\log\sigma(D(G(z)))$ (Goodfellow et al. 2014);
    - "wasserstein": $D(G(z)) - D(x)$ and $-D(G(z))$ (Arjovsky, Chintala & Bottou 2017), which needs
      a bound on the slope of D, such as `gradient_penalty` or spectral normalisation;
    - "hinge": $\max(0, 1 - D(x)) + \max(0, 1 + D(G(z)))$ and $-D(G(z))$ (Miyato et al. 2018).

    Two penalties add to the discriminator's loss in training, but not to `metrics["loss"]`:

    - `r1`: $\frac{r_1}{2} \lVert \nabla_x D(x) \rVert^2$ (Mescheder, Geiger & Nowozin 2018);
    - `gradient_penalty` $\lambda$: $\lambda (\lVert \nabla_{\hat x} D(\hat x) \rVert - 1)^2$ at
      $\hat x = \epsilon x + (1 - \epsilon) G(z)$ with $\epsilon \sim U(0, 1)$ per example, the
      WGAN-GP of Gulrajani et al. (2017), who use $\lambda = 10$.

    They assume that D of an example depends on this example alone, so use a discriminator without
    batch statistics. `predict` returns the generator's outputs for `batch["z"]` (batch, latent).

    Raises `InputError` for an unknown `objective` and for negative penalties, at `init` if the
    generator's outputs do not have the shape of the real examples, and in training for a masked
    batch if the discriminator has batch statistics.

    >>> from jdl.models import MLP, from_linen
    >>> generator, discriminator = (from_linen(MLP((), outputs=n)) for n in (2, 1))
    >>> task, _ = gan_tasks(generator, discriminator, latent=3)
    >>> batch = {"x": jnp.ones((4, 2)), "z": jnp.ones((4, 3))}
    >>> params, model_state = jax.eval_shape(task.init, jax.random.key(0), batch)
    >>> everyone = {"generator": params}, {"generator": model_state}
    >>> jax.eval_shape(task.predict, *everyone, batch).shape
    (4, 2)
    """
    check_model(generator, "gan_tasks: generator")
    check_model(discriminator, "gan_tasks: discriminator")
    check_one_of("objective", objective, OBJECTIVES)
    check_range("r1", r1, 0)
    check_range("gradient_penalty", gradient_penalty, 0)
    losses = OBJECTIVES[objective]

    def noise(key: Key, batch: Batch) -> jax.Array:
        return jax.random.normal(key, (tree.leading(batch), latent))

    def init_generator(key: Key, batch: Batch) -> tuple[PyTree, PyTree]:
        params, model_state = generator.init(key, jnp.zeros((tree.leading(batch), latent)))
        z = jax.ShapeDtypeStruct((tree.leading(batch), latent), jnp.float32)
        images, _ = jax.eval_shape(lambda p, s, z: generator.apply(p, s, z), params, model_state, z)
        _check_generated_shape(images, examples(batch))
        return params, model_state

    def init_discriminator(key: Key, batch: Batch) -> tuple[PyTree, PyTree]:
        return discriminator.init(key, examples(batch))

    def discriminate(
        params: PyTree, model_state: PyTree, x: Any, key: Key, train: bool
    ) -> tuple[Any, PyTree]:
        logits, own = discriminator.apply(
            params["discriminator"], model_state["discriminator"], x, key=key, train=train
        )
        check_one_array(logits, "the discriminator's task")
        return logits.reshape(len(x)), {**model_state, "discriminator": own}

    def generate(
        params: PyTree, model_state: PyTree, batch: Batch, key: Key, train: bool
    ) -> tuple[Any, PyTree]:
        noise_key, own_key = jax.random.split(key)
        images, after = generator.apply(
            params["generator"],
            model_state["generator"],
            noise(noise_key, batch),
            key=own_key,
            train=train,
        )
        return images, {**model_state, "generator": after}

    def generator_loss(
        params: PyTree, model_state: PyTree, batch: Batch, key: Key | None, *, train: bool
    ) -> tuple[Mean, tuple[PyTree, Metrics]]:
        first, second = jax.random.split(require_key(key, "a random key, to draw z"))
        fake, model_state = generate(params, model_state, batch, first, train)
        logits, _ = discriminate(params, model_state, fake, second, train)
        mean = measures.mean(losses.generator(logits), **measures.example_weights(batch))
        return mean, (model_state, {"loss": mean})

    def discriminator_loss(
        params: PyTree, model_state: PyTree, batch: Batch, key: Key | None, *, train: bool
    ) -> tuple[Mean, tuple[PyTree, Metrics]]:
        if train:
            refuse_masked_statistics(model_state["discriminator"], batch)
            batch = hide_masked(batch)
        first, second, third = jax.random.split(require_key(key, "a random key, to draw z"), 3)
        fake, _ = generate(params, model_state, batch, first, train)
        fake = jax.lax.stop_gradient(fake)
        weights = measures.example_weights(batch)
        on_real, model_state = discriminate(params, model_state, batch["x"], second, train)
        on_fake, model_state = discriminate(params, model_state, fake, third, train)
        mean = measures.mean(losses.discriminator(on_real, on_fake), **weights)
        metrics = {
            "loss": mean,
            "real_accuracy": measures.fraction(on_real > 0, **weights),
            "fake_accuracy": measures.fraction(on_fake < 0, **weights),
        }
        if not train:
            return mean, (model_state, metrics)

        def squared_slopes(x: Any) -> Any:
            """The squared norm of D's gradient at each example."""
            total = lambda x: discriminate(params, model_state, x, second, train)[0].sum()
            return jnp.square(jax.grad(total)(x)).reshape(len(x), -1).sum(-1)

        penalties = []
        if r1:
            penalties.append(r1 / 2 * squared_slopes(batch["x"]))
        if gradient_penalty:
            between = _between(jax.random.fold_in(third, 1), batch["x"], fake)
            penalties.append(gradient_penalty * jnp.square(_root(squared_slopes(between)) - 1))
        total = mean.total + sum(measures.mean(p, **weights).total for p in penalties)
        return Mean(total, mean.weight), (model_state, metrics)

    def predict(params: PyTree, model_state: PyTree, batch: Batch) -> PyTree:
        return generator.apply(
            params["generator"], model_state["generator"], batch["z"], train=False
        )[0]

    return (
        Task(init_generator, generator_loss, predict),
        Task(init_discriminator, discriminator_loss, predict),
    )


def _between(key: Key, real: Any, fake: Any) -> jax.Array:
    """A random point between each real example and a generated one."""
    share = jax.random.uniform(key, (len(real),) + (1,) * (real.ndim - 1), real.dtype)
    return share * real + (1 - share) * fake


def _root(squared: jax.Array) -> jax.Array:
    """The square root, with gradient zero instead of infinite at zero."""
    positive = squared > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1)), 0)


def _check_generated_shape(fake: Any, real: Any) -> None:
    check_one_array(fake, "the generator's task")
    if jnp.shape(fake)[1:] != jnp.shape(real)[1:]:
        raise error(
            "generator",
            expected=f"outputs of the real examples' shape, {tuple(jnp.shape(real)[1:])}",
            got=f"{tuple(jnp.shape(fake)[1:])}",
            fix="build the generator with that shape",
        )
