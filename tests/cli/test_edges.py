"""Edges of the command line: homes, terminals, help, experiments without some part."""

import io
import logging
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from PIL import Image

from jdl.cli import main, process, terminal
from jdl.cli.command_help import ARGUMENTS, command_help
from tests.support.runs import ROOT

pytestmark = pytest.mark.usefixtures("kept_programs")

FILE = '''"""A line through no test set."""
import dataclasses, numpy as np, optax, jdl

@dataclasses.dataclass(frozen=True)
class Config:
    """A line."""

    folder: str
    """Required."""
    classes: bool = False

def experiment(config):
    x = np.linspace(0, 1, 16, dtype=np.float32)[:, None]
    data = jdl.Data({"x": x, "y": 2 * x}, {}, dict, {})
    task = jdl.regression(jdl.from_linen(jdl.models.MLP(features=(), outputs=1)))
    if config.classes:
        data = jdl.data.load(config.folder)
        model = jdl.from_linen(jdl.models.MLP(features=(4,), outputs=2))
        task = jdl.classification(model)
    return jdl.Experiment(
        "line", jdl.learner(task, optax.adam(0.1)), data, batch_size=4, epochs=8,
        options=jdl.Options(bar=False),
    )

if __name__ == "__main__":
    jdl.main(Config, experiment)
'''


@pytest.fixture(autouse=True)
def experiment_file(call):
    """`line.py`, in the directory of the test."""
    Path("line.py").write_text(FILE)


def test_a_run_without_a_test_split_ends_well(call):
    code, out, err = call("train", "line.py", "--folder", "x", "--run.dir", "run")
    assert code == 0, err
    assert re.match(r"(?s)step 32: training loss .*report .*run    run", out)
    assert not Path("run/result.json").exists()
    code, _, err = call("evaluate", "run")
    assert code == 2 and "test set" in err and "jdl.evaluate(jdl.load(run), data)" in err
    assert call("report", "run")[0] == 0


def test_a_field_without_a_default_is_asked_for(call):
    for command in ("train", "plan"):
        code, out, err = call(command, "line.py")
        assert code == 2 and "--folder" in out + err and "Traceback" not in err
    code, out, _ = call("train", "line.py", "--help")
    assert code == 0 and "--folder" in out and "required" in out


def test_a_sweep_takes_a_field_without_a_default(call):
    code, out, err = call("sweep", "line.py", "--sweep.folder", "a,b", "--run.dir", "run")
    assert code == 0, err
    assert "folder a" in out and "folder b" in out


def test_colour_images_give_the_names_of_their_classes(call, caplog):
    for name, colour in (("red", (220, 20, 20)), ("blue", (20, 20, 220))):
        Path("data", name).mkdir(parents=True)
        for i in range(12):
            shade = tuple(min(255, value + i) for value in colour)
            Image.new("RGB", (4, 4), shade).save(f"data/{name}/{i}.png")
    options = ["--folder", "data", "--classes", "--run.dir", "run", "--run.no-report"]
    assert call("train", "line.py", *options)[0] == 0
    new = Image.new("RGBA", (4, 4), (210, 25, 25, 255))
    for mode in ("RGB", "RGBA", "P"):
        new.convert(mode).save("new.png")
        with caplog.at_level(logging.INFO, "jdl"):
            code, out, err = call("predict", "run", "new.png")
        assert code == 0, err
        assert out.splitlines()[1].startswith("red,")
        assert "inputs are divided by 255, like the training data" in caplog.text


# Help


@pytest.mark.parametrize("name", sorted(main.COMMANDS))
def test_help_lists_every_flag_of_a_command(name, call):
    code, out, _ = call(name, "--help")
    assert code == 0 and out.startswith(f"usage: jdl {name}")
    source = Path(import_module(f"jdl.cli.{name.replace('-', '_')}").__file__).read_text()
    for flag in re.findall(r'"(--[a-z][a-z-]*)": (?:None|False)', source):
        assert flag == "--run.fork" or flag in out, flag
    assert set(ARGUMENTS) == set(main.COMMANDS)
    assert command_help(name, main.COMMANDS[name]) + "\n" == out


def test_help_may_come_last(call):
    code, out, _ = call("predict", "run", "x.npy", "--help")
    assert code == 0 and "--out FILE.csv" in out and "jdl sweep" not in out


def test_a_reader_that_ends_early_is_no_fault():
    program = [sys.executable, "-m", "jdl.cli", "predict", "--help"]
    child = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    child.stdout.close()
    assert b"Traceback" not in child.stderr.read()
    child.stderr.close()
    assert child.wait() in (0, 1, 120)


# Terminals


@pytest.mark.parametrize(
    "encoding, expected",
    [
        ("utf-8", "0.99 ± 0.01 (95 % 0.98–1) Zürich"),
        ("cp1252", "0.99 ± 0.01 (95 % 0.98–1) Zürich"),
        ("latin-1", "0.99 ± 0.01 (95 % 0.98-1) Zürich"),
        ("cp437", "0.99 ± 0.01 (95 % 0.98-1) Zürich"),
        ("ascii", r"0.99 +/- 0.01 (95 % 0.98-1) Z\xfcrich"),
    ],
)
def test_a_terminal_of_any_encoding(encoding, expected, monkeypatch):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    terminal.allow_any_text()
    print("0.99 ± 0.01 (95 % 0.98–1) Zürich", end="", flush=True)
    assert raw.getvalue().decode(encoding) == expected


def test_commands_make_their_terminal_ready(monkeypatch, call):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", stream)
    main.command(["list"])
    assert stream.errors == "jdl.ascii"


# The cache of programs


@pytest.fixture
def no_home(monkeypatch):
    def fail(*_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", fail)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)


def test_without_a_home_nothing_is_cached(no_home, caplog):
    with caplog.at_level(logging.INFO, "jdl"):
        assert process.cache_folder() is None
    assert "not cached" in caplog.text and "XDG_CACHE_HOME" in caplog.text


def test_without_a_home_the_cache_may_have_its_own_folder(no_home, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert process.cache_folder() == tmp_path / "jdl" / "xla"


@pytest.mark.parametrize("value", ["", "relative"])
def test_an_empty_or_relative_cache_folder_counts_as_unset(value, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert process.cache_folder() == tmp_path / ".cache" / "jdl" / "xla"


def test_a_home_that_cannot_be_written(monkeypatch, tmp_path, caplog):
    (tmp_path / ".cache").write_text("a file where the folder would be")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with caplog.at_level(logging.INFO, "jdl"):
        assert process.cache_folder() is None
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "read-only"))
    assert process.cache_folder() is None


def test_a_damaged_run_does_not_end_the_list(call):
    damage = {
        "metrics": ("metrics.jsonl", '{"step": 1}\n{\n'),
        "no step": ("metrics.jsonl", '{"loss": 1.0}\n'),
        "parent": ("parent.json", '{"run": "a", "step": 3, "changes": 5}'),
        "result": ("result.json", "[]"),
        "whole": ("metrics.jsonl", '{"step": 7}\n'),
    }
    for name, (file, content) in damage.items():
        Path("runs", name).mkdir(parents=True)
        Path("runs", name, "config.json").write_text("{}")
        Path("runs", name, file).write_text(content)
    Path("runs/link").mkdir()
    Path("runs/link/config.json").symlink_to("nowhere")
    code, out, _ = call("list")
    found = {line.partition("  ")[0]: line.partition("  ")[2] for line in out.splitlines()}
    assert code == 0 and found.keys() == {f"runs/{name}" for name in damage}
    assert found["runs/whole"].startswith("step 7") and found["runs/no step"].startswith("step 0")
    root = Path.cwd() / "runs"
    assert found["runs/metrics"] == f"cannot be read: {root}/metrics/metrics.jsonl, line 2: '{{'"
    assert found["runs/result"] == f"cannot be read: {root}/result/result.json: a list"
    assert found["runs/parent"].startswith(f"cannot be read: {root}/parent/parent.json: ")
