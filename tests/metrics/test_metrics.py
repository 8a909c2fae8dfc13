"""Metrics: equal to their definition, merged by addition, blind to what the mask hides."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as reference

from jdl import metrics
from jdl.core.errors import InputError
from jdl.core.types import Count, Mean
from jdl.run.evaluate import add_on_host

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 5, 40)
LOGITS = (RNG.normal(size=(40, 5)) + np.eye(5)[LABELS]).astype("float32")
SCORES = RNG.normal(size=40).astype("float32")
TRUTH = (SCORES + RNG.normal(size=40) > 0).astype("int32")

CLASSES = {"outputs": LOGITS, "y": LABELS}
BINARY = {"outputs": SCORES, "y": TRUTH}
NUMBERS = {"outputs": LOGITS, "y": RNG.normal(size=(40, 5)).astype("float32")}
CASES = {
    "accuracy": (metrics.accuracy, CLASSES, (LOGITS.argmax(1) == LABELS).mean()),
    "top_k": (
        metrics.top_k(2),
        CLASSES,
        reference.top_k_accuracy_score(LABELS, LOGITS, k=2, labels=range(5)),
    ),
    "confusion": (
        metrics.confusion(5),
        CLASSES,
        reference.confusion_matrix(LABELS, LOGITS.argmax(1), labels=range(5)),
    ),
    "perplexity": (
        metrics.perplexity,
        CLASSES,
        np.exp(reference.log_loss(LABELS, np.asarray(jax.nn.softmax(LOGITS)), labels=range(5))),
    ),
    "mean_squared_error": (
        metrics.mean_squared_error,
        NUMBERS,
        reference.mean_squared_error(NUMBERS["y"], LOGITS),
    ),
    "mean_absolute_error": (
        metrics.mean_absolute_error,
        NUMBERS,
        reference.mean_absolute_error(NUMBERS["y"], LOGITS),
    ),
    "binary_accuracy": (metrics.binary_accuracy, BINARY, ((SCORES > 0) == TRUTH).mean()),
    "auc": (metrics.auc(), BINARY, reference.roc_auc_score(TRUTH, SCORES)),
    "averaged": (
        metrics.mean_of(lambda outputs, batch: outputs.max(-1)),
        CLASSES,
        LOGITS.max(1).mean(),
    ),
}


@pytest.fixture(params=CASES)
def case(request):
    metric, batch, expected = CASES[request.param]
    return metric, dict(batch), expected


def count(metric, batch):
    batch = {name: jnp.asarray(value) for name, value in batch.items()}
    return jax.jit(metric.count)(batch.pop("outputs"), batch)


def test_equals_the_definition(case):
    metric, batch, expected = case
    np.testing.assert_allclose(metric.compute(count(metric, batch)), expected, rtol=1e-5)


def test_parts_add_up_to_the_whole(case):
    metric, batch, expected = case
    parts = [{name: v[s] for name, v in batch.items()} for s in (slice(7), slice(7, 40))]
    total = add_on_host([count(metric, part) for part in parts])
    np.testing.assert_allclose(metric.compute(total), expected, rtol=1e-5)


def test_masked_rows_do_not_count(case):
    metric, batch, expected = case
    padded = {
        name: np.concatenate([v, np.full_like(v[:3], np.nan if v.dtype.kind == "f" else 0)])
        for name, v in batch.items()
    }
    padded["mask"] = np.arange(43) < 40
    np.testing.assert_allclose(metric.compute(count(metric, padded)), expected, rtol=1e-5)
    # A mask that keeps fewer must change what is counted.
    few = count(metric, {**batch, "mask": np.arange(40) < 17})
    rows = {name: v[:17] for name, v in batch.items()}
    np.testing.assert_allclose(metric.compute(few), metric.compute(count(metric, rows)), rtol=1e-5)
    assert not np.allclose(metric.compute(few), expected)


def test_members_keep_their_axis(case):
    metric, batch, expected = case
    batch = {name: jnp.asarray(value) for name, value in batch.items()}
    outputs = batch.pop("outputs")
    sums = jax.jit(jax.vmap(metric.count, (0, None)))(jnp.stack([outputs, -outputs]), batch)
    shown = np.asarray(metric.compute(sums))
    assert len(shown) == 2
    np.testing.assert_allclose(shown[0], expected, rtol=1e-5)
    assert not np.allclose(shown[1], expected)


def test_counts_are_integers():
    for name in ("accuracy", "top_k", "confusion", "binary_accuracy"):
        metric, batch, _ = CASES[name]
        for leaf in jax.tree.leaves(count(metric, batch)):
            assert leaf.dtype == jnp.int32, name


@pytest.mark.parametrize(("label", "hit"), [(0, 1), (1, 0)])
def test_a_logit_of_exactly_0_predicts_label_0(label, hit):
    batch = {"outputs": np.zeros((2, 1), np.float32), "y": np.full((2, 1), label)}
    assert metrics.binary_accuracy.compute(count(metrics.binary_accuracy, batch)) == hit


def test_a_label_that_is_no_class_is_in_no_row_of_a_confusion():
    table = count(metrics.confusion(3), {"outputs": np.eye(3), "y": np.array([0, -1, 5])})
    assert table.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_one_hot_labels_are_understood():
    one_hot = {"outputs": LOGITS, "y": np.eye(5, dtype="float32")[LABELS]}
    assert metrics.accuracy.compute(count(metrics.accuracy, one_hot)) == CASES["accuracy"][2]


def test_accuracy_of_every_token_with_a_mask_of_either_rank():
    logits = jnp.asarray(LOGITS).reshape(8, 5, 5)
    labels = jnp.asarray(LABELS).reshape(8, 5)
    rows = metrics.accuracy.count(logits, {"y": labels, "mask": jnp.arange(8) < 4})
    tokens = jnp.broadcast_to((jnp.arange(8) < 4)[:, None], (8, 5))
    same = metrics.accuracy.count(logits, {"y": labels, "mask": tokens})
    assert (rows.total, rows.weight) == (same.total, same.weight)
    assert rows.weight == 20


def test_perplexity_of_equally_likely_classes_is_their_number():
    sums = metrics.perplexity.count(jnp.full((4, 7), 800.0), {"y": jnp.arange(4)})
    np.testing.assert_allclose(metrics.perplexity.compute(sums), 7, rtol=1e-4)


def test_wilson_covers_the_truth_as_often_as_it_says():
    """By exact enumeration: mean coverage over p is the level, where the simple one falls short."""
    from scipy.stats import binom

    n, covered = 30, []
    intervals = np.array([metrics.wilson_interval(k, n) for k in range(n + 1)])
    for p in np.linspace(0.02, 0.98, 97):
        inside = (intervals[:, 0] <= p) & (p <= intervals[:, 1])
        covered.append(binom.pmf(np.arange(n + 1), n, p)[inside].sum())
    assert abs(np.mean(covered) - 0.95) < 0.01


def test_wilson_equals_scipy():
    from scipy.stats import binomtest

    for k, n, level in [(0, 5, 0.95), (9912, 10000, 0.95), (5, 5, 0.9), (3, 7, 0.99)]:
        expected = binomtest(k, n).proportion_ci(level, method="wilson")
        np.testing.assert_allclose(metrics.wilson_interval(k, n, level), expected, atol=1e-12)
    with pytest.raises(InputError, match="3 of 2"):
        metrics.wilson_interval(3, 2)


def test_show_gives_plain_python():
    values = {
        "loss": Mean(jnp.float32(3), jnp.float32(4)),
        "table": Count(count(metrics.confusion(5), CLASSES), metrics.confusion(5).compute),
        "members": Mean(jnp.array([1.0, 2.0]), jnp.array([1.0, 2.0])),
        "player": {"raw": jnp.float32(1)},
        "empty": Mean(jnp.float32(0), jnp.float32(0)),
    }
    shown = metrics.compute(values)
    assert shown["loss"] == 0.75 and type(shown["loss"]) is float
    assert shown["members"] == [1.0, 1.0] and shown["player"] == {"raw": 1.0}
    assert sum(map(sum, shown["table"])) == 40 and type(shown["table"][0][0]) is int
    assert np.isnan(shown["empty"])
    assert json.loads(json.dumps(shown))["loss"] == 0.75


def test_shapes_that_would_broadcast():
    batch = {"y": jnp.zeros(3)}
    with pytest.raises(InputError, match=r"y\[\.\.\., None\]"):
        metrics.mean_squared_error.count(jnp.zeros((3, 1)), batch)
    with pytest.raises(InputError, match="mask"):
        metrics.accuracy.count(
            jnp.zeros((3, 2)), {"y": jnp.zeros(3, int), "mask": jnp.ones((3, 1))}
        )
