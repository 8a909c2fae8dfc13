"""Weights of examples, labels that are ignored, and entries that nothing reads."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss

import jdl
from jdl.run.setup import prepare

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


@pytest.fixture(scope="module")
def result():
    """A run on plain examples."""
    return train({"x": X, "y": Y})


def test_loss_and_metrics_are_weighted_as_in_scikit_learn(result):
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
    one, _ = jax.jit(learner.step)(state, {**batch, "weight": times.astype(np.float32)})
    other, _ = jax.jit(learner.step)(state, repeated)
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


def test_the_fix_of_a_fractional_mask_works(result):
    weighted = train({"x": X, "y": Y, "weight": np.linspace(0, 1, N)})
    assert not np.allclose(jdl.predict(weighted, X), jdl.predict(result, X))


BATCH_NORM = jdl.from_linen(jdl.models.CNN((2,), (), 3, norm="batch"))
IMAGES = RNG.normal(size=(N, 4, 4, 1)).astype(np.float32)


def test_batch_statistics_take_weights_with_a_notice_and_a_mask_of_ones(caplog):
    learner = jdl.learner(jdl.classification(BATCH_NORM), optax.sgd(0.1))
    with caplog.at_level(logging.WARNING, "jdl"):
        train({"x": IMAGES, "y": Y, "weight": WEIGHT}, learner)
    assert "all examples alike" in caplog.text
    next(jdl.steps(learner, {"x": IMAGES, "y": Y, "mask": np.ones(N)}, batch_size=16))
    some = np.ones(N)
    some[3] = 0
    with pytest.raises(jdl.InputError, match="batch statistics"):
        train({"x": IMAGES, "y": Y, "mask": some}, learner)


def test_entries_that_nothing_reads_are_named_once(caplog):
    others = {"sample_weight": WEIGHT, "id": WEIGHT, "weight": WEIGHT}
    with caplog.at_level(logging.WARNING, "jdl"):
        train({"x": X, "y": Y, **others}, valid={"x": X, "y": Y})
    [line] = [line for line in caplog.messages if "nothing reads" in line]
    assert '"id", "sample_weight"' in line and 'example is data["weight"]' in line


def test_entries_that_are_read_are_not_named(caplog):
    with caplog.at_level(logging.WARNING, "jdl"):
        prepare(LEARNER, {"x": X, "y": Y, "weight": WEIGHT}, options=OPTIONS, batch_size=16)
    assert "nothing reads" not in caplog.text


class Source:
    """Examples by index, one of which has this label."""

    def __init__(self, label):
        self.label = label

    def __len__(self):
        return N

    def __getitem__(self, i):
        return {"x": X[i], "y": np.int32(self.label if i == 40 else Y[i])}


def test_labels_of_a_source_are_checked_in_every_batch():
    with pytest.raises(jdl.InputError, match="7"):
        train(jdl.Feed(Source(7), 16))
    with pytest.raises(jdl.InputError, match="7"):
        for _, _ in zip(range(4), jdl.steps(LEARNER, jdl.Feed(Source(7), 16)), strict=False):
            pass


@pytest.mark.parametrize("label", [-1, 3])
def test_steps_checks_labels_before_it_trains(label):
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
    next(jdl.steps(learner, jdl.Feed(Source(-1), 16)))
    with pytest.raises(jdl.InputError, match="-2"):
        next(jdl.steps(learner, {"x": X, "y": np.where(np.arange(N) == 0, -2, Y)}, batch_size=16))


@pytest.mark.parametrize("change", [jdl.label_smoothing, jdl.mixup])
def test_ignored_labels_pass_smoothing_mixup_and_batch_statistics(change):
    batch = {"x": IMAGES, "y": np.where(np.arange(N) % 4 == 0, -100, Y)}
    task = change(jdl.classification(BATCH_NORM, ignore=-100), 0.3)
    params, model_state = task.init(jax.random.key(0), batch)
    mean, _ = jax.jit(task.loss, static_argnames="train")(
        params, model_state, batch, jax.random.key(1), train=True
    )
    assert np.isfinite(mean.value)
    assert mean.weight == (36 if change is jdl.label_smoothing else 24)  # mixup: both must count


def test_labels_of_masked_examples_may_be_anything():
    mask = np.ones(N)
    mask[0] = 0
    wrong = np.where(mask == 0, -1, Y)
    next(jdl.steps(LEARNER, {"x": X, "y": wrong, "mask": mask}, batch_size=16))
