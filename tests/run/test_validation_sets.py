"""Several validation sets by name, and metrics of all examples at once within their memory."""

import json

import numpy as np
import optax
import pytest
from sklearn.metrics import f1_score

import jdl
from jdl.run import host_metrics
from jdl.run.storage.metrics_log import read_metrics
from tests.support.runs import assert_same_run, classes, quiet

TRAIN, CLEAN = classes(60), classes(19, seed=1)
NOISY = {
    "x": CLEAN["x"] + np.random.default_rng(3).normal(size=(19, 3)).astype("float32"),
    "y": CLEAN["y"],
}
SETS = {"clean": CLEAN, "noisy": NOISY}


def learner(rate=0.05):
    model = jdl.from_linen(jdl.models.MLP((), outputs=2))
    metrics = {
        "f1": jdl.metrics.f1("macro"),
        "auc": jdl.Metric(lambda out, batch: AUC.count(out[:, 1] - out[:, 0], batch), AUC.compute),
    }
    return jdl.learner(jdl.classification(model, metrics=metrics), optax.sgd(rate))


AUC = jdl.metrics.auc()


def fit(**how):
    how = {"valid": SETS, "batch_size": 8, "epochs": 4, "options": quiet(), **how}
    return jdl.fit(learner(), TRAIN, **how)


@pytest.fixture(scope="module")
def both():
    return fit(best="max noisy/f1")


def evaluations(result):
    return [row for row in result.history if row["split"] == "valid"]


def test_rows_carry_the_metrics_of_each_set(both):
    alone = {name: evaluations(fit(valid=data)) for name, data in SETS.items()}
    names = ["loss", "auc", "f1"]
    assert list(evaluations(both)[0])[3:] == [f"{s}/{name}" for s in SETS for name in names]
    for name, rows in alone.items():
        for row, own in zip(evaluations(both), rows, strict=True):
            assert {k: row[f"{name}/{k}"] for k in names} == {k: own[k] for k in names}


def test_best_max_f1_of_one_set_end_to_end(both):
    rows = evaluations(both)
    best = max(row["noisy/f1"] for row in rows)
    assert best > min(row["noisy/f1"] for row in rows)
    assert jdl.evaluate(both, NOISY)["f1"] == best
    predicted = jdl.predict(both, NOISY["x"]).argmax(1)
    assert best == pytest.approx(f1_score(NOISY["y"], predicted, average="macro"))


def test_best_max_f1_of_a_single_set():
    result = fit(valid=NOISY, best="max f1", patience=3)
    assert jdl.evaluate(result, NOISY)["f1"] == max(row["f1"] for row in evaluations(result))


def test_a_resume_is_exact_and_refuses_other_sets(both, tmp_path):
    class Stop(Exception):
        pass

    def stop(row):
        if row["split"] == "valid" and row["step"] > 10:
            raise Stop

    with pytest.raises(Stop):
        fit(best="max noisy/f1", run_dir=tmp_path / "run", log=stop)
    for other in (CLEAN, {"clean": CLEAN, "noise": NOISY}, {"clean": CLEAN, "noisy": CLEAN}):
        with pytest.raises(jdl.InputError):
            best = "max f1" if other is CLEAN else "max clean/f1"
            fit(best=best, valid=other, run_dir=tmp_path / "run")
    with pytest.raises(jdl.InputError, match="valid noisy/x"):
        fit(best="max noisy/f1", valid={**SETS, "noisy": CLEAN}, run_dir=tmp_path / "run")
    assert_same_run(fit(best="max noisy/f1", run_dir=tmp_path / "run"), both)
    assert len(read_metrics(tmp_path / "run" / "metrics.jsonl")) == len(both.history)
    recorded = json.loads((tmp_path / "run" / "fingerprint.json").read_text())["data"]
    assert {"valid clean/x", "valid noisy/y"} <= set(recorded)


@pytest.mark.parametrize("rule", [None, "max f1", "max dirty/f1"])
def test_the_rule_says_which_set_decides(rule):
    with pytest.raises(jdl.InputError, match=r'"\w+ clean/'):
        fit(best=rule, patience=2)


def test_names_and_sets_are_checked():
    for name in ("", "a/b", 3):
        with pytest.raises(jdl.InputError, match="short name"):
            fit(valid={name: CLEAN})
    bad = {"x": np.full_like(CLEAN["x"], np.nan), "y": CLEAN["y"]}
    with pytest.raises(jdl.InputError, match='validation data "noisy"'):
        fit(valid={"clean": CLEAN, "noisy": bad})


def test_gathered_examples_stay_within_the_bound(both, monkeypatch):
    bytes_of_one_set = 24 * 9  # 19 rows, padded to batches of 8
    monkeypatch.setattr(host_metrics, "HOST_BYTES", 2 * bytes_of_one_set)
    whole = fit()
    monkeypatch.setattr(host_metrics, "HOST_BYTES", bytes_of_one_set)
    with pytest.raises(jdl.InputError, match=r"50.0% of these examples") as refused:
        fit()
    assert "'clean/auc', 'noisy/auc'" in str(refused.value)
    fit(valid=CLEAN)  # the fix
    jdl.evaluate(whole, CLEAN, batch_size=8)
    monkeypatch.setattr(host_metrics, "HOST_BYTES", bytes_of_one_set - 1)
    with pytest.raises(jdl.InputError, match="'auc'"):
        jdl.evaluate(whole, CLEAN, batch_size=8)
