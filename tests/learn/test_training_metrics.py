"""Metrics of narrow types, which the sums of a run widen."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl
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


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int8", "uint8", "bool"])
def test_the_sum_on_the_host_is_exact(dtype):
    total = add_on_host([{"hits": jnp.ones((), dtype)}] * 5000)["hits"]
    assert total == 5000 and np.asarray(total).dtype.itemsize == 8
