"""Metrics of narrow types, which the sums of a run widen."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl
from jdl.learn.transforms import loop
from jdl.learn.window import window
from jdl.run.evaluate import add_on_host

BATCH = {"x": jnp.ones((4, 1)), "y": jnp.zeros((4, 1))}


def narrow_loss(params, model_state, batch, key, *, train):
    """A loss in bfloat16, and a count in int8."""
    total = jnp.asarray(jnp.sum(params * batch["x"]) * 0 + 61, jnp.bfloat16)
    mean = jdl.Mean(total, jnp.bfloat16(61))
    hits = jdl.Mean(jnp.int8(100), jnp.int8(100))
    return mean, (model_state, {"loss": mean, "hits": hits})


def test_a_window_sums_narrow_metrics_exactly():
    task = jdl.Task(
        init=lambda key, batch: (jnp.ones(()), {}),
        loss=narrow_loss,
        predict=lambda params, model_state, batch: params * batch["x"],
    )
    learner = jdl.jit(window(jdl.learner(task, optax.sgd(0.1)), 20))
    state = learner.init(jax.random.key(0), BATCH)
    for _ in range(20):  # bfloat16 rounds 5 * 61 to 304, and int8 wraps at 128
        state, metrics = learner.step(state, BATCH)
    assert metrics["hits"].total == 2000 and metrics["loss"].weight == 1220
    assert learner.evaluate(state, BATCH)["loss"].total.dtype == jnp.float32


def counting(hits, labels):
    """A task with 2^29 hits among 2^30 labels in each batch, say, as metrics count them."""

    def loss(params, model_state, batch, key, *, train):
        mean = jdl.Mean((params * batch["x"]).sum(), jnp.float32(batch["x"].size))
        return mean, (model_state, {"loss": mean, "hits": jdl.Mean(hits, labels)})

    return jdl.Task(lambda key, batch: (jnp.ones(()), {}), loss, lambda *a: None)


def test_counts_of_pixels_do_not_overflow():
    task = counting(jnp.int32(2**29), jnp.int32(2**30))
    learner = jdl.jit(loop(window(jdl.learner(task, optax.sgd(0.1), jdl.accumulate(2)), 5)))
    state, metrics = learner.step(learner.init(jax.random.key(0), BATCH), BATCH, 5)
    assert metrics["hits"].compute() == 0.5 and metrics["hits"].weight == 10 * 2.0**30
    assert learner.evaluate(state, BATCH)["hits"].weight == 2**30


def test_a_window_widens_the_metrics_of_a_learner_written_by_hand():
    def step(state, batch, *, axis=None):
        one = jnp.ones((), jnp.bfloat16)
        metrics = {"loss": jdl.Mean(6 * one, one), "labels": jnp.int32(2**30)}
        return state.replace(step=state.step + 1), metrics

    plain = jdl.learner(counting(0, 1), optax.sgd(0.1))
    learner = jdl.jit(loop(window(plain._replace(step=step), 1000)))
    _, metrics = learner.step(learner.init(jax.random.key(0), BATCH), BATCH, 600)
    assert metrics["loss"].weight == 600 and metrics["loss"].value == 6
    assert metrics["labels"] == 600 * 2.0**30


def test_the_sums_of_a_confusion_are_whole_numbers():
    compute = jdl.metrics.confusion(2).compute
    sums = np.array([[3, 0], [1, 2.0**30]], np.float32)
    assert np.array_equal(compute(sums), sums) and compute(sums).dtype == np.int64
    assert compute(sums / 2).dtype == np.float32


def test_the_norm_of_a_gradient_in_bfloat16():
    """256 + 1 is 256 in bfloat16."""

    def loss(params, model_state, batch, key, *, train):
        mean = jdl.Mean(params["a"].sum() + params["b"], jnp.float32(1))
        return mean, (model_state, {"loss": mean})

    params = {"a": jnp.ones(256, jnp.bfloat16), "b": jnp.ones((), jnp.bfloat16)}
    task = jdl.Task(lambda key, batch: (params, {}), loss, lambda *a: None)
    learner = jdl.jit(jdl.learner(task, optax.sgd(0.1)))
    _, metrics = learner.step(learner.init(jax.random.key(0), BATCH), BATCH)
    assert metrics["gradient_norm"].value == pytest.approx(257**0.5, rel=1e-6)


def test_clipping_in_bfloat16():
    grads = [jnp.ones(256, jnp.bfloat16)] + [jnp.ones((), jnp.bfloat16)] * 8
    tx = jdl.optim.clip(optax.identity(), 1.0)
    clipped, _ = tx.update(grads, tx.init(grads))
    assert float(clipped[1]) == pytest.approx(264**-0.5, rel=0.004)  # not 256**-0.5


def test_accumulated_gradients_in_bfloat16():
    """Parts with the gradients 256, 1, 1, ... would have the sum 256."""

    def loss(params, model_state, batch, key, *, train):
        mean = jdl.Mean((params * batch["x"]).sum(), 1.0)
        return mean, (model_state, {"loss": mean})

    batch = {"x": jnp.ones(8, jnp.bfloat16).at[0].set(256)}
    gradient = jax.jit(lambda w: jdl.accumulate(8)(loss)(w, {}, batch, None)[0])
    grads = gradient(jnp.ones((), jnp.bfloat16))
    assert grads.dtype == jnp.bfloat16 and abs(float(grads) - 263 / 8) <= 0.125


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int8", "uint8", "bool"])
def test_the_sum_on_the_host_is_exact(dtype):
    total = add_on_host([{"hits": jnp.ones((), dtype)}] * 5000)["hits"]
    assert total == 5000 and np.asarray(total).dtype.itemsize == 8
