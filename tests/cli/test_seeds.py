"""The last lines of `jdl train`: of the weights that are kept, and over several seeds."""

import json
import re
import statistics
from pathlib import Path

import numpy as np
import pytest

import jdl
from jdl.cli.seeds import Numbers, summary_lines
from jdl.core.spread import mean_and_deviation
from jdl.run.storage.metrics_log import read_metrics, scalars_of

pytestmark = pytest.mark.usefixtures("kept_programs")

FILE = '''"""Noise that a network learns by heart."""
import dataclasses, numpy as np, optax, jdl

@dataclasses.dataclass(frozen=True)
class Config:
    """Noise."""
    rate: float = 0.05
    best: bool = True
    valid: bool = True
    members: int = 0

def experiment(config):
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
    draw = lambda n: {"x": normal(n, 4), "y": normal(n, 1)}
    task = jdl.regression(jdl.from_linen(jdl.models.MLP(features=(32,), outputs=1)))
    learner = jdl.learner(task, optax.adam(config.rate))
    if config.members:
        learner = jdl.ensemble(learner, config.members)
    return jdl.Experiment(
        "noise", learner, draw(32), valid=draw(32) if config.valid else None,
        batch_size=8, epochs=12, best="min loss" if config.best else None,
        options=jdl.Options(bar=False, evaluate_every=4),
    )
'''


@pytest.fixture(autouse=True)
def experiment_file(call):
    Path("noise.py").write_text(FILE)


def last_line(out):
    return re.search(r"^step (\d+): (\w+) loss ([^\s,]+)", out, re.M)


def test_the_last_line_is_of_the_weights_that_are_kept(call):
    code, out, err = call("train", "noise.py", "--run.dir", "run", "--run.no-report")
    assert code == 0, err
    rows = [row for row in read_metrics(Path("run/metrics.jsonl")) if row["split"] == "valid"]
    best = min(rows, key=lambda row: row["loss"])
    assert best["step"] < rows[-1]["step"] and best["loss"] < rows[-1]["loss"]  # it overfits
    step, split, loss = last_line(out).groups()
    assert (int(step), split) == (best["step"], "valid")
    assert float(loss) == pytest.approx(best["loss"], abs=5e-5)


def test_seeds_name_their_split_and_are_left_on_disk(call):
    options = ["--run.seeds", "2", "--run.dir", "run", "--run.no-report"]
    code, out, err = call("train", "noise.py", *options)
    assert code == 0, err
    losses = [float(found) for found in re.findall(r"^step \d+: valid loss ([^\s,]+)", out, re.M)]
    found = re.search(r"^valid loss (\S+) ± (\S+) \(n 2 seeds\)$", out, re.M)
    assert float(found[1]) == pytest.approx(statistics.mean(losses), abs=1e-4)
    assert float(found[2]) == pytest.approx(statistics.stdev(losses), abs=1e-4)
    summary = json.loads(Path("run/seeds.json").read_text())
    assert summary["split"] == "valid" and [*summary["metrics"]["loss"]["values"]] == ["0", "1"]
    assert "test" not in out


def test_without_validation_the_numbers_are_of_training(call):
    options = ["--no-valid", "--no-best", "--run.dir", "run", "--run.no-report"]
    code, out, err = call("train", "noise.py", "--run.seeds", "2", "--members", "2", *options)
    assert code == 0, err
    assert last_line(out)[2] == "training"
    assert re.search(r"^training loss .* \(n 2 seeds, each the mean of its members\)$", out, re.M)


def test_a_seed_that_diverges_does_not_end_the_others(call):
    options = ["--rate", "1e30", "--run.seeds", "2", "--run.dir", "run", "--run.no-report"]
    code, _, err = call("train", "noise.py", *options)
    assert code == 3 and "these diverged: 0, 1" in err
    assert json.loads(Path("run/seeds.json").read_text())["diverged"] == [0, 1]
    assert Path("run/seed-1/metrics.jsonl").exists()


def test_small_and_large_losses_can_be_read():
    results = {0: Numbers("test", {"loss": 1.68e-05}), 1: Numbers("test", {"loss": 1.646e-05})}
    assert [*summary_lines(results)] == ["test loss 1.663e-05 ± 2.404e-07 (n 2 seeds)"]
    one = {3: Numbers("test", {"loss": 8.749e11})}
    assert [*summary_lines(one)] == ["test loss 8.749e+11 (n 1 seed)"]


def test_every_deviation_is_that_of_a_sample():
    """With n - 1 in the table, on the screen and in trackers, as in the report's line."""
    values = [0.5, 0.7, 0.9]
    sample = np.std(values, ddof=1)
    assert mean_and_deviation(values) == pytest.approx((0.7, sample))
    assert scalars_of({"loss": values})["loss_std"] == pytest.approx(sample)
    assert scalars_of({"loss": [0.5]}) == {"loss": 0.5}
    assert f"0.7000 ± {sample:.4f}" in jdl.seed_table({"a": {"loss": values}})
    assert mean_and_deviation([0.1 + 0.2] * 3) == (0.1 + 0.2, 0.0)
