"""Schedules by name and the chains around an optimizer."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

import jdl
from jdl import optim
from jdl.core import tree
from jdl.core.errors import InputError
from jdl.parallel import rules

PARAMS = {
    "conv_1": {"kernel": jnp.ones((3, 3, 1, 2)), "bias": jnp.ones(2)},
    "norm": {"scale": jnp.ones(2)},
    "attention": {"bias": jnp.ones((2, 4)), "kernel": jnp.ones((2, 4))},
}


@pytest.mark.parametrize(
    "name, options, expected",
    [
        ("constant", {}, {0: 1, 100: 1}),
        ("step", {"factor": 0.5, "at": (0.3, 0.6)}, {0: 1, 29: 1, 31: 0.5, 59: 0.5, 61: 0.25}),
        ("exponential", {"factor": 0.5, "every": 10}, {0: 1, 5: 0.5**0.5, 20: 0.25}),
        ("exponential", {"factor": 0.5, "every": 10, "staircase": True}, {9: 1, 10: 0.5, 25: 0.25}),
        ("cosine", {"end": 0.1}, {0: 1, 50: 0.55, 100: 0.1, 200: 0.1}),
        ("warmup_cosine", {"warmup": 0.2}, {0: 1 / 21, 10: 11 / 21, 20: 1, 60: 0.5, 100: 0}),
    ],
)
def test_schedules(name, options, expected):
    rate = optim.schedule(name, 0.3, 100, **options)
    for step, part in expected.items():
        np.testing.assert_allclose(rate(step), 0.3 * part, rtol=1e-5, atol=1e-7)


T = np.arange(1001)
CLOSED = [
    ("constant", {}, np.ones(1001)),
    ("step", {"factor": 0.2, "at": (0.3, 0.6, 0.8)}, 0.2 ** np.digitize(T, [300, 600, 800])),
    ("exponential", {"factor": 0.3}, 0.3 ** (T / 1000)),
    ("exponential", {"factor": 0.5, "every": 70}, 0.5 ** (T / 70)),
    ("exponential", {"factor": 0.5, "every": 70, "staircase": True}, 0.5 ** (T // 70)),
    ("cosine", {"end": 0.1}, 0.1 + 0.9 * (1 + np.cos(np.pi * T / 1000)) / 2),
    (
        "warmup_cosine",
        {"warmup": 0.2, "end": 0.05},
        np.where(T < 200, (T + 1) / 201, 0.05 + 0.95 * (1 + np.cos(np.pi * (T - 200) / 800)) / 2),
    ),
]


@pytest.mark.parametrize("name, options, expected", CLOSED)
def test_schedules_in_closed_form_at_every_step(name, options, expected, x64):
    rate = optim.schedule(name, 0.3, 1000, **options)
    values = jnp.broadcast_to(jax.jit(jax.vmap(rate))(jnp.arange(1001)), 1001)
    np.testing.assert_allclose(values, 0.3 * expected, rtol=1e-9, atol=1e-12)


def test_a_warmup_of_nothing_is_a_cosine():
    plain, warm = (
        optim.schedule("cosine", 0.3, 20),
        optim.schedule("warmup_cosine", 0.3, 20, warmup=0),
    )
    assert [float(warm(t)) for t in range(21)] == [float(plain(t)) for t in range(21)]
    assert float(optim.schedule("warmup_cosine", 1.0, 1, warmup=0.0)(0)) == 1


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 6])
def test_a_short_run_has_both_steps_of_a_schedule(steps):
    rate = optim.schedule("step", 1.0, steps)
    values = [float(rate(t)) for t in range(steps + 1)]
    assert values[0] == 1 and values[-1] == pytest.approx(0.01)
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("name", ["constant", "step", "exponential", "cosine", "warmup_cosine"])
def test_the_learning_rate_may_be_traced(name):
    rates = jnp.array([0.1, 0.2])
    values = jax.vmap(lambda rate: optim.schedule(name, rate, 10)(3))(rates)
    np.testing.assert_allclose(values[1], 2 * values[0])
    assert values[0] > 0


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop", "adagrad", "lion", "lamb"])
def test_optimizers_by_name(name):
    options = {"eps": 1e-3} if name == "adam" else {}
    ours, theirs = optim.by_name(name, 0.1, **options), getattr(optax, name)(0.1, **options)
    one, two = (tx.update(PARAMS, tx.init(PARAMS), PARAMS)[0] for tx in (ours, theirs))
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_decay_mask_leaves_biases_and_scales_alone():
    decays = {name for name, value in tree.flatten(optim.decay_mask(PARAMS)).items() if value}
    assert decays == {"conv_1/kernel", "attention/kernel"}
    tx = optax.adamw(0.1, weight_decay=0.5, mask=optim.decay_mask)
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    updates = tree.flatten(tx.update(zero, tx.init(PARAMS), PARAMS)[0])
    assert {name for name, value in updates.items() if value.any()} == decays


def test_clip_limits_the_gradient_before_the_optimizer():
    tx = optim.clip(optax.sgd(1.0), 0.5)
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    np.testing.assert_allclose(optax.tree.norm(updates), 0.5, rtol=1e-6)
    small = jax.tree.map(lambda w: w * 1e-3, PARAMS)
    updates, _ = tx.update(small, tx.init(PARAMS), PARAMS)
    np.testing.assert_allclose(optax.tree.norm(updates), optax.tree.norm(small), rtol=1e-6)


def test_soft_thresholding_solves_the_lasso_with_exact_zeros():
    # With orthonormal columns the minimum of 1/2 |w - b|^2 + t |w|_1 is known.
    b = np.array([[3.0, 0.2, -0.1, -2.0, 0.0, 0.5]])
    expected = np.sign(b) * np.maximum(np.abs(b) - 0.4, 0)
    tx = optax.chain(optax.sgd(0.3), optim.soft_threshold(0.3 * 0.4))
    params = {"kernel": jnp.full(b.shape, 1.0), "bias": jnp.ones(6)}

    @jax.jit
    def step(params, state):
        grads = {"kernel": params["kernel"] - b, "bias": 0 * params["bias"]}
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for _ in range(100):
        params, state = step(params, state)
    np.testing.assert_allclose(params["kernel"], expected, atol=1e-6)
    assert ((params["kernel"] == 0) == (expected == 0)).all() and (expected == 0).sum() == 3
    assert (params["bias"] == 1).all()


def test_the_threshold_may_be_a_schedule_and_the_leaves_chosen():
    tx = optim.soft_threshold(lambda step: 0.1 * (step + 1), where=lambda path, _: path == "bias")
    params, zero = {"bias": jnp.ones(2)}, {"bias": jnp.zeros(2)}
    one, state = tx.update(zero, tx.init(params), params)
    two, _ = tx.update(zero, state, params)
    np.testing.assert_allclose([one["bias"][0], two["bias"][0]], [-0.1, -0.2], rtol=1e-5)


def test_frozen_parameters_stay_and_have_no_moments():
    tx = optim.freeze(optax.adam(0.1), "conv_.*")
    state = tx.init(PARAMS)
    updates = tree.flatten(tx.update(PARAMS, state, PARAMS)[0])
    moved = {name for name, value in updates.items() if value.any()}
    assert moved == {"norm/scale", "attention/bias", "attention/kernel"}
    trained = sum(PARAMS[name][leaf].size for name, leaf in (n.split("/") for n in moved))
    assert tree.count(state) == 2 * trained + 1


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: optim.schedule("cosin", 0.1, 10), 'did you mean "cosine"'),
        (lambda: optim.schedule("step", 0.1, 10, factr=1), 'did you mean "factor"'),
        (lambda: optim.schedule("constant", 0.1, 10, end=1), "no options"),
        (lambda: optim.schedule("cosine", 0.1, 0), "at least 1"),
        (lambda: optim.by_name("adm", 0.1), 'did you mean "adam"'),
        (lambda: optim.by_name("chain", 0.1), "takes a learning rate"),
        (lambda: optim.by_name("lbfgs", 0.1), "(?s)takes a learning rate.*a loop of your own"),
        (lambda: optim.by_name("scale_by_rprop", 0.1), 'did you mean "rprop"'),
        (lambda: optim.schedule("warmup_cosine", 0.1, 9, warmup=-1), "warmup"),
        (lambda: optim.by_name("sgd", 0.1, momentm=0.9), 'did you mean "momentum"'),
        (lambda: optim.clip(optax.sgd(0.1), 0), "above 0"),
        (lambda: optim.soft_threshold(-1), "at least 0"),
        (lambda: optim.soft_threshold(0.1).update(PARAMS, None), "the parameters"),
        (lambda: optim.freeze(optax.sgd(0.1), "^onv").init(PARAMS), "paths such as"),
    ],
)
def test_bad_values(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_the_share_of_weights_that_are_zero():
    params = {"one": {"kernel": jnp.array([[0.0, 1.0], [0.0, 0.0]]), "bias": jnp.zeros(2)}}
    assert float(optim.sparsity(params)) == 0.75
    members = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf + 1]), params)
    assert optim.sparsity(members, axes=1).tolist() == [0.75, 0.0]


@pytest.mark.parametrize("pattern", ["^conv_", "conv_1", "kernel$"])
def test_freeze_finds_a_pattern_as_the_sharding_rules_do(pattern):
    updates, _ = (tx := optim.freeze(optax.sgd(0.1), pattern)).update(
        PARAMS, tx.init(PARAMS), PARAMS
    )
    rule = rules.regex([(pattern, PartitionSpec("model"))])
    moved = {name: bool(value.any()) for name, value in tree.flatten(updates).items()}
    assert moved == {name: not tuple(rule(name, (2, 2), None)) for name in moved}  # type: ignore


def test_an_invalid_pattern_is_named():
    with pytest.raises(InputError, match="invalid"):
        optim.freeze(optax.sgd(0.1), "conv_(")


def test_the_docstring_of_freeze_shows_how_to_stop_batch_statistics():
    """Training in evaluation mode leaves the statistics where they are."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train: bool):
            return nn.Dense(1)(nn.BatchNorm(use_running_average=not train)(x))

    model = jdl.from_linen(Net())
    x = np.arange(8, dtype=np.float32)[:, None]
    params, before = model.init(jax.random.key(0), x)
    fixed = jdl.Model(model.init, lambda p, s, x, **_: model.apply(p, s, x))
    after = fixed.apply(params, before, x, train=True)[1]
    assert jax.tree.all(jax.tree.map(np.array_equal, before, after))
    moved = model.apply(params, before, x, train=True)[1]
    assert not jax.tree.all(jax.tree.map(np.array_equal, before, moved))
