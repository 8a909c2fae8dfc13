"""CONTRIBUTING.md: its six examples are added to a copy of the package, which trains with them."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import jdl

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = {
    section.partition("\n")[0]: re.findall(r"```python\n# (\S+?\.py)(?:, in (\w+))?\n(.*?)```",
                                           section, re.DOTALL)
    for section in (ROOT / "CONTRIBUTING.md").read_text().split("\n### ")[1:]
}  # fmt: skip
"""The blocks of each section: path, the table in it or "", and code."""

# Everything that was added, used as CONTRIBUTING says; the data go to the test as they are.
TRAIN = """
import jax, numpy as np, optax
import jdl

x = np.random.default_rng(0).normal(size=(24, 3)).astype(np.float32)
batch = {"x": x, "y": x[:, :1] * x[:, 1:2]}
model = jdl.from_linen(jdl.models.Bilinear(outputs=1))
metrics = {"close": jdl.metrics.within(0.5)}
task = jdl.regression(model, loss=jdl.tasks.log_cosh, metrics=metrics)
learner = jdl.report_weight_norm(jdl.learner(task, optax.sgd(0.1)))
before = learner.init(jax.random.key(0), batch)
after, seen = learner.step(before, batch)

def layers(state):
    return {f"{a}/{b}": w for a, inner in state.params.items() for b, w in inner.items()}

for name, state in {"before": before, "after": after}.items():
    np.savez(f"{name}.npz", outputs=learner.predict(state, batch), **batch, **layers(state))
with open("seen.txt", "w") as file:
    file.write(repr(jdl.metrics.compute(seen)))
options = jdl.Options(bar=False, log_every=3, track=("screen",))
jdl.fit(learner, batch, batch_size=8, epochs=4, run_dir="run", options=options)
"""


def insert(file: Path, table: str, line: str) -> None:
    """Put a line at the end of a table: a dict, or the names for type checkers."""
    lines = file.read_text().splitlines(keepends=True)
    for node in ast.parse("".join(lines)).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == table:
            return _write(file, lines, node.end_lineno, line)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == table:
            return _write(file, lines, node.end_lineno - 1, line)
    raise AssertionError(f"{file} has no table {table}")


def _write(file: Path, lines: list[str], place: int, line: str) -> None:
    file.write_text("".join([*lines[:place], f"    {line}", *lines[place:]]))


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the package, to which everything was added."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "jdl", folder / "jdl", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    for blocks in SECTIONS.values():
        for path, table, code in blocks:
            if table:
                insert(folder / path, table, code)
            else:
                assert not (folder / path).exists(), f"{path} is there already"
                (folder / path).write_text(code)
    return folder


def run(folder: Path, *words: str) -> str:
    """What Python prints, with the package of the folder."""
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def printed(copy: Path) -> str:
    """What training with all of it printed."""
    return run(copy, "-c", TRAIN)


def test_each_is_one_file_of_five_lines_and_one_line_in_a_table():
    kinds = ["model", "loss", "transform", "metric", "command", "tracker"]
    assert list(SECTIONS) == [f"A {kind}" for kind in kinds]
    for kind, blocks in SECTIONS.items():
        (path, no_table, code), (_, table, line) = blocks
        assert not no_table and table and line.count("\n") == 1, kind
        assert length(code) <= 5, f"{path} has {length(code)} lines"
        assert not (ROOT / path).exists(), f"{path} is no longer new"


def length(code: str) -> int:
    """Lines of code, without imports and docstrings."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            is_doc = ast.get_docstring(node) is not None
            kept = [n for n in node.body[is_doc:] if not isinstance(n, ast.Import | ast.ImportFrom)]
            node.body = kept
    return len([line for line in ast.unparse(tree).splitlines() if line.strip()])


def test_lines_are_counted():
    code = (
        '"""Doc."""\nimport jax\n\n\ndef f(x):\n    """Doc."""\n    # why\n    return jax.jit(x)\n'
    )
    assert length(code) == 2


def test_the_package_itself_has_none_of_it():
    """The control: what the copy knows, it knows from CONTRIBUTING."""
    assert not hasattr(jdl.models, "Bilinear") and not hasattr(jdl.tasks, "log_cosh")
    assert not hasattr(jdl, "report_weight_norm") and not hasattr(jdl.metrics, "within")


def states(copy: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    before, after = (dict(np.load(copy / f"{name}.npz")) for name in ("before", "after"))
    return before, after


def test_the_model_trains(copy, printed):
    for state in states(copy):
        left, right = (
            state["x"] @ state[f"{name}/kernel"] + state[f"{name}/bias"]
            for name in ("left", "right")
        )
        np.testing.assert_allclose(state["outputs"], left * right, rtol=1e-4, atol=1e-6)
    before, after = states(copy)
    assert all(
        (before[f"{name}/kernel"] != after[f"{name}/kernel"]).any() for name in ("left", "right")
    )


def test_the_loss_is_minimised(copy, printed):
    seen = ast.literal_eval((copy / "seen.txt").read_text())
    losses = [np.log(np.cosh(s["outputs"] - s["y"])).mean() for s in states(copy)]
    np.testing.assert_allclose(seen["loss"], losses[0], rtol=1e-5)
    assert losses[1] < losses[0]


def test_the_transform_acts_in_each_step(copy, printed):
    seen = ast.literal_eval((copy / "seen.txt").read_text())
    weights = [w for name, w in states(copy)[1].items() if "/" in name]
    assert len(weights) == 4
    np.testing.assert_allclose(
        seen["weight_norm"], np.sqrt(sum((w**2).sum() for w in weights)), rtol=1e-5
    )


def test_the_metric_is_counted(copy, printed):
    seen = ast.literal_eval((copy / "seen.txt").read_text())
    before = states(copy)[0]
    close = (abs(before["outputs"] - before["y"]) <= 0.5).mean()
    assert 0 < close < 1
    np.testing.assert_allclose(seen["close"], close, rtol=1e-6)


def log(copy: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (copy / "run" / "metrics.jsonl").read_text().splitlines()]


def test_the_tracker_is_told_each_row(copy, printed):
    rows = log(copy)
    assert [row["step"] for row in rows] == [3, 6, 9, 12]
    assert {"close", "weight_norm"} <= set(rows[-1])
    assert [ast.literal_eval(line) for line in printed.splitlines()] == rows


def test_the_command_runs_and_is_in_the_help(copy, printed):
    assert ast.literal_eval(run(copy, "-m", "jdl.cli", "last-row", "run")) == log(copy)[-1]
    shown = [
        line for line in run(copy, "-m", "jdl.cli", "--help").splitlines() if "last-row" in line
    ]
    assert len(shown) == 1 and re.fullmatch(
        r"  jdl last-row RUN +the last row of a run's log", shown[0]
    )


def test_the_examples_are_in_the_packages_style(copy):
    run(copy, "-m", "ruff", "check", "--quiet", "--fix", ".")  # sorts the tables
    run(copy, "-m", "ruff", "format", "--quiet", "--check", ".")
