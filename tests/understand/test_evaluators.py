"""Judges of generated images, linear probes, tables and the reach of a sequence model."""

import jax
import numpy as np
import optax
import pytest

import jdl
from jdl.data.datasets.synthetic_sequences import autoregressive
from jdl.understand.evaluators import _features


@pytest.fixture(scope="module")
def digits():
    return jdl.data.load("digits")


@pytest.fixture(scope="module")
def judge(digits):
    return jdl.train_image_evaluator(digits, epochs=4)


@pytest.mark.slow
def test_a_judge_tells_real_from_noise_and_counts_classes(digits, judge):
    train, noise = digits.train["x"], np.random.default_rng(0).random((200, 8, 8, 1), np.float32)
    shares, distance = judge(train)
    assert judge.accuracy > 0.6 and np.isclose(shares.sum(), 1) and shares.min() > 0.02
    assert distance < 0.2 * judge(noise).distance
    ones = train[digits.train["y"] == 1]
    assert judge(ones).shares.argmax() == 1 and judge(ones).distance > distance
    assert _features(judge.network, judge.result, train[:7]).shape == (7, 64)
    line = judge.report(train[:300], train[300:600])
    assert line.startswith("classes 0 to 9") and f"accuracy {judge.accuracy:.4f}" in line


def test_a_probe_reads_what_is_open_and_not_what_is_not():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = rng.normal(size=(60, 5)).astype(np.float32)
    x[:, 0] += 8 * (y == 1)
    x[:, 1] += 8 * (y == 2)
    known, judged = ({"x": x[s], "y": y[s]} for s in (slice(30), slice(30, None)))
    assert jdl.linear_probe(known, judged, epochs=100) > 0.85
    assert jdl.linear_probe(known, judged, lambda x: x[:, 2:], epochs=100) < 0.7


def test_a_table_aligns_and_leaves_single_numbers_alone():
    rows = {"a": {"loss": [1.0, 3.0], "n": 2.0}, "longer": {"loss": [0.5, 0.5], "n": 1.0}}
    lines = jdl.seed_table(rows, "net", digits=1).splitlines()
    assert lines == ["net     loss       n", "a       2.0 ± 1.4  2.0", "longer  0.5 ± 0.0  1.0"]


def test_the_reach_of_a_causal_network_ends_with_its_field():
    data = autoregressive(64, 12, lags=(1,), noise=(1.0, 0.0, 0.0))
    network = jdl.models.WaveNet(3, 4, (1, 2), 3)
    task = jdl.tasks.sequence_labelling(
        jdl.from_linen(network), inputs=lambda batch: jax.nn.one_hot(batch["x"], 3)
    )
    learner = jdl.learner(task, optax.adam(0.01))
    result = jdl.Result(learner.init(jax.random.key(0), data), learner, [], None)
    changes = jdl.receptive_field(result, data, step=9, back=6, symbols=3)
    # Dilations 1 and 2 with filters of width 2 see four steps, the present one included.
    assert (changes[:4] > 1e-4).all() and (changes[4:] == 0).all()
