"""Every experiment is imported, shrunk and run, as its command does it."""

import ast
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest

import jdl
from jdl.cli import main
from jdl.core import tree
from jdl.run.imports import load_module
from tests.support.runs import ROOT, rows

pytestmark = pytest.mark.usefixtures("kept_programs")

FILES = sorted((ROOT / "experiments").glob("*.py"))
BY_NAME = {path.stem: path for path in FILES}


@pytest.fixture
def run(capfd, monkeypatch, tmp_path):
    """`jdl.main` of an experiment's file: (exit code, stdout, stderr, the folder of the run)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JDL_DATA_DIR", raising=False)

    def call(name, *words):
        module = load_module(BY_NAME[name])
        capfd.readouterr()
        try:
            main.main(module.Config, module.experiment, ["--run.dir", "run", *words])
            code = 0
        except SystemExit as end:
            code = end.code or 0
        return code, *capfd.readouterr(), Path("run")

    return call


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_head_says_what_to_expect(path):
    head = ast.get_docstring(ast.parse(path.read_text())) or ""
    for word in ("command", "data", "device", "time", "expect"):
        assert re.search(rf"^{word}\w*\s+\S", head, re.M), f"no line {word!r} at the head"
    assert f"python experiments/{path.name}" in head


def test_linear_regression_finds_the_shortest_weights(run):
    code, out, _, folder = run("linear_regression", "--run.no-report")
    assert code == 0
    params = jdl.load(folder).state.params
    found = [*np.ravel(params["w"]), *np.ravel(params["b"])]
    np.testing.assert_allclose(found, [2 / 3, 1 / 3, -1 / 3], atol=1e-3)
    at = jdl.predict(jdl.load(folder), np.array([[5, 6], [6, 7]], np.float32))
    np.testing.assert_allclose(at, [[5], [6]], atol=1e-3)
    assert "w = (0.666" in out and "test loss" in out


def test_linear_regression_diverges_above_the_limit(run):
    code, _, err, folder = run("linear_regression", "--learning-rate", "0.1", "--run.no-report")
    assert code == 3 and "training diverged" in err and "examples" in err
    assert rows(folder)[-1]["step"] < 2_000
    # The limit is 2 / 43.7 = 0.0458.
    words = ("--run.dir", "below", "--learning-rate", "0.0457", "--run.no-report")
    assert run("linear_regression", *words)[0] == 0


@pytest.mark.slow
def test_xor_is_learned_by_members_side_by_side(run):
    code, out, _, folder = run("xor", "--members", "5", "--epochs", "800")
    assert code == 0 and "5 of 5 members reach an MSE below 0.01" in out
    result = jdl.load(folder)
    assert tree.count(result.state.params) == 5 * 17
    assert list((folder / "figures").glob("*decision*.png"))
    table = load_module(BY_NAME["xor"]).INPUTS
    answers = jdl.predict(result, table).round()
    assert (answers == np.array([[0], [1], [1], [0]])).all()


@pytest.mark.slow
def test_digits_mlp(run):
    words = ("--features", "32", "--epochs", "4", "--learning-rate", "1e-2", "--run.no-report")
    code, out, _, folder = run("digits_mlp", *words)
    assert code == 0
    assert float(re.match(r"test accuracy (0\.\d+) \(95 %", out)[1]) > 0.85
    assert json.loads((folder / "config.json").read_text())["features"] == [32]


@pytest.mark.parametrize(
    ("recipe", "epochs"), [("plain", "1"), pytest.param("best", "4", marks=pytest.mark.slow)]
)
def test_mnist_cnn_falls_back_to_digits(run, recipe, epochs):
    words = (
        "--epochs",
        epochs,
        "--batch-size",
        "32",
        "--average",
        "0.9",
        "--learning-rate",
        "4e-3",
    )
    code, out, _, folder = run("mnist_cnn", "--recipe", recipe, *words)
    assert code == 0
    assert float(re.match(r"test accuracy (0\.\d+) \(95 %", out)[1]) > 0.4
    assert json.loads((folder / "result.json").read_text())["n"] == 359
    assert (folder / "report.html").is_file()


def test_mnist_cnn_on_mnist_is_cnn_a(mnist_dir):
    module = load_module(BY_NAME["mnist_cnn"])
    made = module.experiment(module.Config(data_dir=str(mnist_dir)))
    assert (made.name, made.epochs, made.batch_size) == ("mnist_cnn", 10, 128)
    batch = {name: value[:2] for name, value in made.data.train.items()}
    shapes = jax.eval_shape(made.learner.init, jax.random.key(0), batch)
    assert tree.count(shapes.params) == 225_034
    assert made.data.info["sizes"] == {"train": 55_000, "valid": 5_000, "test": 10_000}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["stable", pytest.param("plain", marks=pytest.mark.slow)])
def test_gan_ring(run, recipe):
    words = ("--recipe", recipe, "--members", "2", "--steps", "6", "--run.no-report")
    code, out, _, folder = run("gan_ring", *words)
    assert code == 0 and re.search(r"modes found by each member, of 8: \[\d, \d\]", out)
    assert rows(folder)[-1]["step"] == 6
    assert {"generator/loss", "discriminator/loss"} <= set(rows(folder)[-1])


def by_hand():
    import importlib.util

    spec = importlib.util.spec_from_file_location("by_hand", BY_NAME["by_hand"])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_by_hand_is_the_same_network_in_few_lines():
    module = by_hand()
    shapes = jax.eval_shape(module.init, jax.random.key(0))
    assert tree.count(shapes) == 225_034
    assert len(BY_NAME["by_hand"].read_text().splitlines()) < 150
    assert "import jdl" not in BY_NAME["by_hand"].read_text()


def test_by_hand_trains(capfd, monkeypatch):
    module = by_hand()
    draw = np.random.default_rng(0)
    y = np.arange(128, dtype=np.int32) % 2
    x = (draw.random((128, 28, 28, 1)) * 0.3 + 0.7 * y[:, None, None, None]).astype(np.float32)
    monkeypatch.setattr(module, "BATCH", 32)
    monkeypatch.setattr(module, "load", lambda folder: ((x, y), (x, y)))
    with jax.numpy_rank_promotion("allow"):  # as in any script that does not ask for strictness
        module.main(None, "4")
    out = capfd.readouterr().out
    losses = [float(value) for value in re.findall(r"loss (\d\.\d+)", out)]
    assert len(losses) == 4 and losses[-1] < losses[0]
    assert float(re.search(r"test accuracy (\d\.\d+)", out)[1]) > 0.9
