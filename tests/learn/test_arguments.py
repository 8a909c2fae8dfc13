"""Arguments of transforms and operators that would train wrongly, or not at all, are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl
from jdl.core.errors import InputError
from jdl.learn.transforms import resident
from jdl.learn.window import window
from tests.support.learners import batch, network

LINE = jdl.learner(network(), optax.sgd(0.1))
RESULT = jdl.Result(LINE.init(jax.random.key(0), batch()), LINE, [], None)
ORDER = jdl.data.Order(16, seed=0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: jdl.ema(LINE, 1.0), "ema: decay"),
        (lambda: jdl.ema(LINE, 1.5), "at least 0 and below 1"),
        (lambda: jdl.ema(LINE, np.float32(-0.1)), "ema: decay"),
        (lambda: jdl.ema(LINE, float("nan")), "ema: decay"),
        (lambda: window(LINE, 0), "window: every\n  expected: an integer of at least 1"),
        (lambda: window(LINE, 1.5), "window: every"),
        (lambda: jdl.keep_best(LINE, batch(), every=0), "keep_best: every"),
        (lambda: jdl.guard(LINE, limit=0), "guard: limit"),
        (lambda: jdl.ensemble(LINE, 0), "ensemble: members"),
        (lambda: resident(LINE, ORDER, -4), "resident: batch_size"),
        (lambda: jdl.clip_gradient(0.0), "clip_gradient: norm"),
        (lambda: jdl.sharpness_aware(-0.1), "sharpness_aware: rho"),
        (lambda: jdl.evaluate(RESULT, batch(), batch_size=0), "evaluate: batch_size"),
        (lambda: jdl.predict(RESULT, batch()["x"], batch_size=-3), "predict: batch_size"),
        (lambda: jdl.metrics.top_k(0), "top_k: k"),
        (lambda: jdl.metrics.confusion(-1), "confusion: classes"),
    ],
)
def test_values_that_cannot_be_used(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_a_traced_decay_passes():
    jax.eval_shape(lambda d: jdl.ema(LINE, d).init(jax.random.key(0), batch()), jnp.float32(2))
