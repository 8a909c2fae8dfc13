"""The experiments over trees and ratings, shrunk and run, as their command does it."""

import re
from pathlib import Path

import numpy as np
import pytest

from jdl.cli import main
from jdl.run.experiment import load_module
from tests.support.runs import ROOT

pytestmark = pytest.mark.usefixtures("kept_programs")


@pytest.fixture
def run(capfd, monkeypatch, tmp_path):
    """`jdl.main` of an experiment's file: (stdout, the folder of the run)."""
    monkeypatch.chdir(tmp_path)

    def call(name, *words):
        module = load_module(ROOT / "experiments" / f"{name}.py")
        capfd.readouterr()
        main.main(module.Config, module.experiment, ["--run.dir", "run", *words])
        return capfd.readouterr().out, Path("run")

    return call


SMALL = (
    *("--features", "8", "--expressions", "200", "--depth", "2", "--fresh", "20"),
    *("--steps", "6", "--batch-size", "64", "--run.no-report"),
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    ["childsum", "lstm", "nary", "rvnn"],
)
def test_listops(run, model):
    out, _ = run("listops", "--model", model, *SMALL)
    found = re.search(
        r"depth 1 to 2 as in training: (0\.\d+) \(n 40\); two levels deeper: (0\.\d+)", out
    )
    assert found and len(re.search(r"by depth: (.*)", out)[1].split(", ")) == 4


def test_listops_draws_accuracy_over_depth():
    module = load_module(ROOT / "experiments" / "listops.py")
    figure = module.figures(np.linspace(1, 0.3, 6), module.Config())["accuracy over depth"]
    assert [text.get_text() for text in figure.axes[0].texts][::5] == ["100.0", "30.0"]


@pytest.mark.parametrize("model", ["mf", pytest.param("ncf", marks=pytest.mark.slow)])
def test_recommender(run, model):
    out, folder = run("recommender", "--model", model, "--n", "5000", "--epochs", "2")
    numbers = re.search(r"test RMSE (\S+); biases alone (\S+); the mean rating (\S+); noise", out)
    _, alone, mean = map(float, numbers.groups())
    assert alone < mean and list((folder / "figures").glob("predictions.png"))


@pytest.mark.slow
def test_recommender_reads_a_file(run, tmp_path):
    rows = [f"{i % 13}\t{i % 17}\t{1 + i % 5}\t0" for i in range(400)]
    (tmp_path / "u.data").write_text("\n".join(rows))
    words = ("--ratings", str(tmp_path / "u.data"), "--epochs", "2", "--batch-size", "64")
    out, _ = run("recommender", *words, "--run.no-report")
    assert "test users and items not in training: {'user': 0, 'item': 0}" in out
