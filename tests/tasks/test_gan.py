"""The adversarial tasks against formulas written out in numpy."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import jdl
from jdl.tasks.gan import OBJECTIVES
from tests.support.learners import assert_same_bits, differ, message

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
    makes, judges = jdl.tasks.gan_tasks(linear(), judge(), latent=3, r1=r1)
    params, model_state = {}, {}
    for name, task in {"generator": makes, "discriminator": judges}.items():
        params[name], model_state[name] = task.init(jax.random.fold_in(KEY, len(name)), REAL)
    return makes, judges, params, model_state


def softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, x)


def test_losses_are_those_of_the_non_saturating_game():
    makes, judges, params, model_state = tasks()
    fake = {}

    for name, parts in (("g", 2), ("d", 3)):
        # The noise that the loss draws: from the first of so many keys, split once more.
        draw, _ = jax.random.split(jax.random.split(KEY, parts)[0])
        z = jax.random.normal(draw, (6, 3))
        fake[name] = np.asarray(makes.predict(params, model_state, {"z": z}))
    logit = lambda x: np.square(x) @ np.asarray(params["discriminator"]["a"])
    got, _ = makes.loss(params, model_state, REAL, KEY, train=True)
    np.testing.assert_allclose(got.value, softplus(-logit(fake["g"])).mean(), rtol=1e-5)
    got, (_, metrics) = judges.loss(params, model_state, REAL, KEY, train=True)
    want = softplus(-logit(REAL["x"])) + softplus(logit(fake["d"]))
    np.testing.assert_allclose(got.value, want.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["real_accuracy"].value, (logit(REAL["x"]) > 0).mean())


def test_r1_is_half_the_squared_slope_at_real_examples_and_no_part_of_the_loss():
    _, plain, params, model_state = tasks()
    _, penalised, _, _ = tasks(r1=0.3)
    without, (_, _) = plain.loss(params, model_state, REAL, KEY, train=True)
    with_it, (_, metrics) = penalised.loss(params, model_state, REAL, KEY, train=True)
    slope = 2 * REAL["x"] * np.asarray(params["discriminator"]["a"])[None]
    want = 0.15 * np.square(slope).sum(-1).mean()
    np.testing.assert_allclose(with_it.value - without.value, want, rtol=1e-4)
    chex.assert_trees_all_equal(metrics["loss"], without)
    evaluated, _ = penalised.loss(params, model_state, REAL, KEY, train=False)
    np.testing.assert_allclose(evaluated.value, without.value, rtol=1e-6)


def test_the_discriminators_loss_does_not_reach_the_generator():
    makes, judges, params, model_state = tasks(r1=0.1)
    slopes = jax.grad(lambda p: judges.loss(p, model_state, REAL, KEY, train=True)[0].total)(params)
    assert not np.any(slopes["generator"]["w"]) and np.all(slopes["discriminator"]["a"])
    slopes = jax.grad(lambda p: makes.loss(p, model_state, REAL, KEY, train=True)[0].total)(params)
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


def smooth_tasks(**options):
    """A pair whose discriminator bends, so that its slope depends on where it is taken."""
    discriminator = jdl.from_functions(
        init=lambda key, x: {
            "in": jax.random.normal(key, (x.shape[-1], 3)),
            "out": jax.random.normal(jax.random.fold_in(key, 1), (3, 1)),
        },
        apply=lambda params, x: jnp.tanh(x @ params["in"]) @ params["out"],
    )
    makes, judges = jdl.tasks.gan_tasks(linear(), discriminator, latent=3, **options)
    params, model_state = {}, {}
    for name, task in {"generator": makes, "discriminator": judges}.items():
        params[name], model_state[name] = task.init(jax.random.fold_in(KEY, len(name)), REAL)
    return makes, judges, params, model_state


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_each_objective_is_its_formula(objective):
    makes, judges, params, model_state = smooth_tasks(objective=objective)
    network = params["discriminator"]

    def logit(x):
        return (np.tanh(x @ np.asarray(network["in"])) @ np.asarray(network["out"]))[:, 0]

    fake = {}
    for name, parts in (("g", 2), ("d", 3)):
        draw, _ = jax.random.split(jax.random.split(KEY, parts)[0])
        z = jax.random.normal(draw, (6, 3))
        fake[name] = np.asarray(makes.predict(params, model_state, {"z": z}))
    want_d, want_g = {
        "non_saturating": (lambda r, f: softplus(-r) + softplus(f), lambda f: softplus(-f)),
        "wasserstein": (lambda r, f: f - r, lambda f: -f),
        "hinge": (lambda r, f: np.maximum(0, 1 - r) + np.maximum(0, 1 + f), lambda f: -f),
    }[objective]
    got, _ = judges.loss(params, model_state, REAL, KEY, train=True)
    want = want_d(logit(REAL["x"]), logit(fake["d"])).mean()
    np.testing.assert_allclose(got.value, want, rtol=1e-4, atol=1e-6)
    got, _ = makes.loss(params, model_state, REAL, KEY, train=True)
    np.testing.assert_allclose(got.value, want_g(logit(fake["g"])).mean(), rtol=1e-4, atol=1e-6)


def test_the_non_saturating_losses_are_finite_at_logits_of_800():
    real, fake = jnp.array([800.0, -800.0]), jnp.array([-800.0, 800.0])
    aims = OBJECTIVES["non_saturating"]
    value, slope = jax.value_and_grad(lambda r: aims.discriminator(r, fake).sum())(real)
    assert value == 1600 and (slope == jnp.array([0.0, -1.0])).all()
    value, slope = jax.value_and_grad(lambda f: aims.generator(f).sum())(fake)
    assert value == 800 and (slope == jnp.array([-1.0, 0.0])).all()


def test_the_gradient_penalty_holds_the_slope_to_one():
    """A linear discriminator has slope |a| everywhere, whatever point the penalty draws."""

    def pair(weight):
        flat = jdl.from_functions(
            init=lambda key, x: {"a": jnp.array([3.0, -4.0])}, apply=lambda p, x: x @ p["a"]
        )
        return jdl.tasks.gan_tasks(
            linear(), flat, latent=3, objective="wasserstein", gradient_penalty=weight
        )

    params, model_state = {}, {}
    for name, task in zip(("generator", "discriminator"), pair(0.0), strict=True):
        params[name], model_state[name] = task.init(KEY, REAL)
    without, with_it = (
        pair(weight)[1].loss(params, model_state, REAL, KEY, train=True) for weight in (0.0, 10.0)
    )
    np.testing.assert_allclose(with_it[0].value - without[0].value, 10 * (5 - 1) ** 2, rtol=1e-5)
    chex.assert_trees_all_equal(with_it[1][1]["loss"], without[0])


@pytest.mark.parametrize(
    "options", [{"gradient_penalty": 10.0}, pytest.param({"r1": 0.3}, marks=pytest.mark.slow)]
)
def test_the_gradient_of_a_penalty_equals_finite_differences(options, x64):
    _, judges, params, model_state = smooth_tasks(objective="wasserstein", **options)
    params = jax.tree.map(jnp.float64, params)
    batch = {"x": jnp.asarray(np.random.default_rng(0).normal(size=(6, 2)))}

    @jax.jit
    def loss(own):
        everyone = params | {"discriminator": own}
        return judges.loss(everyone, model_state, batch, KEY, train=True)[0].value

    flat, unflatten = ravel_pytree(params["discriminator"])
    steps = 1e-5 * jnp.eye(flat.size)
    wanted = [
        (loss(unflatten(flat + step)) - loss(unflatten(flat - step))) / 2e-5 for step in steps
    ]
    got, _ = ravel_pytree(jax.jit(jax.grad(loss))(params["discriminator"]))
    np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-8)


def test_a_slope_of_zero_gives_the_penalty_a_finite_gradient():
    _, judges, params, model_state = smooth_tasks(gradient_penalty=10.0)
    params["discriminator"] = jax.tree.map(jnp.zeros_like, params["discriminator"])
    slopes = jax.grad(lambda p: judges.loss(p, model_state, REAL, KEY, train=True)[0].total)(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


def check_the_game(makes, judges, params, model_state):
    """Each player moves its own way, and the discriminator looks at real data."""
    z = jax.random.normal(KEY, (256, 3))
    # Outputs zero at first: every example pulls with the same weight, whatever the objective.
    blank = params["discriminator"] | {"out": jnp.zeros((3, 1))}

    def logit(params, x):
        network = params["discriminator"]
        return float((jnp.tanh(x @ network["in"]) @ network["out"]).mean())

    def moved(name, task, params, batch=REAL):
        """A small step downhill on the player's own loss, over many draws of the noise."""

        @jax.jit
        def slope(own, key):
            loss = lambda own: task.loss(params | {name: own}, model_state, batch, key, train=True)[
                0
            ]
            return jax.grad(lambda own: loss(own).value)(own)

        slopes = jax.vmap(slope, (None, 0))(params[name], jax.random.split(KEY, 64))
        changed = jax.tree.map(lambda w, g: w - 0.02 * g.mean(0), params[name], slopes)
        return params | {name: changed}

    begin = params | {"discriminator": blank}
    after = moved("discriminator", judges, begin)
    fake = makes.predict(begin, model_state, {"z": z})
    assert logit(after, REAL["x"]) > logit(after, fake), (
        "the discriminator must tell real from invented"
    )
    elsewhere = moved("discriminator", judges, begin, {"x": REAL["x"] + 1})
    assert differ(after["discriminator"], elsewhere["discriminator"]), (
        "the discriminator must look at the real data"
    )
    invented = makes.predict(moved("generator", makes, params), model_state, {"z": z})
    assert logit(params, invented) > logit(params, makes.predict(params, model_state, {"z": z})), (
        "the generator must please the discriminator more"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "objective",
    ["non_saturating", "wasserstein", "hinge"],
)
def test_each_player_pulls_its_own_way(objective):
    check_the_game(*smooth_tasks(objective=objective))


def negative(task):
    """The wrong form: ascent where descent is meant."""

    def loss(*args, **kwargs):
        mean, aux = task.loss(*args, **kwargs)
        return jdl.Mean(-mean.total, mean.weight), aux

    return task._replace(loss=loss)


def blindfolded(makes, judges):
    """The wrong form: the discriminator is shown invented examples in place of real ones."""

    def loss(params, model_state, batch, key, *, train):
        z = jax.random.normal(key, (6, 3))
        fake = makes.predict(params, model_state, {"z": z})
        return judges.loss(params, model_state, {**batch, "x": fake}, key, train=train)

    return judges._replace(loss=loss)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["discriminator", "generator", "no real data"])
def test_reversed_signs_and_a_blindfold_would_be_caught(wrong):
    makes, judges, params, model_state = smooth_tasks()
    if wrong == "discriminator":
        judges = negative(judges)
    elif wrong == "generator":
        makes = negative(makes)
    else:
        judges = blindfolded(makes, judges)
    with pytest.raises(AssertionError, match="must"):
        check_the_game(makes, judges, params, model_state)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["normalised and spectral", "WGAN-GP"])
def test_a_step_of_one_leaves_the_others_bits(kind):
    """Weights, batch statistics and power iteration of the other stay as they are."""
    gan, penalty = kind == "WGAN-GP", {"objective": "wasserstein", "gradient_penalty": 10.0}
    makes, judges = jdl.tasks.gan_tasks(
        jdl.from_linen(jdl.models.DenseGenerator((4,), (2,), normalised=True)),
        jdl.from_linen(jdl.models.DenseDiscriminator((4,), spectral=not gan)),
        latent=3,
        **(penalty if gan else {}),
    )
    match = jdl.game(
        generator=jdl.Player(makes, optax.adam(2e-4, 0.5), every=2),
        discriminator=jdl.Player(judges, optax.adam(8e-4, 0.5), every=3),
    )
    start, step = match.init(KEY, REAL), jax.jit(match.step)
    for number, moving in ((2, "generator"), (3, "discriminator")):
        before = start.replace(step=jnp.int32(number))
        after, _ = step(before, REAL)
        for name in ("generator", "discriminator"):
            parts = [
                (s.params[name], s.model_state[name], s.opt_state[name]) for s in (before, after)
            ]
            if name == moving:
                assert differ(parts[0][0], parts[1][0])
            else:
                assert_same_bits(*parts)
        if moving == "generator":
            assert differ(before.model_state["generator"], after.model_state["generator"])


def test_a_mask_is_refused_where_it_cannot_reach_the_statistics():
    convolutional = jdl.models.ConvDiscriminator((2, 2))
    _, judges = jdl.tasks.gan_tasks(linear(), jdl.from_linen(convolutional), latent=3)
    batch = {"x": jnp.zeros((2, 8, 8, 1)), "mask": jnp.ones(2)}
    params, model_state = judges.init(KEY, batch)
    text = message(
        lambda: judges.loss(
            {"discriminator": params}, {"discriminator": model_state}, batch, KEY, train=True
        )
    )
    assert "batch statistics" in text


def test_what_cannot_be_played_is_refused():
    text = message(lambda: jdl.tasks.gan_tasks(linear(), judge(), 3, objective="wassrstein"))
    assert 'did you mean "wasserstein"?' in text
    text = message(lambda: jdl.tasks.gan_tasks(linear(), judge(), 3, gradient_penalty=-1))
    assert "gradient_penalty" in text
    makes, _ = jdl.tasks.gan_tasks(linear(), judge(), 3)
    text = message(lambda: makes.init(KEY, {"x": np.zeros((6, 5), np.float32)}))
    assert "shape, (5,)" in text and "(2,)" in text
