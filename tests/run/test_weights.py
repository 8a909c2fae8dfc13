"""Weights of examples, labels that are ignored, and entries that nothing reads."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss

import jdl

RNG = np.random.default_rng(0)
N = 48
X = RNG.normal(size=(N, 2)).astype(np.float32)
Y = (np.arange(N) % 3).astype(np.int32)
WEIGHT = RNG.uniform(0, 2, N).astype(np.float32)
MODEL = jdl.from_linen(jdl.models.MLP((), 3))
OPTIONS = jdl.Options(bar=False)
METRICS = {"accuracy": jdl.metrics.accuracy, "table": jdl.metrics.confusion(3)}
LEARNER = jdl.learner(jdl.classification(MODEL, metrics=METRICS), optax.sgd(0.1))


def train(data, learner=LEARNER, **how):
    return jdl.fit(learner, data, batch_size=16, epochs=2, options=OPTIONS, **how)


def test_loss_and_metrics_are_weighted_as_in_scikit_learn():
    result = train({"x": X, "y": Y})
    found = jdl.evaluate(result, {"x": X, "y": Y, "weight": WEIGHT}, batch_size=20)
    probabilities = jax.nn.softmax(jdl.predict(result, X).astype(np.float64))
    said = probabilities.argmax(-1)
    expected = log_loss(Y, probabilities, sample_weight=WEIGHT, labels=[0, 1, 2])
    assert np.isclose(found["loss"], expected, rtol=1e-5)
    assert np.isclose(found["accuracy"], accuracy_score(Y, said, sample_weight=WEIGHT), rtol=1e-5)
    table = confusion_matrix(Y, said, sample_weight=WEIGHT)
    np.testing.assert_allclose(found["table"], table, rtol=1e-5)


def test_whole_weights_are_repeated_examples():
    times = 1 + np.arange(16) % 3
    task = jdl.classification(MODEL)
    batch = {"x": X[:16], "y": Y[:16]}
    repeated = {name: np.repeat(value, times, axis=0) for name, value in batch.items()}
    learner = jdl.learner(task, optax.sgd(0.5))
    state = learner.init(jax.random.key(0), batch)
    one, _ = learner.step(state, {**batch, "weight": times.astype(np.float32)})
    other, _ = learner.step(state, repeated)
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_mask_says_what_exists_and_a_weight_how_much_it_counts():
    mean = jdl.metrics.mean(
        jnp.array([1.0, 2.0, jnp.nan]), jnp.array([1, 1, 0]), jnp.array([1.0, 3.0, jnp.nan])
    )
    assert (float(mean.total), float(mean.weight)) == (7.0, 4.0)
    whole = jdl.metrics.fraction(jnp.array([True, False]), jnp.array([1, 1]))
    assert whole.total.dtype == jnp.int32


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"mask": np.linspace(0, 1, N)}, ['data["mask"]', "0 and 1", 'call it "weight"']),
        ({"mask": np.zeros(N)}, ['data["mask"]', "zeros only"]),
        ({"weight": -WEIGHT}, ['data["weight"]', "at least 0"]),
        ({"weight": np.ones((N, 2))}, ["weight", "one value per example"]),
    ],
)
def test_other_masks_and_weights_are_refused(entries, words):
    with pytest.raises(jdl.InputError) as raised:
        train({"x": X, "y": Y, **entries})
    assert all(word in str(raised.value) for word in words), raised.value


def test_the_fix_of_a_fractional_mask_works():
    weighted = train({"x": X, "y": Y, "weight": np.linspace(0, 1, N)})
    plain = train({"x": X, "y": Y})
    assert not np.allclose(jdl.predict(weighted, X), jdl.predict(plain, X))


BATCH_NORM = jdl.from_linen(jdl.models.CNN((2,), (), 3, norm="batch"))
IMAGES = RNG.normal(size=(N, 4, 4, 1)).astype(np.float32)


def test_batch_statistics_take_weights_with_a_notice_and_a_mask_of_ones(caplog):
    learner = jdl.learner(jdl.classification(BATCH_NORM), optax.sgd(0.1))
    with caplog.at_level(logging.WARNING, "jdl"):
        train({"x": IMAGES, "y": Y, "weight": WEIGHT}, learner)
    assert "all examples alike" in caplog.text
    train({"x": IMAGES, "y": Y, "mask": np.ones(N)}, learner)
    some = np.ones(N)
    some[3] = 0
    with pytest.raises(jdl.InputError, match="batch statistics"):
        train({"x": IMAGES, "y": Y, "mask": some}, learner)


@pytest.mark.parametrize("name", ["weights", "sample_weight", "id"])
def test_entries_that_nothing_reads_are_named_once(name, caplog):
    with caplog.at_level(logging.WARNING, "jdl"):
        train({"x": X, "y": Y, name: WEIGHT}, valid={"x": X, "y": Y})
    lines = [line for line in caplog.messages if f'"{name}"' in line]
    assert len(lines) == 1 and (('data["weight"]' in lines[0]) == (name != "id"))


def test_entries_that_are_read_are_not_named(caplog):
    with caplog.at_level(logging.WARNING, "jdl"):
        train({"x": X, "y": Y, "weight": WEIGHT})
    assert "nothing reads" not in caplog.text


class Source:
    """Examples by index, one of which has this label."""

    def __init__(self, label):
        self.label = label

    def __len__(self):
        return N

    def __getitem__(self, i):
        return {"x": X[i], "y": np.int32(self.label if i == 40 else Y[i])}


@pytest.mark.parametrize("label", [-1, 3, 7])
def test_labels_of_every_batch_are_checked(label):
    with pytest.raises(jdl.InputError, match=str(label)):
        train(jdl.Feed(Source(label), 16))
    with pytest.raises(jdl.InputError, match=str(label)):
        for _, _ in zip(range(4), jdl.steps(LEARNER, jdl.Feed(Source(label), 16)), strict=False):
            pass
    wrong = np.where(np.arange(N) == 40, label, Y)
    with pytest.raises(jdl.InputError, match=str(label)):
        next(jdl.steps(LEARNER, {"x": X, "y": wrong}, batch_size=16))


def test_ignored_labels_count_for_nothing():
    task = jdl.classification(MODEL, ignore=-1)
    learner = jdl.learner(task, optax.sgd(0.1))
    some = np.where(np.arange(N) % 4 == 0, -1, Y)
    result = train({"x": X, "y": some}, learner, valid={"x": X, "y": some})
    keep = some >= 0
    found = jdl.evaluate(result, {"x": X, "y": some}, batch_size=20)
    kept = jdl.evaluate(result, {"x": X[keep], "y": Y[keep]})
    assert np.isclose(found["loss"], kept["loss"]) and np.isclose(
        found["accuracy"], kept["accuracy"]
    )
    train(jdl.Feed(Source(-1), 16), learner)
    with pytest.raises(jdl.InputError, match="-2"):
        train({"x": X, "y": np.where(np.arange(N) == 0, -2, Y)}, learner)


def test_ignored_labels_do_not_reach_statistics_checks_smoothing_or_mixup():
    some = np.where(np.arange(N) % 4 == 0, -100, Y)
    task = jdl.classification(BATCH_NORM, ignore=-100)
    for change in (lambda t: jdl.label_smoothing(t, 0.1), lambda t: jdl.mixup(t, 0.3)):
        result = train({"x": IMAGES, "y": some}, jdl.learner(change(task), optax.sgd(0.1)))
        assert np.isfinite(jdl.predict(result, IMAGES)).all()


def test_labels_of_masked_examples_may_be_anything():
    mask = np.ones(N)
    mask[0] = 0
    train({"x": X, "y": np.where(mask == 0, -1, Y), "mask": mask})
