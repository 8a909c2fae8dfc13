"""The learner itself: its keys, its metrics, what the optimizer is given."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl
from jdl.core.types import Mean, Task
from jdl.learn.learner import evaluation_key, learner, one, step_key
from jdl.learn.transforms import jit
from tests.support.learners import (
    KEY,
    assert_close,
    assert_same_bits,
    batch,
    differ,
    network,
    train,
)


def test_a_step_against_numpy(x64):
    data = batch(dtype="float64")
    line = learner(linear(), optax.sgd(0.1))
    start = line.init(KEY, data)
    after, metrics = jax.jit(line.step)(start, data)
    w = np.asarray(start.params)
    errors = data["x"] @ w - data["y"][:, 0]
    grads = 2 * data["x"].T @ (data["mask"] * errors) / data["mask"].sum()
    np.testing.assert_allclose(after.params, w - 0.1 * grads, rtol=1e-12)
    np.testing.assert_allclose(metrics["gradient_norm"].value, np.linalg.norm(grads), rtol=1e-12)
    np.testing.assert_allclose(metrics["loss"].total, (data["mask"] * errors**2).sum(), rtol=1e-12)
    assert int(after.step) == 1 and float(metrics["gradient_norm"].weight) == 1


def linear():
    def loss(w, model_state, batch, key, *, train):
        errors = (batch["x"] @ w - batch["y"][:, 0]) ** 2
        mean = Mean((batch["mask"] * errors).sum(), batch["mask"].sum())
        return mean, (model_state, {"loss": mean})

    init = lambda key, batch: (jax.random.normal(key, (3,), batch["x"].dtype), {})
    return Task(init, loss, lambda *a: None)


def test_the_norm_is_that_before_the_optimizer_clips():
    clipped = optax.chain(optax.clip_by_global_norm(1e-3), optax.sgd(0.1))
    norms = [train(learner(linear(), tx), batch(), 1)[1]["gradient_norm"].value
             for tx in (optax.sgd(0.1), clipped)]  # fmt: skip
    assert norms[0] == norms[1] > 0.1


def test_the_optimizer_is_given_the_loss():
    seen = []

    def update(grads, state, params=None, *, value, **more):
        seen.append(value)
        return jax.tree.map(jnp.zeros_like, grads), state

    tx = optax.GradientTransformationExtraArgs(lambda params: (), update)
    line = learner(linear(), tx)
    _, metrics = line.step(line.init(KEY, batch()), batch())
    assert float(seen[0]) == float(metrics["loss"].value)


def test_keys_differ_by_step_and_device_and_are_never_the_callers():
    line = learner(network(noise=0.1), optax.sgd(0.0))
    start = line.init(KEY, batch())
    assert differ(start.key, KEY)
    losses = []
    for step in range(3):
        _, metrics = jax.jit(line.step)(start.replace(step=jnp.int32(step)), batch())
        losses.append(float(metrics["loss"].value))
    assert len(set(losses)) == 3
    assert_same_bits(step_key(start), jax.random.fold_in(start.key, 0))
    keys = jax.vmap(lambda _: step_key(start, "d"), axis_name="d")(jnp.zeros(4))
    assert len({k.tobytes() for k in np.asarray(jax.random.key_data(keys))}) == 4
    assert differ(evaluation_key(start), step_key(start))


def test_donation_leaves_the_callers_key_and_batch():
    line = jit(learner(network(), optax.adam(0.1)), donate=True)
    key, data = jax.random.key(7), jax.tree.map(jnp.asarray, batch())
    start = line.init(key, data)
    line.step(start, data)
    assert not key.is_deleted() and not any(leaf.is_deleted() for leaf in data.values())
    assert start.params["in"].is_deleted()
    with pytest.raises((RuntimeError, ValueError), match="deleted"):
        line.step(start, data)


def test_without_donation_the_state_stays():
    line = jit(learner(network(), optax.adam(0.1)))
    start = line.init(KEY, batch())
    first, second = (line.step(start, batch())[0] for _ in range(2))
    assert_same_bits(first, second)


def test_evaluation_does_not_train_and_is_the_same_twice():
    line = learner(network(noise=0.1), optax.sgd(0.1))
    start = line.init(KEY, batch())
    one_, two = (line.evaluate(start, batch()) for _ in range(2))
    assert_same_bits(one_, two)
    assert "gradient_norm" not in one_
    assert_close(line.predict(start, batch()).shape, (16, 1))


def test_a_number_of_a_step_counts_once():
    assert one(jnp.float32(3)).value == 3
    both = jax.tree.map(jnp.add, one(jnp.float32(3)), one(jnp.float32(5)))
    assert both.value == 4


def test_an_infinite_parameter_that_has_no_gradient_leaves_the_norm_alone():
    def loss(params, model_state, batch, key, *, train):
        # A hidden place of a mask, say: what is infinite stays so, and is no fault of a step.
        mean = Mean((params["w"] * 3).sum() + jnp.exp(params["mask"]).sum(), 1.0)
        return mean, (model_state, {"loss": mean})

    params = {"w": jnp.ones(4), "mask": jnp.array([0.0, -jnp.inf])}
    line = learner(Task(lambda key, batch: (params, {}), loss, lambda *a: None), optax.sgd(0.1))
    after, metrics = jax.jit(line.step)(line.init(KEY, {}), {})
    np.testing.assert_allclose(metrics["gradient_norm"].value, (4 * 9 + 1) ** 0.5, rtol=1e-6)
    assert after.params["mask"][1] == -jnp.inf


def test_what_a_task_predicts_is_known_through_every_transform():
    """Static facts stay with a learner: kind of output, points, and the unsharded learner."""
    model = jdl.from_linen(jdl.models.MLP((), 3))
    kinds = {
        "class_logits": jdl.classification(model),
        "binary_logits": jdl.binary_classification(model),
        "values": jdl.l2(jdl.regression(model), 0.1),
    }
    for kind, task in kinds.items():
        one = jdl.learner(task, optax.sgd(0.1))
        assert one.info.output == kind and one.points == ()
        wide = jdl.shard(jdl.ema(jdl.guard(one), 0.9), jdl.mesh(data=8))
        for changed in (jdl.jit(one), jdl.ensemble(one, 2), jdl.pmap(one), wide):
            assert changed.info.output == kind
        assert wide.info.unsharded is not None and one.info.unsharded is None


def test_the_gradient_is_what_the_step_hands_to_the_optimizer():
    """Under SGD with rate 1 the step is minus the gradient, accumulated or clipped."""
    for gradient in (jdl.mean_gradient, jdl.accumulate(2), jdl.clip_gradient(0.01)):
        one = jdl.jit(learner(network(noise=0.1), optax.sgd(1.0), gradient))
        state = one.init(KEY, batch())
        grads, (_, metrics) = one.gradient(state, batch())
        after, seen = one.step(state, batch())
        moved = jax.tree.map(lambda a, b: a - b, state.params, after.params)
        assert_close(grads, moved, rtol=1e-4, atol=1e-6)
        assert_close(metrics["loss"], seen["loss"])
    many = jdl.jit(jdl.ensemble(learner(network(), optax.sgd(1.0)), 3))
    state = many.init(KEY, batch())
    after, _ = many.step(state, batch())
    grads, _ = many.gradient(state, batch())
    moved = jax.tree.map(lambda a, b: a - b, state.params, after.params)
    assert_close(grads, moved, rtol=1e-4, atol=1e-6)


def test_the_gradient_over_devices_is_that_of_one():
    one = learner(network(), optax.sgd(1.0))
    state = jax.jit(one.init)(KEY, batch())
    expected, _ = one.gradient(state, batch())
    forms = (
        jdl.shard(one, jdl.mesh(data=8), jdl.rules.fsdp(smallest=1)),
        jdl.pmap(one),
        jdl.shard_map(one, jdl.mesh(data=8)),
    )
    for wide in forms:
        wide = jit(wide)
        grads, (_, metrics) = wide.gradient(wide.init(KEY, batch()), batch())
        assert_close(grads, expected)
        assert metrics["loss"].weight == batch()["mask"].sum()
