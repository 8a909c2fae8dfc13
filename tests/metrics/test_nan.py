"""Metrics where an output is nan: no hit, whatever the label; where a mask hides it, no effect."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from jdl import metrics, tasks
from jdl.models import from_functions
from jdl.plots import confusion_of

RNG = np.random.default_rng(0)
LABELS = np.arange(12) % 3
LOGITS = (RNG.normal(size=(12, 3)) + np.eye(3)[LABELS]).astype("float32")
GOOD = np.arange(12) >= 5
BROKEN = np.where(GOOD[:, None] | (np.arange(3) != 1), LOGITS, np.nan).astype("float32")
"""The first five examples have a nan as their second output."""
HITS = LOGITS.argmax(1) == LABELS

RATES = {"accuracy": metrics.accuracy, "top_k": metrics.top_k(2), "top_3": metrics.top_k(3)}
IDENTITY = from_functions(lambda key, x: {}, lambda params, x: x)


def value(metric, outputs, **batch):
    batch = {name: jnp.asarray(entry) for name, entry in batch.items()}
    return metric.compute(jax.jit(metric.count)(jnp.asarray(outputs), batch))


@pytest.mark.parametrize("name", RATES)
def test_an_example_with_a_nan_is_no_hit(name):
    for label in range(3):
        assert value(RATES[name], np.full((4, 3), np.nan), y=np.full(4, label)) == 0
    rate = value(RATES[name], LOGITS[GOOD], y=LABELS[GOOD])
    assert value(RATES[name], BROKEN, y=LABELS) == pytest.approx(rate * 7 / 12)
    assert value(RATES[name], BROKEN, y=LABELS, mask=GOOD) == rate


def test_confusion_counts_no_prediction_for_a_nan():
    want = confusion_matrix(LABELS[GOOD], LOGITS[GOOD].argmax(1), labels=range(3))
    np.testing.assert_array_equal(value(metrics.confusion(3), BROKEN, y=LABELS), want)
    masked = value(metrics.confusion(3), BROKEN, y=LABELS, mask=~GOOD)
    np.testing.assert_array_equal(masked, np.zeros((3, 3)))
    weighted = value(metrics.confusion(3), BROKEN, y=LABELS, weight=np.full(12, 0.5))
    np.testing.assert_array_equal(weighted, want / 2)


def test_binary_accuracy_of_nan_logits_and_labels():
    logits, labels = np.array([1.0, -1, np.nan, np.nan, 0]), np.array([1.0, 0, 1, 0, 0])
    assert value(metrics.binary_accuracy, logits, y=labels) == pytest.approx(3 / 5)
    assert value(metrics.binary_accuracy, logits, y=labels, mask=~np.isnan(logits)) == 1
    assert value(metrics.binary_accuracy, logits[:2], y=np.full(2, np.nan)) == 0


def test_ties_go_to_the_first_class():
    assert value(metrics.accuracy, np.zeros((3, 3)), y=np.array([0, 1, 2])) == pytest.approx(1 / 3)
    assert value(metrics.top_k(2), np.zeros((3, 3)), y=np.array([0, 1, 2])) == pytest.approx(2 / 3)


def test_integer_outputs_are_taken():
    scores = np.array([[1, 3], [5, 2]])
    assert value(metrics.accuracy, scores, y=np.array([1, 0])) == 1


def test_pretext_tasks_count_no_hit_for_nan():
    nan = from_functions(lambda key, x: {}, lambda params, x: jnp.full((len(x), 4), jnp.nan))
    images = {"x": jnp.ones((2, 4, 4, 1))}
    rotation = tasks.rotation_prediction(nan)
    views = tasks.contrastive(nan, lambda key, x: x)
    for task in (rotation, views):
        _, (_, found) = task.loss({}, {}, images, jax.random.key(0), train=False)
        assert found["accuracy"].compute() == 0


def test_drawn_confusion_leaves_out_nan():
    counts = np.asarray([t.get_text() for t in confusion_of(BROKEN, LABELS).axes[0].texts], float)
    assert counts.sum() == GOOD.sum()
