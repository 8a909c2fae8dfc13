"""The experiments over sequences, shrunk and run as their commands do it."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

import jdl
from jdl.cli import main
from jdl.core import tree
from jdl.run.experiment import load_module
from tests.support.runs import ROOT, rows

pytestmark = pytest.mark.usefixtures("kept_programs")


def module(name):
    return load_module(ROOT / "experiments" / f"{name}.py")


@pytest.fixture
def run(capfd, monkeypatch, tmp_path):
    """`jdl.main` of an experiment's file: (stdout, the folder of the run)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JDL_DATA_DIR", raising=False)

    def call(name, *words):
        made = module(name)
        capfd.readouterr()
        main.main(made.Config, made.experiment, ["--run.dir", "run", *words])
        return capfd.readouterr().out, Path("run")

    return call


@pytest.mark.slow
def test_adding_problem(run):
    words = ("--cell", "gru", "--time", "6", "--units", "12", "--steps", "600")
    out, folder = run("adding_problem", *words, "--learning-rate", "0.02")
    loss = float(re.search(r"gru: MSE (\d\.\d+) \(always predicting 1: 0\.1\d+\)", out)[1])
    assert loss < 0.05
    assert list((folder / "figures").glob("*adding*.png"))


def write_vowels(folder):
    """Nine speakers whose level tells them apart, in files of the set's form."""
    rng = np.random.default_rng(0)
    for part, each in (("TRAIN", 8), ("TEST", 3)):
        lines = ["@classLabel true " + " ".join(str(i + 1) for i in range(9)), "@data"]
        for i in range(9 * each):
            level, steps = i % 9, rng.integers(2, 6)
            x = level - 4 + 0.2 * rng.normal(size=(12, steps))
            series = ":".join(",".join(f"{v:.4f}" for v in channel) for channel in x)
            lines.append(f"{series}:{level + 1}")
        (folder / f"JapaneseVowels_{part}.ts").write_text("\n".join(lines))


@pytest.mark.slow
def test_japanese_vowels(run, tmp_path):
    write_vowels(tmp_path)
    words = ("--data-dir", str(tmp_path), "--units", "12", "--members", "2", "--epochs", "40")
    out, folder = run("japanese_vowels", *words, "--learning-rate", "0.02", "--noise", "0.1")
    found = re.search(r"test accuracy (\d+\.\d+)% ± .* \(n 2 seeds; .* 11\.1%\)", out)
    assert float(found[1]) > 60
    assert list((folder / "figures").glob("*speakers*.png"))


def test_mnist_1d(run, monkeypatch):
    few = {
        "x": np.random.default_rng(0).normal(size=(120, 40, 1)).astype("float32"),
        "y": np.arange(120, dtype="int32") % 10,
    }
    few["x"][:, 0, 0] = few["y"]
    data = jdl.data.from_arrays(few["x"], few["y"])
    monkeypatch.setattr(jdl.data, "load", lambda *_, **__: data, raising=False)
    out, folder = run("mnist_1d", "--model", "logistic", "--epochs", "2", "--batch-size", "20")
    assert "published for this model: 32%" in out
    assert list((folder / "figures").glob("*series*.png"))


@pytest.mark.parametrize(("name", "size"), [("logistic", 410), ("mlp", 78_858), ("cnn", 12_106)])
def test_networks_of_mnist_1d(name, size):
    model = jdl.from_linen(module("mnist_1d").NETWORKS[name])
    shape = jax.ShapeDtypeStruct((2, 40, 1), np.float32)
    assert tree.count(jax.eval_shape(model.init, jax.random.key(0), shape)[0]) == size


@pytest.mark.slow
def test_wavenet(run):
    out, folder = run("wavenet", "--steps", "4", "--features", "4", "--batch-size", "8")
    assert re.search(r"cross-entropy .* \d\.\d{4} nats; entropy 0\.\d{4}: .*guessing: 1\.3863", out)
    assert rows(folder)[-1]["step"] == 4
    assert list((folder / "figures").glob("*wavenet*.png"))
