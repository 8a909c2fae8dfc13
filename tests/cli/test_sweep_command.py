"""`jdl sweep`: points share their data and their rules, or are refused before training."""

from pathlib import Path

import jax
import numpy as np
import pytest

from jdl.run.experiment import open_run
from jdl.run.experiment_sweep import ExperimentSweep, is_equal
from jdl.run.imports import load_module
from jdl.run.storage.run_dir import RunDir

pytestmark = pytest.mark.usefixtures("kept_programs")

FILE = """
from dataclasses import dataclass
import numpy as np, optax
import jdl

CALLS = []
SHARED = np.linspace(0, 1, 16, dtype=np.float32)[:, None]

class Source:
    def __init__(self, x):
        self.x = x
    def __len__(self):
        return len(self.x)
    def __getitem__(self, i):
        return {"x": self.x[i], "y": self.x[i]}

@dataclass(frozen=True)
class Config:
    width: int = 2
    rate: float = 0.1
    split: int = 0
    valid: int = 0
    best: bool = False
    patience: int | None = None
    log: int = 50
    source: int = 0

def experiment(config):
    CALLS.append(config)
    x = SHARED + config.split
    held = SHARED[:4] * (1 + config.valid)
    model = jdl.from_linen(jdl.models.MLP(features=(config.width,), outputs=1))
    train = {"x": x, "y": 2 * x}
    data = jdl.Data(train, {}, lambda: train, {})
    if config.source:
        data = jdl.Feed(Source(x * config.source), 8)
    return jdl.Experiment(
        "line", jdl.learner(jdl.regression(model), optax.sgd(config.rate)), data, batch_size=8,
        valid={"x": held, "y": held}, epochs=1, best="min loss" if config.best else None,
        patience=config.patience, options=jdl.Options(bar=False, log_every=config.log),
    )
"""


@pytest.fixture
def file(call):
    Path("file.py").write_text(FILE)
    return "file.py"


@pytest.mark.parametrize(
    ("flag", "text", "what", "command"),
    [
        ("split", "0,1", "data", "jdl train file.py --split 1 --rate 0.5"),
        ("source", "1,2", "data", "jdl train file.py --source 2 --rate 0.5"),
        ("valid", "0,1", "valid", "jdl train file.py --valid 1 --rate 0.5"),
        ("best", "false,true", "best", "jdl train file.py --no-best --rate 0.5"),
        ("patience", "1,100", "patience", "jdl train file.py --patience 100 --rate 0.5"),
        ("log", "1,2", "options", "jdl train file.py --log 2 --rate 0.5"),
    ],
)
def test_points_that_would_not_be_trained_alike_are_refused(call, file, flag, text, what, command):
    code, _, err = call("sweep", file, f"--sweep.{flag}", text, "--rate", "0.5", "--run.dir", "run")
    assert code == 2 and f"--sweep.{flag}" in err and f"differ in {what}" in err
    assert f"{command}\n" in err and not Path("run").exists()


def test_the_other_fields_are_swept_for_each_value(call, file):
    code, _, err = call("sweep", file, "--sweep.width", "2,3", "--sweep.split", "0,1")
    assert code == 2 and "jdl sweep file.py --split 1 --sweep.width 2,3\n" in err


def test_each_point_is_built_once_and_used_by_all_functions(file):
    module = load_module(file)
    points = ExperimentSweep(module.experiment, module.Config(), {"width": [2, 3]})
    assert points.difference() is None
    learner = points.learner(seeds=2)
    batch = points.first.data.train

    def run(key):
        state, _ = learner.step(learner.init(key, batch), batch)
        return learner.evaluate(state, batch), learner.predict(state, batch)

    jax.eval_shape(run, jax.random.key(0))
    assert [config.width for config in module.CALLS] == [2, 3]


def test_a_saved_sweep_builds_each_point_once(file, monkeypatch):
    module = load_module(file)
    monkeypatch.setattr("jdl.run.experiment.load_module", lambda *_: module)
    recorded = {"width": 2, "sweep": {"width": [2, 3]}, "run": {"seeds": 1}}
    RunDir("run").create(recorded)
    _, experiment = open_run("run", experiment=file)
    batch = experiment.data.train
    jax.eval_shape(experiment.learner.init, jax.random.key(0), batch)
    assert [config.width for config in module.CALLS] == [2, 3]


def test_data_are_compared_by_their_bits():
    nan = np.array([np.nan, 1], np.float32)
    assert is_equal({"x": nan}, {"x": nan.copy()})
    assert not is_equal({"x": nan}, {"x": np.array([np.nan, 2], np.float32)})
    assert not is_equal({"x": nan}, {"x": nan, "y": nan})
    assert not is_equal({"x": np.zeros(2, np.int32)}, {"x": np.zeros(2, np.float32)})
    assert is_equal(4, 4.0) and not is_equal(4, None)
