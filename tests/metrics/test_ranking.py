"""The area under the ROC curve: that of scikit-learn, in every way that an evaluation counts it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.metrics import roc_auc_score

import jdl
from jdl.core.types import Count, Samples
from jdl.learn.window import window
from jdl.run.evaluate import add_on_host
from tests.support.runs import quiet

AUC = jdl.metrics.auc()
RNG = np.random.default_rng(0)
TRUTH = RNG.integers(0, 2, 500)
SCORES = RNG.normal(size=500) + TRUTH
WEIGHTS = RNG.uniform(size=500).astype("float32")

X = RNG.normal(size=(48, 2)).astype("float32")
Y = (X[:, :1] + RNG.normal(size=(48, 1)) > 0).astype("float32")
TRAIN, VALID = {"x": X[:32], "y": Y[:32]}, {"x": X[29:], "y": Y[29:]}


def area(scores, y=TRUTH, **batch):
    batch = {name: jnp.asarray(value) for name, value in ({"y": y} | batch).items()}
    return AUC.compute(jax.jit(AUC.count)(jnp.asarray(scores), batch))


def task():
    model = jdl.from_linen(jdl.models.MLP((), outputs=1))
    return jdl.binary_classification(model, metrics={"auc": AUC})


def learner():
    return jdl.learner(task(), optax.sgd(0.1))


@pytest.fixture(scope="module")
def result():
    """A finished run with an AUC for the rows of its validation set."""
    return jdl.fit(
        learner(), TRAIN, valid=VALID, batch_size=8, epochs=4, best="max auc", options=quiet()
    )


def expected(result, data=VALID, **weights):
    scores = np.asarray(jdl.predict(result, data["x"]))[..., 0]
    truth = data["y"][:, 0]
    if scores.ndim == 2:
        return [roc_auc_score(truth, own, **weights) for own in scores]
    return roc_auc_score(truth, scores, **weights)


@pytest.mark.parametrize("offset", [0, 1e6, -50])
@pytest.mark.parametrize("scale", [1e-4, 1, 1e5])
def test_exact_wherever_the_scores_lie(offset, scale):
    moved = (offset + scale * SCORES).astype("float32")
    assert area(moved) == pytest.approx(roc_auc_score(TRUTH, moved), abs=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int32", "float32"])
def test_ties_count_half(dtype):
    scores = jnp.round(2 * SCORES).astype(dtype)
    assert area(scores) == pytest.approx(roc_auc_score(TRUTH, np.float64(scores)), abs=1e-12)
    assert area(jnp.zeros(500, dtype)) == 0.5


def test_integers_that_float32_would_tie():
    assert area(np.array([2**24, 2**24 + 1]), y=np.array([0, 1])) == 1


@pytest.mark.parametrize("scores", [SCORES.astype("float32"), np.round(SCORES)])
def test_masks_and_weights(scores):
    mask = WEIGHTS > 0.3
    hidden = np.where(mask, scores, np.nan)
    want = roc_auc_score(TRUTH[mask], scores[mask])
    assert area(hidden, mask=mask.astype("float32")) == pytest.approx(want, abs=1e-12)
    want = roc_auc_score(TRUTH, scores, sample_weight=np.float64(WEIGHTS))
    assert area(scores, weight=WEIGHTS) == pytest.approx(want, abs=1e-12)
    want = roc_auc_score(TRUTH[mask], scores[mask], sample_weight=np.float64(WEIGHTS)[mask])
    assert area(hidden, weight=WEIGHTS, mask=mask) == pytest.approx(want, abs=1e-12)


def test_several_labels_and_a_mask_of_examples():
    scores, y = SCORES.reshape(100, 5).astype("float32"), TRUTH.reshape(100, 5)
    mask = np.arange(100) < 60
    want = roc_auc_score(y[mask].ravel(), scores[mask].ravel())
    assert area(scores, y=y, mask=mask) == pytest.approx(want, abs=1e-12)


def test_extremes():
    y = np.array([0, 1, 0, 1])
    assert area(np.array([-800, 800, -np.inf, np.inf]), y) == 1
    assert area(np.array([np.inf, np.inf, -np.inf, -np.inf]), y) == 0.5
    assert area(np.array([0.0, -0.0]), np.array([0, 1])) == 0.5
    with np.errstate(all="raise"):
        assert np.isnan(area(np.array([0.0, 1, 0, np.nan]), y))
        assert np.isnan(area(np.arange(4.0), np.ones(4)))
        assert np.isnan(area(np.arange(4.0), np.zeros(4)))
        assert np.isnan(area(np.arange(4.0), y, mask=np.zeros(4)))


def test_float64_scores_keep_their_digits(x64):
    assert area(np.array([1.0, 1 + 1e-12]), np.array([0, 1])) == 1


def test_any_split_into_batches_gives_the_same():
    scores = SCORES.astype("float32")
    parts = [
        Count(AUC.count(jnp.asarray(scores[own]), {"y": jnp.asarray(TRUTH[own])}), AUC.compute)
        for own in (slice(7), slice(7, 400), slice(400, 500))
    ]
    want = roc_auc_score(TRUTH, scores)
    assert add_on_host(parts).compute() == pytest.approx(want, abs=1e-12)


def test_fit_has_it_in_rows_of_validation_and_stops_by_it(result):
    rows = {
        split: [r for r in result.history if r["split"] == split] for split in ("train", "valid")
    }
    assert rows["train"] and all("auc" not in row for row in rows["train"])
    best = max(row["auc"] for row in rows["valid"])
    assert best == pytest.approx(expected(result), abs=1e-12)


@pytest.mark.parametrize("batch_size", [4, 19, 512])
def test_evaluate_is_exact_over_padded_batches(result, batch_size):
    weights = WEIGHTS[:19]
    found = jdl.evaluate(result, VALID, batch_size=batch_size)["auc"]
    assert found == pytest.approx(expected(result), abs=1e-12)
    found = jdl.evaluate(result, VALID | {"weight": weights}, batch_size=batch_size)["auc"]
    want = expected(result, sample_weight=np.float64(weights))
    assert found == pytest.approx(want, abs=1e-12)


def build(width):
    model = jdl.from_linen(jdl.models.MLP((width,), outputs=1))
    return jdl.learner(jdl.binary_classification(model, metrics={"auc": AUC}), optax.sgd(0.1))


FORMS = {
    "ensemble": lambda: jdl.ensemble(build(2), 3),
    "sweep": lambda: jdl.sweep(build, {"width": [2, 3]}, seeds=2),
    "shard": lambda: jdl.shard(learner(), jdl.mesh(data=4)),
    "pmap": lambda: jdl.pmap(learner(), devices=4),
    "shard_map": lambda: jdl.shard_map(learner(), jdl.mesh(data=4)),
    "game": lambda: jdl.independent(one=jdl.Player(task(), optax.sgd(0.1))),
}


@pytest.mark.parametrize("form", FORMS)
def test_members_devices_and_games(form):
    many = FORMS[form]()
    state = jax.jit(many.init)(jax.random.key(0), TRAIN)
    start = jdl.Result(state, many, [], None)
    found = jdl.evaluate(start, VALID, batch_size=8)
    name = "one/auc" if form == "game" else "auc"
    np.testing.assert_allclose(found[name], expected(start), atol=1e-12)
    _, metrics = jax.eval_shape(many.step, state, TRAIN)
    assert name not in metrics and "loss" in metrics


@pytest.mark.parametrize("gradient", [jdl.mean_gradient, jdl.accumulate(2)])
def test_training_leaves_samples_out_of_gradients(gradient):
    batch = {"x": X[:4], "y": Y[:4]}
    params, model_state = jax.eval_shape(task().init, jax.random.key(0), batch)
    call = gradient(task().loss)
    _, (_, metrics) = jax.eval_shape(call, params, model_state, batch, jax.random.key(0))
    assert list(metrics) == ["loss"]


def test_a_step_of_your_own_that_returns_samples_is_refused():
    inner = learner()

    def step(state, batch, *, axis=None):
        after, metrics = inner.step(state, batch, axis=axis)
        return after, metrics | {"auc": inner.evaluate(after, batch)["auc"]}

    with pytest.raises(jdl.InputError, match="from evaluate only") as refused:
        window(inner._replace(step=step), 2).init(jax.random.key(0), TRAIN)
    assert 'metrics["auc"] of step' in str(refused.value)
    window(inner, 2).init(jax.random.key(0), TRAIN)  # the fix


def test_a_metric_of_your_own_gathers_padding_too(result):
    def count(outputs, batch):
        errors = (outputs - batch["y"])[:, 0]
        return Samples({"error": errors, "mask": batch.get("mask", jnp.ones(len(errors)))})

    def median(samples):
        return np.median(samples.arrays["error"][samples.arrays["mask"] != 0])

    model = jdl.from_linen(jdl.models.MLP((), outputs=1))
    of_median = jdl.regression(model, metrics={"median": jdl.Metric(count, median)})
    own = result._replace(learner=jdl.learner(of_median, optax.sgd(0.1)))
    errors = jdl.predict(own, VALID["x"]) - VALID["y"]
    found = jdl.evaluate(own, VALID, batch_size=4)["median"]
    np.testing.assert_allclose(found, np.median(errors), rtol=1e-6)


def test_two_logits_are_refused_with_a_fix_that_works():
    logits = jnp.asarray(RNG.normal(size=(500, 2)).astype("float32"))
    with pytest.raises(jdl.InputError, match=r"logits\[:, 1\] - logits\[:, 0\]") as refused:
        area(logits)
    assert "(500, 2)" in str(refused.value) and "binary_classification" in str(refused.value)
    scores = logits[:, 1] - logits[:, 0]
    assert area(scores) == pytest.approx(roc_auc_score(TRUTH, scores), abs=1e-12)
    with pytest.raises(jdl.InputError, match="y == class"):
        area(jnp.zeros((500, 3)))
    with pytest.raises(jdl.InputError, match=r"logits\[:, 1\]"):
        area(jnp.zeros((500, 2)), y=TRUTH[:, None])
    with pytest.raises(jdl.InputError, match="add a last axis"):
        area(jnp.zeros((500, 1)))
    with pytest.raises(jdl.InputError, match=r"\(500,\)"):
        area(jnp.zeros(400))
