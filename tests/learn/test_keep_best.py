"""The weights of the lowest validation loss are those that evaluate and predict."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl
from jdl.learn.ensemble import ensemble
from jdl.learn.keep_best import BestState, keep_best
from tests.support.learners import KEY, batch, message, network, record

DATA = batch()
OPPOSITE = {**DATA, "y": -DATA["y"]}


@pytest.mark.parametrize("members", [None, 2])
def test_the_best_weights_are_kept(members):
    """Trained on the opposite of what is validated, the first evaluation is the best."""
    plain = jdl.learner(network(), optax.sgd(0.3))
    around = (lambda one: one) if members is None else (lambda one: ensemble(one, members))
    learner = jdl.jit(around(keep_best(plain, DATA, every=2)))
    state = learner.init(KEY, DATA)
    assert np.isinf(record(state, BestState).loss).all()
    for step in range(6):
        state, _ = learner.step(state, OPPOSITE)
        if step == 1:
            best = state.replace(extra=None)
    now = state.replace(extra=None)
    expected, last = (around(plain).evaluate(at, DATA)["loss"].value for at in (best, now))
    kept = learner.evaluate(state, DATA)["loss"].value
    np.testing.assert_allclose(kept, expected, rtol=1e-6)
    np.testing.assert_allclose(record(state, BestState).loss, expected, rtol=1e-6)
    assert (np.asarray(last) > kept).all()
    np.testing.assert_allclose(
        learner.predict(state, DATA), around(plain).predict(best, DATA), rtol=1e-6
    )


def test_around_an_ensemble_each_member_keeps_its_own():
    many = keep_best(ensemble(jdl.learner(network(), optax.sgd(0.1)), 3), DATA, every=1)
    state, _ = jax.jit(many.step)(many.init(KEY, DATA), DATA)
    assert record(state, BestState).loss.shape == (3,)
    assert jnp.isfinite(record(state, BestState).loss).all()


def test_a_validation_set_that_devices_do_not_divide_is_named():
    plain, mesh = jdl.learner(network(), optax.sgd(0.3)), jdl.mesh(data=8)
    valid = {name: value[:13] for name, value in DATA.items()}
    wrong = keep_best(jdl.shard(plain, mesh), valid, every=1)
    state = jax.eval_shape(wrong.init, KEY, DATA)
    text = message(lambda: jax.eval_shape(wrong.step, state, DATA))
    assert text.startswith("keep_best: valid\n  expected: a multiple of 8, the size of mesh axis")
    assert (
        "got:      13 examples" in text and "shard(keep_best(learner, valid, every), mesh)" in text
    )
    right = jdl.shard(keep_best(plain, valid, every=1), mesh)
    jax.eval_shape(right.step, jax.eval_shape(right.init, KEY, DATA), DATA)


def test_of_equal_losses_the_first_is_kept():
    """SGD with rate 1 turns w into -w: each step has the same loss, with other weights."""
    model = jdl.from_functions(lambda key, x: {"w": 2.0}, lambda params, x: params["w"] * x)
    data = {"x": np.ones((2, 1), np.float32), "y": np.zeros((2, 1), np.float32)}
    learner = keep_best(jdl.learner(jdl.regression(model), optax.sgd(1.0)), data, every=1)
    state = learner.init(KEY, data)
    seen = []
    for _ in range(2):
        state, _ = learner.step(state, data)
        seen.append(float(state.params["w"]))
    assert seen == [-2.0, 2.0]
    params, _ = record(state, BestState).weights
    assert float(params["w"]) == seen[0]
