"""Each metric equals scikit-learn's: masked, weighted, and merged from parts of a batch."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn import metrics as reference

import jdl
from jdl.metrics import class_counts
from jdl.run.evaluate import add_on_host

N, CLASSES, LEVEL = 32, 4, 0.8
PARTS = (slice(0, N // 2), slice(N // 2, N))  # one size, so one compilation


def calibration(y, p, sample_weight, bins=15):
    p = np.stack([1 - p, p], 1) if p.ndim == 1 else p
    confidence, hit = p.max(1), (p.argmax(1) == y).astype(float)
    row = np.clip(np.ceil(confidence * bins) - 1, 0, bins - 1)
    gap = sample_weight * (hit - confidence)
    return sum(abs(gap[row == b].sum()) for b in range(bins)) / sample_weight.sum()


def of_classes(score, **how):
    """The reference from logits of classes, as the predicted class."""
    return lambda out, y, w: score(y, out.argmax(1), sample_weight=w, **how)


def of_signs(score, **how):
    return lambda out, y, w: score(y, (out > 0).astype(int), sample_weight=w, **how)


def several(out, y, w, score):
    return score(y, softmax(np.float64(out), axis=1), sample_weight=w)


def brier(out, y, w):
    p = softmax(np.float64(out), axis=1)
    return reference.brier_score_loss(y, p, sample_weight=w, labels=range(CLASSES))


def log_loss(out, y, w):
    p = softmax(np.float64(out), axis=1)
    return reference.log_loss(y, p, sample_weight=w, labels=range(CLASSES))


def log_loss_of_one(out, y, w):
    return reference.log_loss(y, expit(np.float64(out)), sample_weight=w, labels=[0, 1])


def brier_of_one(out, y, w):
    p = expit(np.float64(out))
    return reference.brier_score_loss(y, p, sample_weight=w, labels=[0, 1], pos_label=1)


def of_numbers(score, **how):
    return lambda out, y, w: score(np.float64(y), np.float64(out), sample_weight=w, **how)


def of_ranks(score):
    def value(out, y, w):
        return np.nan if len(np.unique(y)) < 2 and not y.all() else score(y, out, sample_weight=w)

    return value


SCORES = {
    "precision": (jdl.metrics.precision, reference.precision_score),
    "recall": (jdl.metrics.recall, reference.recall_score),
    "f1": (jdl.metrics.f1, reference.f1_score),
}
METRICS = {
    **{
        f"{name} {average}": (metric(average), "classes", of_classes(score, average=average))
        for name, (metric, score) in SCORES.items()
        for average in ("macro", "micro", "weighted")
    },
    **{
        f"{name} binary": (metric(), "binary", of_signs(score))
        for name, (metric, score) in SCORES.items()
    },
    "f1 macro of one logit": (
        jdl.metrics.f1("macro"),
        "binary",
        of_signs(reference.f1_score, average="macro"),
    ),
    "balanced_accuracy": (
        jdl.metrics.balanced_accuracy,
        "classes",
        of_classes(reference.balanced_accuracy_score),
    ),
    "matthews": (jdl.metrics.matthews, "classes", of_classes(reference.matthews_corrcoef)),
    "matthews binary": (jdl.metrics.matthews, "binary", of_signs(reference.matthews_corrcoef)),
    "log_loss": (jdl.metrics.log_loss, "classes", log_loss),
    "log_loss binary": (jdl.metrics.log_loss, "binary", log_loss_of_one),
    "brier": (jdl.metrics.brier_score, "classes", brier),
    "brier binary": (jdl.metrics.brier_score, "binary", brier_of_one),
    "calibration": (
        jdl.metrics.expected_calibration_error(),
        "classes",
        partial(several, score=calibration),
    ),
    "calibration binary": (
        jdl.metrics.expected_calibration_error(),
        "binary",
        lambda out, y, w: calibration(y, expit(np.float64(out)), w),
    ),
    "auc": (jdl.metrics.auc(), "binary", of_ranks(reference.roc_auc_score)),
    "average_precision": (
        jdl.metrics.average_precision(),
        "binary",
        of_ranks(reference.average_precision_score),
    ),
    "r2": (jdl.metrics.r2, "numbers", of_numbers(reference.r2_score)),
    "median_absolute_error": (
        jdl.metrics.median_absolute_error,
        "numbers",
        of_numbers(reference.median_absolute_error),
    ),
    "pinball": (
        jdl.metrics.pinball(LEVEL),
        "numbers",
        lambda out, y, w: reference.mean_pinball_loss(y, out, sample_weight=w, alpha=LEVEL),
    ),
    "mean_squared_error": (
        jdl.metrics.mean_squared_error,
        "numbers",
        of_numbers(reference.mean_squared_error),
    ),
}
COUNTS = {name: jax.jit(metric.count) for name, (metric, _, _) in METRICS.items()}


def random_case(seed, weighted=True, masked=True):
    """Outputs and labels of each kind, with skewed classes, weights of which some are 0, a mask."""
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.full(CLASSES, 0.7))
    labels = rng.choice(CLASSES, N, p=share)
    truth = (rng.uniform(size=N) < rng.uniform(0.1, 0.9)).astype(int)
    numbers = rng.normal(size=(N, 2)) * 10.0 ** rng.integers(-3, 3) + rng.normal()
    weight = rng.uniform(0.1, 3, N) * (rng.uniform(size=N) < 0.9) if weighted else np.ones(N)
    return {
        "classes": ((2 * np.eye(CLASSES)[labels] + rng.normal(size=(N, CLASSES))), labels),
        "binary": (np.round(truth + rng.normal(size=N) - 0.5, rng.integers(1, 4)), truth),
        "numbers": (numbers + rng.normal(size=(N, 2)) * numbers.std(), numbers),
        "weight": weight.astype("float32"),
        "mask": ((rng.uniform(size=N) < 0.8) | (not masked)).astype("float32"),
    }


def edge(name, **change):
    case = random_case(len(name), weighted="weight" in name, masked="mask" in name)
    return name, {**case, **change}


def with_labels(classes=None, truth=None, **change):
    case = random_case(1)
    if classes is not None:
        change["classes"] = (case["classes"][0], np.broadcast_to(classes, N))
    if truth is not None:
        change["binary"] = (case["binary"][0], np.broadcast_to(truth, N))
    return change


def numbers(out, y):
    return {"numbers": tuple(np.broadcast_to(np.float32(part), (N, 2)) for part in (out, y))}


def outputs(classes, binary):
    case = random_case(2)
    return {
        "classes": (np.broadcast_to(classes, (N, CLASSES)), case["classes"][1]),
        "binary": (np.broadcast_to(binary, N), case["binary"][1]),
    }


ROWS = np.arange(N)
NOISE = np.random.default_rng(5).normal(size=(N, 2))
EDGES = dict(
    [
        edge("no mask, no weights"),
        edge("mask keeps every second", mask=(ROWS % 2).astype("float32")),
        edge("mask keeps one part", mask=(ROWS < 11).astype("float32")),
        edge("mask keeps one example", mask=(ROWS == 13).astype("float32")),
        edge("mask keeps none", mask=np.zeros(N, "float32")),
        edge("weights are all zero", weight=np.zeros(N, "float32")),
        edge("weight of one example only", weight=(ROWS == 3).astype("float32")),
        edge("weights of many sizes", weight=np.float32(10.0 ** (ROWS % 7 - 3))),
        edge("an absent class", **with_labels(classes=np.minimum(ROWS % CLASSES, 2))),
        edge("one class of labels", **with_labels(classes=2, truth=1)),
        edge("no positive label", **with_labels(classes=0, truth=0)),
        edge("one class predicted", **outputs([0, 0, 5, 1], 3.0)),
        edge("no positive prediction", **outputs([1, 0, 0, 0], -3.0)),
        edge("ties of all outputs", **outputs([1, 1, 1, 1], 0.0)),
        edge("large logits", **outputs([17, -17, 0, 10], 25.0)),
        edge("small logits", **outputs([1e-4, 0, 0, -1e-4], 1e-4)),
        edge("numbers far from zero", **numbers(1000 + NOISE + 0.3 * NOISE[::-1], 1000 + NOISE)),
        edge("equal numbers", **numbers(NOISE, 0.1)),
        edge("equal numbers with weights", **numbers(NOISE, 1234.567)),
        edge("numbers without an error", **numbers(NOISE, NOISE)),
    ]
)


def found(name, case):
    """The metric, merged from two parts; hidden rows hold nan."""
    metric, kind, _ = METRICS[name]
    out, y = (np.array(part) for part in case[kind])
    out = np.where((case["mask"] > 0).reshape(-1, *[1] * (out.ndim - 1)), out, np.nan)
    batch = {"y": y.astype("int32") if kind != "numbers" else y.astype("float32")}
    batch |= {"mask": case["mask"], "weight": case["weight"]}
    parts = [
        COUNTS[name](jnp.float32(out[own]), {key: jnp.asarray(x[own]) for key, x in batch.items()})
        for own in PARTS
    ]
    with np.errstate(all="raise", under="ignore"):
        return float(metric.compute(add_on_host(parts)))


def wanted(name, case):
    _, kind, score = METRICS[name]
    weight = np.float64(case["weight"] * case["mask"])
    kept = weight > 0
    if not kept.any():
        return np.nan  # scikit-learn refuses some of these, and gives 0 or nan for others
    out, y = (np.float32(part)[kept] for part in case[kind])
    y = y if kind == "numbers" else y.astype(int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return score(out, y, weight[kept])


@pytest.mark.parametrize("name", METRICS)
def test_equal_on_50_random_cases(name):
    cases = [random_case(seed, weighted=seed % 3 > 0, masked=seed % 5 > 0) for seed in range(50)]
    assert [found(name, case) for case in cases] == pytest.approx(
        [wanted(name, case) for case in cases], rel=1e-6, abs=1e-6, nan_ok=True
    )


@pytest.mark.parametrize("name", METRICS)
def test_equal_on_20_edge_cases(name):
    assert len(EDGES) == 20
    values = {edge: found(name, case) for edge, case in EDGES.items()}
    expected = {edge: wanted(name, case) for edge, case in EDGES.items()}
    assert values == pytest.approx(expected, rel=1e-6, abs=1e-6, nan_ok=True)


def batches(name, case):
    """Outputs and the rest of the batch, in two parts."""
    kind = METRICS[name][1]
    out, y = case[kind]
    batch = {"y": np.asarray(y, "float32" if kind == "numbers" else "int32")}
    batch |= {"mask": case["mask"], "weight": case["weight"]}
    return [(np.float32(out[own]), {k: x[own] for k, x in batch.items()}) for own in PARTS]


@pytest.mark.parametrize("name", METRICS)
def test_any_split_gives_the_same(name):
    metric, case = METRICS[name][0], random_case(7)
    group = np.random.default_rng(len(name)).integers(0, 3, N // 2)
    parts = [
        COUNTS[name](out, {**batch, "mask": batch["mask"] * (group == part)})
        for out, batch in batches(name, case)
        for part in range(3)
    ]
    value = float(metric.compute(add_on_host(parts)))
    assert value == pytest.approx(found(name, case), rel=2e-6, abs=2e-6)


FAMILIES = ["recall macro", "f1 micro", "matthews", "calibration", "average_precision", "r2"]


@pytest.mark.parametrize("name", [*FAMILIES, "median_absolute_error"])
def test_members_keep_their_axis(name):
    metric = METRICS[name][0]
    out, batch = batches(name, random_case(3))[0]
    both = np.stack([out, -out])
    sums = jax.jit(jax.vmap(metric.count, (0, None)))(both, batch)
    values = np.asarray(metric.compute(jax.device_get(sums)))
    alone = [metric.compute(COUNTS[name](one, batch)) for one in both]
    np.testing.assert_allclose(values, alone, rtol=1e-6)
    assert values[0] != values[1]


def test_a_nan_output_is_found_as_no_class():
    y, out = jnp.array([1, 1, 0]), jnp.array([2.0, jnp.nan, -1.0])
    metrics = {name: getattr(jdl.metrics, name) for name in ("precision", "recall", "f1")}
    values = {name: float(m().compute(m().count(out, {"y": y}))) for name, m in metrics.items()}
    assert values == pytest.approx({"precision": 1, "recall": 1 / 2, "f1": 2 / 3})
    two = jnp.stack([0 * out, out], 1)  # the same as two logits
    sums = jax.jit(jdl.metrics.f1().count)(two, {"y": y})
    assert float(jdl.metrics.f1().compute(sums)) == pytest.approx(2 / 3)
    assert float(jdl.metrics.matthews.compute(sums)) < 1
    for name in ("log_loss", "brier_score"):
        metric = getattr(jdl.metrics, name)
        assert np.isnan(metric.compute(metric.count(two, {"y": y})))


def test_several_columns_of_binary_labels_count_alike():
    y, out = RNG.integers(0, 2, (9, 3)), RNG.normal(size=(9, 3))
    sums = jdl.metrics.f1().count(jnp.asarray(out), {"y": jnp.asarray(y)})
    want = reference.f1_score(y.ravel(), out.ravel() > 0)
    assert float(jdl.metrics.f1().compute(sums)) == pytest.approx(want)


RNG = np.random.default_rng(0)


def test_wrong_uses_name_a_fix_that_works():
    out, y = jnp.zeros((5, 3)), jnp.zeros(5, int)
    with pytest.raises(jdl.InputError, match=r'jdl.metrics.f1\("macro"\)'):
        jdl.metrics.f1().count(out, {"y": y})
    jdl.metrics.f1("macro").count(out, {"y": y})
    with pytest.raises(jdl.InputError, match=r"y\[\.\.\., None\]"):
        jdl.metrics.recall("macro").count(jnp.zeros((5, 1)), {"y": y})
    jdl.metrics.recall("macro").count(jnp.zeros((5, 1)), {"y": y[..., None]})
    with pytest.raises(jdl.InputError, match=r"y\[\.\.\., None\]"):
        jdl.metrics.log_loss.count(jnp.zeros((5, 1)), {"y": y})
    with pytest.raises(jdl.InputError, match="micro"):
        jdl.metrics.precision("mirco")
    with pytest.raises(jdl.InputError, match="for the median"):
        jdl.metrics.pinball(1)
    with pytest.raises(jdl.InputError, match="average_precision"):
        jdl.metrics.average_precision().count((out,), {"y": y})
    assert set(class_counts.AVERAGES) == {"binary", "macro", "micro", "weighted"}
