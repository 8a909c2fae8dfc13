"""What `fit` accepts at its edges: dtypes, labels, batch sizes and weights to start from."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jdl

X = np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32)
Y = (np.arange(16) % 3).astype(np.int32)
MODEL = jdl.from_linen(jdl.models.MLP(features=(), outputs=3))
LEARNER = jdl.learner(jdl.classification(MODEL), optax.sgd(0.1))
QUIET = jdl.Options(bar=False)


def fit(data, learner=LEARNER, **more):
    return jdl.fit(learner, data, **{"batch_size": 8, "epochs": 1, "options": QUIET, **more})


def assert_same(one, other):
    assert jax.tree.all(
        jax.tree.map(
            lambda a, b: np.allclose(a, b, atol=1e-6), one.state.params, other.state.params
        )
    )


@pytest.fixture(scope="module")
def plain():
    return fit({"x": X, "y": Y})


def test_big_endian_arrays_train_as_native_ones(plain):
    swapped = {"x": X.astype(">f4"), "y": Y.astype(">i4")}
    assert_same(fit(swapped), plain)
    values = jdl.evaluate(plain, swapped)
    assert values == jdl.evaluate(plain, {"x": X, "y": Y})


def test_one_hot_labels_train_as_integers_and_may_be_smoothed(plain):
    one_hot = {"x": X, "y": np.eye(3, dtype=np.float32)[Y]}
    assert_same(fit(one_hot), plain)
    smooth = jdl.learner(jdl.label_smoothing(jdl.classification(MODEL), 0.1), optax.sgd(0.1))
    assert_same(fit(one_hot, smooth), fit({"x": X, "y": Y}, smooth))


def test_boolean_labels_are_the_classes_0_and_1():
    two = jdl.from_linen(jdl.models.MLP(features=(), outputs=2))
    learner = jdl.learner(jdl.classification(two), optax.sgd(0.1))
    assert_same(fit({"x": X, "y": Y == 1}, learner), fit({"x": X, "y": np.int32(Y == 1)}, learner))


def test_complex_inputs_are_refused_by_name():
    with pytest.raises(jdl.InputError, match="complex"):
        fit({"x": X * 1j, "y": Y})


def test_a_batch_larger_than_the_set_is_the_set(caplog):
    result = fit({"x": X, "y": Y}, batch_size=128, epochs=2)
    assert int(result.state.step) == 2 and "whole set of 16 examples" in caplog.text
    state, _ = next(iter(jdl.steps(LEARNER, {"x": X, "y": Y})))
    assert int(state.step) == 1


def test_start_takes_a_state_or_parameters(plain):
    data, none = {"x": X, "y": Y}, {"options": jdl.Options(bar=False)}
    from_state = fit(data, start=plain.state, **none)
    assert_same(fit(data, start=plain.state.params, **none), from_state)


def test_weights_that_are_not_finite_are_named_before_the_first_step(plain):
    params = jax.tree.map(jnp.copy, plain.state.params)
    params["output"]["bias"] = params["output"]["bias"].at[1].set(jnp.inf)
    bad = plain.state.replace(params=params)
    for start in (bad, params):
        with pytest.raises(jdl.InputError, match="start: params/output/bias"):
            fit({"x": X, "y": Y}, start=start)
    with pytest.raises(jdl.InputError, match="start: params/output/bias"):
        next(iter(jdl.steps(LEARNER, {"x": X, "y": Y}, start=bad)))


class Loss(nnx.Variable):
    pass


class Creates(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(2, 3, rngs=rngs)

    def __call__(self, x):
        self.kl_loss = Loss((x**2).mean())
        return self.dense(x)


def test_a_variable_that_an_nnx_module_creates_in_its_call_is_named():
    with pytest.raises(jdl.InputError, match="kl_loss"):
        jdl.from_nnx(Creates).init(jax.random.key(0), X)
