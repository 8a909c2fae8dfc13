"""The adversarial tasks against formulas written out in numpy."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl

KEY = jax.random.key(0)
REAL = {"x": np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)}


def linear() -> jdl.Model:
    """Outputs x @ w, with w drawn once."""
    return jdl.from_functions(
        init=lambda key, x: {"w": jax.random.normal(key, (x.shape[-1], 2))},
        apply=lambda params, x: x @ params["w"],
    )


def judge() -> jdl.Model:
    """A logit, quadratic in x, so that its slope depends on x."""
    return jdl.from_functions(
        init=lambda key, x: {"a": jax.random.normal(key, (x.shape[-1],))},
        apply=lambda params, x: (jnp.square(x) @ params["a"])[:, None],
    )


def tasks(r1: float = 0.0):
    makes, judges = jdl.tasks.adversarial(linear(), judge(), latent=3, r1=r1)
    params, state = {}, {}
    for name, task in {"generator": makes, "discriminator": judges}.items():
        params[name], state[name] = task.init(jax.random.fold_in(KEY, len(name)), REAL)
    return makes, judges, params, state


def softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, x)


def test_losses_are_those_of_the_non_saturating_game():
    makes, judges, params, state = tasks()
    fake = {}

    for name, parts in (("g", 2), ("d", 3)):
        # The noise that the loss draws: from the first of so many keys, split once more.
        draw, _ = jax.random.split(jax.random.split(KEY, parts)[0])
        z = jax.random.normal(draw, (6, 3))
        fake[name] = np.asarray(makes.predict(params, state, {"z": z}))
    logit = lambda x: np.square(x) @ np.asarray(params["discriminator"]["a"])
    got, _ = makes.loss(params, state, REAL, KEY, train=True)
    np.testing.assert_allclose(got.value, softplus(-logit(fake["g"])).mean(), rtol=1e-5)
    got, (_, metrics) = judges.loss(params, state, REAL, KEY, train=True)
    want = softplus(-logit(REAL["x"])) + softplus(logit(fake["d"]))
    np.testing.assert_allclose(got.value, want.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["real_accuracy"].value, (logit(REAL["x"]) > 0).mean())


def test_r1_is_half_the_squared_slope_at_real_examples_and_no_part_of_the_loss():
    _, plain, params, state = tasks()
    _, penalised, _, _ = tasks(r1=0.3)
    without, (_, _) = plain.loss(params, state, REAL, KEY, train=True)
    with_it, (_, metrics) = penalised.loss(params, state, REAL, KEY, train=True)
    slope = 2 * REAL["x"] * np.asarray(params["discriminator"]["a"])[None]
    want = 0.15 * np.square(slope).sum(-1).mean()
    np.testing.assert_allclose(with_it.value - without.value, want, rtol=1e-4)
    chex.assert_trees_all_equal(metrics["loss"], without)
    evaluated, _ = penalised.loss(params, state, REAL, KEY, train=False)
    np.testing.assert_allclose(evaluated.value, without.value, rtol=1e-6)


def test_the_discriminators_loss_does_not_reach_the_generator():
    makes, judges, params, state = tasks(r1=0.1)
    slopes = jax.grad(lambda p: judges.loss(p, state, REAL, KEY, train=True)[0].total)(params)
    assert not np.any(slopes["generator"]["w"]) and np.all(slopes["discriminator"]["a"])
    slopes = jax.grad(lambda p: makes.loss(p, state, REAL, KEY, train=True)[0].total)(params)
    assert np.all(slopes["generator"]["w"])


@pytest.mark.parametrize("first", ["generator", "discriminator"])
def test_each_player_moves_only_itself(first):
    makes, judges, _, _ = tasks()
    still, moving = optax.set_to_zero(), optax.sgd(0.1)
    players = {
        "generator": jdl.Player(makes, moving if first == "generator" else still),
        "discriminator": jdl.Player(judges, moving if first == "discriminator" else still),
    }
    game = jdl.game(**players)
    train = game.init(KEY, REAL)
    after, _ = game.step(train, REAL)
    for name in players:
        same = jax.tree.all(
            jax.tree.map(lambda a, b: bool((a == b).all()), train.params[name], after.params[name])
        )
        assert same == (name != first)
