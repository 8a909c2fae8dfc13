"""Language modelling: the loss is that of each next token, windows are cut fairly, bits add up."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import tasks
from jdl.core import tree
from jdl.metrics import compute
from jdl.models import from_functions
from tests.support.learners import message

VOCABULARY = 6


def bigram(key, x):
    return {"table": jax.random.normal(key, (VOCABULARY, VOCABULARY))}


# Logits of the next token from this one alone: the loss can be worked out in numpy.
MODEL = from_functions(bigram, lambda params, x: params["table"][x])
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, VOCABULARY, (4, 9)))


def surprises(params, windows):
    table = np.asarray(params["table"], np.float64)
    logs = table - np.log(np.exp(table).sum(-1, keepdims=True))
    return -logs[windows[:, :-1], windows[:, 1:]]


def evaluated(task, batch, params):
    mean, (_, metrics) = task.loss(params, {}, batch, None, train=False)
    assert float(mean.value) == pytest.approx(float(metrics["loss"].value))
    return metrics


def test_loss_bits_and_perplexity():
    task = tasks.language_model(MODEL)
    params, _ = task.init(jax.random.key(0), {"x": TOKENS})
    numbers = compute(evaluated(task, {"x": TOKENS}, params))
    loss = surprises(params, np.asarray(TOKENS)).mean()
    expected = {"loss": loss, "bits_per_token": loss / np.log(2), "perplexity": np.exp(loss)}
    assert numbers == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("shape", [(4,), (4, 8)])
def test_masks_of_windows_and_of_tokens(shape):
    task = tasks.language_model(MODEL)
    params, _ = task.init(jax.random.key(0), {"x": TOKENS})
    mask = np.random.default_rng(1).integers(0, 2, shape).astype(np.float32)
    numbers = compute(evaluated(task, {"x": TOKENS, "mask": jnp.asarray(mask)}, params))
    weights = np.broadcast_to(mask.reshape(4, -1), (4, 8))
    expected = (weights * surprises(params, np.asarray(TOKENS))).sum() / weights.sum()
    assert numbers["loss"] == pytest.approx(expected, rel=1e-5)


def test_bits_of_two_batches_merge_by_addition():
    task = tasks.language_model(MODEL)
    params, _ = task.init(jax.random.key(0), {"x": TOKENS})
    parts = [evaluated(task, {"x": part}, params) for part in (TOKENS[:1], TOKENS[1:])]
    merged = compute(tree.add(*parts))
    assert merged == pytest.approx(compute(evaluated(task, {"x": TOKENS}, params)), rel=1e-5)


def test_windows_are_cut_at_every_place_in_training_and_at_the_start_elsewhere():
    """With tokens that count up, the loss of a window says where it was cut."""
    params = {"table": jnp.diag(jnp.arange(9.0))[:, :9]}
    task = tasks.language_model(MODEL, context=3)
    x = jnp.tile(jnp.array([[0, 0, 1, 1, 2, 2]]), (400, 1))
    starts = [surprises(params, np.asarray(x[:1, s : s + 4]))[0] for s in range(3)]

    @jax.jit
    def loss(key):
        mean, _ = task.loss(params, {}, {"x": x}, key, train=True)
        return mean.value

    # About a third of the windows begin at each of three places, not the same ones for each key.
    found = np.array([loss(jax.random.key(k)) for k in range(3)])
    assert np.ptp(found) > 0
    np.testing.assert_allclose(found, np.mean(starts), rtol=0.03)
    first = evaluated(task, {"x": x}, params)["loss"].compute()
    assert first == pytest.approx(starts[0].mean(), rel=1e-5)
    assert abs(first - np.mean(starts)) > 0.1
    assert task.predict(params, {}, {"x": x}).shape == (400, 3, 9)


@pytest.mark.parametrize("name", ["mask", pytest.param("weight", marks=pytest.mark.slow)])
def test_a_mask_of_targets_is_cut_with_its_window(name):
    """Only targets 4 count, which a cut at the last of three places loses."""
    params = {"table": np.random.default_rng(0).normal(size=(VOCABULARY, VOCABULARY))}
    x = np.tile(np.array([[0, 1, 4, 2, 5, 3]]), (50, 1))
    batch = {"x": x, name: (x[:, 1:] == 4).astype(np.float32)}
    task = tasks.language_model(MODEL, context=3)
    cut, first = jax.jit(
        lambda: tuple(
            task.loss(jax.tree.map(jnp.float32, params), {}, batch, jax.random.key(0), train=train)[
                0
            ]
            for train in (True, False)
        )
    )()
    assert 20 < cut.weight < 45 and first.weight == 50
    for mean in (cut, first):
        np.testing.assert_allclose(mean.value, surprises(params, x)[0, 1], rtol=1e-5)
    said = message(
        lambda: task.loss(params, {}, {"x": x, name: x[:, :3]}, jax.random.key(0), train=True)
    )
    assert name in said and "(50, 5) for the targets" in said and "(50, 3)" in said


@pytest.mark.parametrize(
    ("batch", "context", "words"),
    [
        ({"x": jnp.zeros((2, 4))}, None, ("integers", "float32")),
        ({"x": jnp.zeros((2, 1), int)}, None, ("2 or more", "(2, 1)")),
        ({"x": jnp.zeros((2, 4), int)}, 4, ("5 or more", "(2, 4)")),
        ({"x": jnp.full((2, 4), VOCABULARY)}, None, ("tokens from 0 to 5", "6 to 6")),
        ({"y": TOKENS}, None, ('batch["x"]',)),
    ],
)
def test_what_is_no_window_is_refused(batch, context, words):
    task = tasks.language_model(MODEL, context=context)
    said = message(lambda: task.init(jax.random.key(0), batch))
    assert all(word in said for word in words), said


def test_a_cut_needs_a_key():
    task = tasks.language_model(MODEL, context=3)
    params, _ = task.init(jax.random.key(0), {"x": TOKENS})
    said = message(lambda: task.loss(params, {}, {"x": TOKENS}, None, train=True))
    assert "random key" in said
