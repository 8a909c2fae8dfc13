"""Each task transform against its mathematics."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdl import tasks
from jdl.core import tree
from jdl.core.errors import InputError
from jdl.core.types import Mean
from jdl.models import CNN, MLP, from_functions, from_linen
from jdl.tasks.losses import Blend

KEY = jax.random.key(0)
IDENTITY = from_functions(lambda key, inputs: {}, lambda params, inputs: inputs)
BATCH = {"x": jax.random.normal(KEY, (6, 3)), "y": jnp.array([0, 1, 2, 0, 1, 2])}
PLAIN = tasks.classification(from_linen(MLP((4,), 3)))
PARAMS = jax.tree.map(lambda w: w + 0.1, PLAIN.init(KEY, BATCH)[0])
KERNELS = [PARAMS["dense_1"]["kernel"], PARAMS["output"]["kernel"]]


@pytest.mark.parametrize(
    "penalty, size", [(tasks.l1, lambda w: np.abs(w).sum()), (tasks.l2, lambda w: (w**2).sum())]
)
def test_penalties_add_to_the_mean_and_leave_the_datas_loss(penalty, size):
    plain, _ = PLAIN.loss(PARAMS, {}, BATCH, None, train=False)
    mean, (_, shown) = penalty(PLAIN, 0.3).loss(PARAMS, {}, BATCH, None, train=True)
    expected = plain.value + 0.3 * sum(size(np.asarray(w)) for w in KERNELS)
    np.testing.assert_allclose(mean.value, expected, rtol=1e-6)
    np.testing.assert_allclose(shown["loss"].value, plain.value, rtol=1e-6)


def test_any_split_of_the_batch_gives_the_same_objective():
    task = tasks.l2(PLAIN, 0.3)
    whole, _ = task.loss(PARAMS, {}, BATCH, None, train=True)
    parts = [{k: v[s] for k, v in BATCH.items()} for s in (slice(2), slice(2, 6))]
    sums = [task.loss(PARAMS, {}, part, None, train=True)[0] for part in parts]
    np.testing.assert_allclose(tree.add(*sums).value, whole.value, rtol=1e-6)


def test_gradient_of_l2_is_a_decay_of_twice_its_weight_under_sgd_not_under_adam():
    def step(task, tx):
        def updates(params):
            grads = jax.grad(lambda p: task.loss(p, {}, BATCH, None, train=True)[0].value)(params)
            return tx.update(grads, tx.init(params), params)[0]

        return jax.jit(updates)(PARAMS)

    from jdl.optim import decay_mask

    decay = optax.add_decayed_weights(0.2, mask=decay_mask)
    ours = step(tasks.l2(PLAIN, 0.1), optax.sgd(0.1))
    theirs = step(PLAIN, optax.chain(decay, optax.sgd(0.1)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), ours, theirs)
    ours = step(tasks.l2(PLAIN, 0.1), optax.adam(0.1))
    theirs = step(PLAIN, optax.adamw(0.1, weight_decay=0.2, mask=decay_mask))
    assert (
        max(np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True))
        > 1e-3
    )


def test_biases_and_scales_are_left_alone_unless_asked_for():
    task = tasks.classification(from_linen(CNN((4,), (), 3, norm="batch")))
    batch = {"x": jnp.zeros((2, 6, 6, 1)), "y": jnp.zeros(2, int)}
    params, model_state = task.init(KEY, batch)
    objective = lambda t: lambda p: t.loss(p, model_state, batch, KEY, train=True)[0].value

    def changed(**options):
        with_it, without = (
            tree.flatten(jax.jit(jax.grad(objective(t)))(params))
            for t in (tasks.l2(task, 1.0, **options), task)
        )
        return {name for name in with_it if not np.allclose(with_it[name], without[name])}

    assert changed() == {"conv_1/kernel", "output/kernel"}
    assert changed(where=lambda path, leaf: path.endswith("scale")) == {"batch_norm_1/scale"}


def test_l1_and_l2_nest():
    task = tasks.l1(tasks.l2(PLAIN, 0.2), 0.1)
    mean, (_, shown) = task.loss(PARAMS, {}, BATCH, None, train=True)
    size = sum(0.2 * (w**2).sum() + 0.1 * jnp.abs(w).sum() for w in KERNELS)
    np.testing.assert_allclose(mean.value - shown["loss"].value, size, rtol=1e-5)


def test_a_penalty_weight_may_be_traced():
    weights = jnp.array([0.0, 1.0])
    losses = jax.vmap(
        lambda w: tasks.l2(PLAIN, w).loss(PARAMS, {}, BATCH, None, train=True)[0].value
    )(weights)
    assert losses[1] > losses[0]


def probe(transform, y=BATCH["y"], x=BATCH["x"], key=KEY, train=True, **more):
    """What a transformed task hands to the task inside it."""
    seen = {}

    def loss(params, model_state, batch, key, *, train):
        seen.update(batch, key=key)
        return Mean(0.0, 1.0), (model_state, {})

    task = PLAIN._replace(loss=loss)
    transform(task).loss({}, {}, {"x": x, "y": y, **more}, key, train=train)
    return seen


def test_label_smoothing_is_cross_entropy_to_the_smoothed_distribution():
    z, y = BATCH["x"], BATCH["y"]
    soft = optax.smooth_labels(jnp.eye(3)[y], 0.1)
    expected = optax.softmax_cross_entropy(z, soft)
    task = tasks.label_smoothing(tasks.classification(IDENTITY), 0.1)
    mean, (_, shown) = task.loss({}, {}, BATCH, KEY, train=True)
    np.testing.assert_allclose(mean.value, expected.mean(), rtol=1e-6)
    one_hot = {**BATCH, "y": jnp.eye(3)[y]}
    task = tasks.label_smoothing(tasks.classification(IDENTITY, loss=tasks.soft_cross_entropy), 0.1)
    other, (_, shown_other) = task.loss({}, {}, one_hot, KEY, train=True)
    np.testing.assert_allclose(other.value, expected.mean(), rtol=1e-6)
    assert shown["accuracy"].sum.total == shown_other["accuracy"].sum.total
    plain, _ = task.loss({}, {}, one_hot, KEY, train=False)
    np.testing.assert_allclose(plain.value, tasks.cross_entropy(z, y).mean(), rtol=1e-6)


def test_mixup_mixes_inputs_and_labels_alike():
    task = tasks.mixup(tasks.classification(IDENTITY), 0.4)
    seen = probe(lambda inner: tasks.mixup(inner, 0.4))
    share = seen["y"].share
    before = np.roll(BATCH["x"], 1, axis=0)
    expected = share[:, None] * BATCH["x"] + (1 - share)[:, None] * before
    np.testing.assert_allclose(seen["x"], expected, rtol=1e-6)
    soft = share[:, None] * jnp.eye(3)[BATCH["y"]]
    soft += (1 - share)[:, None] * jnp.eye(3)[np.roll(BATCH["y"], 1)]
    mean, _ = task.loss({}, {}, BATCH, KEY, train=True)
    expected = optax.softmax_cross_entropy(seen["x"], soft).mean()
    np.testing.assert_allclose(mean.value, expected, rtol=1e-5)
    numbers = probe(lambda inner: tasks.mixup(inner, 0.4), y=jnp.eye(3)[BATCH["y"]])
    np.testing.assert_allclose(numbers["y"], soft, rtol=1e-5)


def test_shares_of_mixup_follow_the_beta_distribution():
    x = jnp.zeros((4000, 1))
    share = probe(lambda t: tasks.mixup(t, 0.2), y=jnp.zeros(4000, int), x=x)["y"].share
    np.testing.assert_allclose(share.mean(), 0.5, atol=0.03)
    np.testing.assert_allclose(share.var(), 1 / (4 * (2 * 0.2 + 1)), rtol=0.05)


def test_mixup_never_mixes_with_a_masked_row():
    mask = jnp.array([1, 1, 0, 1, 1, 0])
    x = BATCH["x"].at[jnp.array([2, 5])].set(1e6)
    seen = probe(lambda task: tasks.mixup(task, 1.0), x=x, mask=mask)
    assert (np.abs(seen["x"])[mask == 1] < 10).all()
    assert (seen["y"].share[jnp.array([0, 3])] == 1).all()


def test_mixup_and_smoothing_nest_either_way():
    y = BATCH["y"]
    for transform in (
        lambda task: tasks.mixup(tasks.label_smoothing(task, 0.1), 0.4),
        lambda task: tasks.label_smoothing(tasks.mixup(task, 0.4), 0.1),
    ):
        blend = probe(transform)["y"]
        assert isinstance(blend, Blend) and blend.smoothing == 0.1
        np.testing.assert_array_equal(blend.second, np.roll(y, 1))
        assert 0 < blend.share[0] < 1
    with pytest.raises(InputError, match="mixup around mixup"):
        probe(lambda task: tasks.mixup(tasks.mixup(task, 0.4), 0.4))


def test_dominant_label():
    labels = Blend(jnp.array([0, 0]), jnp.array([1, 1]), jnp.array([0.7, 0.3]))
    assert labels.dominant().tolist() == [0, 1]


def test_augment_acts_in_training_only_with_keys_of_its_own():
    def noise(key, x):
        return x + jax.random.normal(key, x.shape)

    transform = lambda task: tasks.augment(task, noise)
    one, again, other = (probe(transform, key=k) for k in (KEY, KEY, jax.random.key(1)))
    np.testing.assert_array_equal(one["x"], again["x"])
    assert not np.allclose(one["x"], other["x"]) and not np.allclose(one["x"], BATCH["x"])
    assert one["key"] != KEY
    inner = jax.random.normal(one["key"], (6, 3))
    assert not np.allclose(one["x"], BATCH["x"] + inner)
    np.testing.assert_array_equal(probe(transform, train=False)["x"], BATCH["x"])
    with pytest.raises(InputError, match="a random key in training"):
        probe(transform, key=None)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: tasks.l1(PLAIN, -1), "l1 weight"),
        (lambda: tasks.l2(PLAIN, float("nan")), "at least 0"),
        (lambda: tasks.label_smoothing(PLAIN, 1), "below 1"),
        (lambda: tasks.mixup(PLAIN, 0), "above 0"),
    ],
)
def test_values_out_of_range(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_part_of_the_batch_is_seen_in_training_only():
    task = tasks.classification(from_linen(MLP((), 3)))
    x, y = np.random.default_rng(0).normal(size=(8, 4)).astype("float32"), np.arange(8) % 3
    half = (np.arange(8) < 4).astype("float32")
    seen = tasks.mask_training(task, "half")
    batch = {"x": x, "y": y, "half": half}
    params, model_state = seen.init(jax.random.key(0), batch)

    def loss(task, batch, train):
        return task.loss(params, model_state, batch, None, train=train)[0]

    first = {"x": x[:4], "y": y[:4]}
    np.testing.assert_allclose(
        loss(seen, batch, True).value, loss(task, first, True).value, rtol=1e-6
    )
    assert loss(seen, batch, False).weight == 8
    mask = (np.arange(8) % 2).astype("float32")
    assert loss(seen, {**batch, "mask": mask}, True).weight == 2


LENGTHS = jnp.array([4, 2, 3])
REAL = np.arange(4)[None] < np.asarray(LENGTHS)[:, None]
STEPS = {
    "x": jnp.where(REAL[..., None], jax.random.normal(KEY, (3, 4, 3)), jnp.nan),
    "y": jnp.where(REAL, jax.random.randint(KEY, (3, 4), 0, 3), -7),
}


SLOW = pytest.mark.slow


@functools.partial(jax.jit, static_argnums=0)
def in_training(task, batch):
    return task.loss({}, {}, batch, KEY, train=True)[0].value


def cross_entropies(logits, distributions):
    logits = np.where(np.isnan(logits), 0, np.asarray(logits, np.float64))
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -(distributions * logs).sum(-1)


@pytest.mark.parametrize(
    "given", ["both", *(pytest.param(g, marks=SLOW) for g in ("lengths", "mask"))]
)
def test_steps_of_sequences_are_smoothed_and_mixed_where_both_exist(given):
    """The padding holds nan and labels that are no classes."""
    exists, batch = REAL, dict(STEPS)
    if given != "mask":
        batch["lengths"] = LENGTHS
    if given != "lengths":
        exists = REAL & (np.arange(12).reshape(3, 4) % 5 > 0)
        batch["mask"] = jnp.asarray(REAL if given == "mask" else exists, jnp.float32)
        exists = np.asarray(batch["mask"]) > 0
    first_of = from_functions(
        lambda key, inputs: {},
        lambda params, inputs: inputs[0] if isinstance(inputs, tuple) else inputs,
    )
    inner = tasks.sequence_labelling(first_of)

    def loss(params, model_state, batch, key, *, train):
        mean, _ = inner.loss(params, model_state, batch, key, train=train)
        return mean, (model_state, {"share": batch["y"].share})

    spied = tasks.mixup(tasks.label_smoothing(inner._replace(loss=loss), 0.3), 0.7)
    run = jax.jit(lambda batch: spied.loss({}, {}, batch, KEY, train=True))
    mean, (_, seen) = run(batch)
    share = np.asarray(seen["share"], np.float64)
    both = exists & np.roll(exists, 1, 0)
    assert (share[~both & exists] == 1).all() and (share[both] < 1).all()
    assert len(set(share[0][both[0]])) == 1
    one_hot = np.eye(3)[np.where(REAL, batch["y"], 0)]
    mixed = share[..., None] * one_hot + (1 - share)[..., None] * np.roll(one_hot, 1, 0)
    before = np.roll(np.where(REAL[..., None], batch["x"], 0), 1, 0)
    inputs = share[..., None] * batch["x"] + (1 - share)[..., None] * before
    expected = cross_entropies(inputs, 0.7 * mixed + 0.1)[exists].mean()
    np.testing.assert_allclose(mean.value, expected, rtol=1e-5)


def test_the_label_of_a_sequence_is_mixed_by_the_share_of_its_example():
    batch = {**STEPS, "lengths": LENGTHS, "y": jnp.array([0, 1, 2])}
    seen = probe(lambda task: tasks.mixup(task, 0.7), **batch)
    assert seen["y"].share.shape == (3,) and (seen["y"].share < 1).all()
    np.testing.assert_allclose(seen["x"][0, 3], batch["x"][0, 3])
    assert np.isfinite(seen["x"][REAL]).all()


@pytest.mark.parametrize(
    "smoothing, mixed",
    [(0.2, False), *(pytest.param(*row, marks=SLOW) for row in ((0.2, True), (0.0, True)))],
)
def test_integer_one_hot_labels_are_distributions(smoothing, mixed):
    task = tasks.classification(IDENTITY, loss=tasks.soft_cross_entropy)
    task = tasks.label_smoothing(task, smoothing) if smoothing else task
    task = tasks.mixup(task, 0.4) if mixed else task
    one_hot = {"x": BATCH["x"], "y": jnp.eye(3, dtype=int)[BATCH["y"]]}
    real = {**one_hot, "y": one_hot["y"].astype(jnp.float32)}
    means = [in_training(task, batch) for batch in (one_hot, real)]
    np.testing.assert_allclose(*means, rtol=1e-6)


def test_integer_targets_of_a_regression_are_mixed_as_values():
    task = tasks.mixup(tasks.regression(IDENTITY), 0.4)
    y = np.arange(6)[:, None]
    found = in_training(task, {"x": y.astype(np.float32), "y": y})
    np.testing.assert_allclose(found, 0, atol=1e-10)


@pytest.mark.parametrize("dtype", [int, pytest.param(float, marks=SLOW)])
def test_answers_are_smoothed_towards_a_half(dtype):
    task = tasks.label_smoothing(tasks.binary_classification(IDENTITY), 0.2)
    z, y = np.float32([[2.0], [-1.0]]), np.array([[1], [0]], dtype)
    found = in_training(task, {"x": z, "y": y})
    expected = np.mean(np.log1p(np.exp(z)) - np.array([[0.9], [0.1]]) * z)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    with pytest.raises(InputError, match="a task with classes"):
        tasks.label_smoothing(tasks.regression(IDENTITY), 0.2)


def test_a_masked_partner_may_be_nan():
    mask = jnp.array([1, 1, 0, 1, 1, 0])
    x = BATCH["x"].at[jnp.array([2, 5])].set(jnp.nan)
    seen = probe(lambda task: tasks.mixup(task, 1.0), x=x, mask=mask)
    assert np.isfinite(seen["x"][mask == 1]).all()
