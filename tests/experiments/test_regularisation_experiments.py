"""The experiments on imbalance, regularisation and uncertainty, shrunk and run."""

import re

import numpy as np
import pytest

import jdl
from jdl.run.experiment import load_module
from tests.experiments.test_experiments import BY_NAME, run
from tests.support.runs import rows

__all__ = ["run"]
pytestmark = pytest.mark.usefixtures("kept_programs")


def numbers(out, name):
    """The numbers of the line of a remark that begins with `name`."""
    line = next(line for line in out.splitlines() if line.startswith(name))
    return [float(found) for found in re.findall(r"-?\d+\.\d+", line.removeprefix(name))]


@pytest.mark.slow
def test_imbalance(run):
    words = ("--seeds", "1", "--epochs", "1", "--strategies", "class weights")
    code, out, _, folder = run("imbalance", *words, "--run.no-report")
    assert code == 0
    found = numbers(out, "class weights")
    assert len(found) == 4 and 0 <= min(found) <= max(found) <= 1
    result = jdl.load(folder)
    module = load_module(BY_NAME["imbalance"])
    config = module.Config(seeds=1, epochs=1, strategies=("class weights",))
    assert set(module.experiment(config).figures(result)) == {"confusion by strategy"}


def test_rare_classes_are_rare_and_the_copies_marked():
    module = load_module(BY_NAME["imbalance"])
    train = module.experiment(module.Config(kept=4)).data.train
    originals = train["original"] == 1
    counts = np.bincount(train["y"][originals])
    assert set(counts[[3, 8, 9]]) == {4} and np.delete(counts, [3, 8, 9]).min() > 100
    assert len(set(np.bincount(train["y"]))) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "methods",
    [
        ("early stopping",),  # sorted by name it would stand before "none"
        pytest.param(
            (
                "plain L1",
                "proximal L1",
                "L2",
                "decoupled decay",
                "dropout",
                "mixup",
            ),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_regularisation(run, methods):
    words = ("--seeds", "1", "--steps", "12", "--hidden", "8", "--examples", "70", "--methods")
    code, out, _, folder = run("regularisation", *words, *methods, "--run.no-report")
    assert code == 0
    assert all(0 <= numbers(out, name)[0] <= 1 for name in ("none", *methods))
    assert rows(folder)[-1]["step"] == 12
    module = load_module(BY_NAME["regularisation"])
    config = module.Config(seeds=1, steps=12, hidden=8, examples=70, methods=methods)
    result = jdl.load(folder)
    made = module.experiment(config)
    assert set(made.figures(result)) == {"methods"}
    # Each member's number stands under its own method.
    told = jdl.evaluate(result, jdl.data.load("digits").test())["loss"]
    found = jdl.group_by(made.learner.points, "method", {"loss": told})
    for point, loss in zip(made.learner.points, told, strict=True):
        assert found[point["method"]]["loss"][point["seed"]] == pytest.approx(loss)
        assert f"{np.mean(found[point['method']]['loss']):.4f}" in out


@pytest.mark.slow
def test_uncertainty(run):
    words = ("--members", "2", "--steps", "60", "--examples", "200", "--run.no-report")
    code, out, _, folder = run("uncertainty", *words)
    assert code == 0
    module = load_module(BY_NAME["uncertainty"])
    made = module.experiment(module.Config(members=2))
    assert set(made.figures(jdl.load(folder))) == {"uncertainty"}
    told, one = (numbers(out, name)[0] for name in ("loss in nats", "loss with the same std"))
    (floor,) = numbers(out, "entropy of the noise")
    assert floor == pytest.approx(-0.42, abs=0.02) and floor < min(told, one)
