"""What a task written by hand must return, and the errors that say so."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl

BATCH = {"x": jnp.ones((4, 2)), "y": jnp.zeros((4, 1))}
KEY = jax.random.key(0)


def init(key, batch):
    return {"w": jnp.ones((2, 1))}, {"seen": jnp.zeros(())}


def predict(params, model_state, batch):
    return batch["x"] @ params["w"]


def mean_of(params, batch):
    return jdl.metrics.mean(jnp.square(predict(params, {}, batch) - batch["y"])[:, 0])


def good(params, model_state, batch, key, *, train):
    mean = mean_of(params, batch)
    return mean, (model_state, {"loss": mean})


def returning(make):
    """A loss that returns `make(mean, model_state)`."""
    return lambda params, model_state, batch, key, *, train: make(
        mean_of(params, batch), model_state
    )


def train_a_step(task):
    learner = jdl.learner(task, optax.sgd(0.1))
    return learner.step(learner.init(KEY, BATCH), BATCH)


def test_a_good_task_trains_and_is_passed_on():
    _, metrics = train_a_step(jdl.Task(init, good, predict))
    assert float(metrics["loss"].value) == 4.0


FAULTS = {
    "a scalar": (lambda m, s: (m.value, (s, {"loss": m})), ["task.loss", "jdl.Mean", "float32"]),
    "no loss": (lambda m, s: (m, (s, {"acc": m})), ['entry "loss"', "acc"]),
    "a plain metric": (lambda m, s: (m, (s, {"loss": m, "acc": m.value})), ['metrics["acc"]']),
    "a nested one": (lambda m, s: (m, (s, {"loss": m, "a": {"b": m.value}})), ['["a"]["b"]']),
    "losses of examples": (
        lambda m, s: (jdl.Mean(jnp.ones(4), 4.0), (s, {"loss": m})),
        ["total of the Mean", "(4,)", "sum"],
    ),
    "a scalar loss metric": (lambda m, s: (m, (s, {"loss": m.value})), ['metrics["loss"]', "Mean"]),
    "no state": (lambda m, s: (m, {"loss": m}), ["(Mean, a dict of loss)", "model_state, metrics"]),
    "the mean alone": (lambda m, s: m, ["(Mean, (model_state, metrics))", "got:      a Mean"]),
    "another state": (lambda m, s: (m, ({}, {"loss": m})), ["model_state/seen", "no such leaf"]),
    "a wider state": (
        lambda m, s: (m, ({"seen": jnp.zeros(3)}, {"loss": m})),
        ["model_state/seen", "float32[]", "float32[3]"],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_loss_must_return(fault):
    make, words = FAULTS[fault]
    with pytest.raises(jdl.InputError) as raised:
        train_a_step(jdl.Task(init, returning(make), predict))
    assert all(word in str(raised.value) for word in words), raised.value


@pytest.mark.parametrize("fault", ["a scalar", "no loss", "a plain metric"])
def test_evaluation_and_games_check_it_too(fault):
    task = jdl.Task(init, returning(FAULTS[fault][0]), predict)
    learner = jdl.learner(task, optax.sgd(0.1))
    with pytest.raises(jdl.InputError, match="task"):
        learner.evaluate(learner.init(KEY, BATCH), BATCH)
    alone = jdl.independent(one=jdl.Player(task, optax.sgd(0.1)))
    with pytest.raises(jdl.InputError, match="one"):
        alone.step(alone.init(KEY, BATCH), BATCH)


def test_the_signature_of_a_loss_is_checked_at_once():
    with pytest.raises(jdl.InputError, match=r"(?s)task\.loss.*train.*missing arguments"):
        jdl.learner(jdl.Task(init, lambda p, s, batch, key: good, predict), optax.sgd(0.1))


def test_init_must_return_a_pair():
    with pytest.raises(jdl.InputError, match=r"(?s)task\.init.*\(params, model_state\).*dict"):
        train_a_step(jdl.Task(lambda key, batch: {"w": 1.0}, good, predict))


def test_the_fixes_that_the_errors_name_work():
    def loss(params, model_state, batch, key, *, train):
        squares = jnp.square(predict(params, {}, batch) - batch["y"])[:, 0]
        mean = jdl.metrics.mean(squares, batch.get("mask"))
        close = jdl.metrics.mean(squares < 5, batch.get("mask"))
        return mean, (model_state, {"loss": mean, "close": close})

    _, metrics = train_a_step(jdl.Task(init, loss, predict))
    assert np.isclose(metrics["close"].compute(), 1.0)
