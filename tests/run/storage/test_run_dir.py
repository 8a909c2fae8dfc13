"""The run directory: what it records, what it refuses, and who may write to it."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jax
import pytest

from jdl.core.errors import InputError
from jdl.data.feed import Feed
from jdl.run.fork import parse_fork
from jdl.run.setup import make_setup
from jdl.run.storage import files
from jdl.run.storage.files import write_bytes, write_json
from jdl.run.storage.run_dir import RunDir, next_run_dir
from tests.support.runs import counter, line

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Config:
    learning_rate: float = 2e-3
    features: tuple[int, ...] = (32, 64)
    epochs: int = 10
    data_dir: Path | None = None


@pytest.fixture
def source(tmp_path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text('"""Größe."""\nprint("hello")\n', encoding="utf-8")
    return path


@pytest.fixture
def run(tmp_path, source) -> RunDir:
    return RunDir(tmp_path / "run").create(Config(), source, command=["jdl", "train"])


def test_create_and_open(run, source):
    assert sorted(path.name for path in run.path.iterdir()) == [
        "checkpoints",
        "config.json",
        "environment.json",
        "experiment.py",
        "figures",
    ]
    again = RunDir(run.path).open()
    assert again.config() == {
        "learning_rate": 2e-3,
        "features": [32, 64],
        "epochs": 10,
        "data_dir": None,
    }
    assert again.check_experiment().read_bytes() == source.read_bytes()
    about = again.environment()
    assert about["command"] == ["jdl", "train"]
    assert about["packages"]["jax"] == jax.__version__
    assert about["python"] == ".".join(map(str, sys.version_info[:3]))
    assert about["devices"] == ["cpu"] * 8 and about["backend"] == "cpu"
    assert about["cpu_count"] == os.cpu_count()
    assert set(about) >= {"platform", "jdl", "experiment_sha256", "processes"}


def test_a_second_run_in_the_same_folder(run):
    with pytest.raises(
        InputError, match="expected: a new directory\n  got:      the directory of an"
    ):
        run.create(Config())


def test_a_run_begins_and_resumes_with_its_whole_configuration(tmp_path, source):
    def at(config):
        return RunDir(tmp_path / "run", config, source)

    def resume(config, fit):
        run = at(config)
        run.check_same_config(run.full_config({"fit": fit}))

    run = at(Config())
    run.begin({"fit": {"epochs": 3}}, {"fingerprint.json": {"steps": 7}})
    assert run.check_experiment().read_bytes() == source.read_bytes()
    assert json.loads(run.fingerprint_file.read_text()) == {"steps": 7}
    resume(Config(), {"epochs": 4})
    assert run.config() == {**files.to_json(Config()), "fit": {"epochs": 4}}
    with pytest.raises(InputError, match=r"learning_rate: 0\.002 in the run, 1\.0 now"):
        resume(Config(learning_rate=1.0), {"epochs": 4})


def test_the_changes_of_a_source_are_shown_up_to_a_length(run, source):
    assert RunDir(run.path, None, source).source_diff() == ""
    source.write_text("\n".join(f"x = {i}" for i in range(100)))
    lines = RunDir(run.path, None, source).source_diff().splitlines()
    assert len(lines) == 61 and lines[-1] == "(45 more lines)" and "+x = 50" in lines


def test_a_fork_records_its_changes(run):
    now = {**files.to_json(Config(learning_rate=1e-3)), "fit": {"epochs": 20}}
    assert run.described_changes(now) == [
        "learning_rate: 0.002 -> 0.001",
        "fit.epochs: absent -> 20",
    ]


def test_open_what_is_no_run(tmp_path):
    with pytest.raises(InputError, match="got:      no such directory\n  fix:      pass the path"):
        RunDir(tmp_path / "none").open()
    with pytest.raises(InputError, match="got:      a directory without one"):
        RunDir(tmp_path).open()


@pytest.mark.parametrize("content", ["", "{", "[1]", b"\xff\xfe"])
@pytest.mark.parametrize("name", ["config.json", "environment.json"])
def test_a_damaged_file_is_named(run, name, content):
    (run.path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match="expected: a JSON object, as jdl wrote it") as info:
        run.open()
    assert str(info.value).startswith(str(run.path / name))


def test_changed_settings_are_listed_with_both_values(run):
    new = Config(learning_rate=1e-3, features=(32,), epochs=10, data_dir=Path("x"))
    with pytest.raises(InputError) as info:
        run.check_same_config(new)
    assert str(info.value) == (
        f"run directory {run.path}\n"
        "  expected: the settings, data and program of the run that it holds "
        "(only epochs may grow)\n"
        "  got:      learning_rate: 0.002 in the run, 0.001 now; "
        'features: [32, 64] in the run, [32] now; data_dir: null in the run, "x" now\n'
        "  fix:      resume with the run's values, choose another directory for a new run, or "
        f'start one from this checkpoint: fork="{run.path}" (jdl train --run.fork {run.path})'
    )
    assert run.config()["learning_rate"] == 2e-3


def test_only_more_epochs_are_accepted_and_recorded(run):
    before = run.config_file.stat().st_mtime_ns
    run.check_same_config(Config())
    assert run.config_file.stat().st_mtime_ns == before
    run.check_same_config(Config(epochs=20))
    assert run.config()["epochs"] == 20
    with pytest.raises(InputError, match="got:      epochs: 20 in the run, 10 now"):
        run.check_same_config(Config(epochs=10))


def test_nested_absent_and_retyped_settings(tmp_path):
    run = RunDir(tmp_path / "run").create(
        {"run": {"epochs": 3, "seed": 0}, "old": 1, "flag": True, "empty": {}}
    )
    run.check_same_config({"run": {"epochs": 4, "seed": 0}, "old": 1, "flag": True, "empty": {}})
    assert run.config()["run"]["epochs"] == 4
    with pytest.raises(InputError) as info:
        run.check_same_config({"run": {"epochs": 4, "seed": 1}, "new": 2.5, "flag": 1, "empty": {}})
    assert (
        "got:      run.seed: 0 in the run, 1 now; old: 1 in the run, absent now; "
        "flag: true in the run, 1 now; new: absent in the run, 2.5 now\n"
    ) in str(info.value)


@pytest.mark.parametrize("epochs", [None, "20", True])
def test_epochs_that_are_no_number_are_a_change(run, epochs):
    with pytest.raises(InputError, match="epochs: 10 in the run"):
        run.check_same_config({**run.config(), "epochs": epochs})


def test_a_changed_experiment_is_not_run(run):
    run.experiment_file.write_text("print('other')\n")
    with pytest.raises(InputError) as info:
        run.check_experiment()
    message = str(info.value)
    assert message.startswith(f"{run.experiment_file} was changed after the run started")
    assert f"expected: SHA-256 {run.environment()['experiment_sha256'][:16]}..." in message
    assert "pass a copy that you trust: --experiment FILE.py" in message
    run.experiment_file.unlink()
    with pytest.raises(InputError, match="got:      no such file\n  fix:      pass your own copy"):
        run.check_experiment()


def test_a_run_without_an_experiment(tmp_path):
    run = RunDir(tmp_path / "run").create({})
    with pytest.raises(InputError, match="no file and no recorded hash"):
        run.check_experiment()
    with pytest.raises(
        InputError, match="expected: a readable Python file\n  got:      No such file"
    ):
        RunDir(tmp_path / "other").create({}, tmp_path / "none.py")
    assert not RunDir(tmp_path / "other").exists()


def test_source_with_windows_line_ends_keeps_its_hash(tmp_path):
    path = tmp_path / "dos.py"
    path.write_bytes(b"x = 1\r\nprint(x)\r\n")
    run = RunDir(tmp_path / "run").create({}, path)
    assert run.check_experiment().read_bytes() == path.read_bytes()


def test_next_run_is_free_and_race_free(tmp_path):
    assert next_run_dir(tmp_path, "digits") == tmp_path / "digits" / "1"
    (tmp_path / "digits" / "7").mkdir()
    (tmp_path / "digits" / "notes").mkdir()
    assert next_run_dir(tmp_path, "digits").name == "8"
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda _: next_run_dir(tmp_path, "digits").name, range(40)))
    assert sorted(map(int, names)) == list(range(9, 49))


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for act in (
        lambda: next_run_dir(tmp_path / "file", "x"),
        lambda: RunDir(tmp_path / "file" / "run").create({}),
        lambda: RunDir(tmp_path / "file" / "run").lock().__enter__(),
    ):
        with pytest.raises(InputError, match="expected: a writable directory") as info:
            act()
        assert "Not a directory" in str(info.value)


def test_a_full_disk_while_the_folder_is_made(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            InputError, match="cannot be written\n  expected: free space on the disk"
        ):
            RunDir(tmp_path / "run").create({})
    assert not RunDir(tmp_path / "run").exists()
    RunDir(tmp_path / "run").create({})  # what was left half made is no hindrance


def test_files_are_replaced_at_once(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    def die(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            write_bytes(path, b"new, half wri")
    assert json.loads(path.read_text()) == {"old": 1}
    write_bytes(path, b"new")
    assert path.read_text() == "new" and [p.name for p in tmp_path.iterdir()] == ["a.json"]


HOLDER = """
    import sys, time
    from jdl.run.storage.run_dir import RunDir
    with RunDir(sys.argv[1]).lock():
        print("held", flush=True)
        time.sleep(60)
"""


def test_two_processes_never_train_in_one_folder(tmp_path):
    run = RunDir(tmp_path / "run")
    holder = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLDER), str(run.path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(InputError) as info, run.lock():
            pass
        assert str(info.value) == (
            f"run directory {run.path}\n"
            "  expected: a directory that no other process uses\n"
            f"  got:      one in use by process {holder.pid}\n"
            "  fix:      wait for that run or stop it, or choose another directory"
        )
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    here = pytest.raises(InputError, match=f"in use by process {os.getpid()}")
    with run.lock(), here, run.lock():  # death released it, and this process holds it now
        pass
    with run.lock():  # and so does the end of the block
        pass


def test_no_error_leaves_the_lock_held(tmp_path):
    run = RunDir(tmp_path)
    with pytest.raises(ZeroDivisionError), run.lock():
        raise ZeroDivisionError
    with run.lock():
        pass


@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_forked_child_neither_keeps_the_lock_nor_releases_it(tmp_path):
    run, (read, write) = RunDir(tmp_path), os.pipe()
    with run.lock():
        child = os.fork()
        if child == 0:
            os.read(read, 1)  # it lives on after the block
            os._exit(0)
    try:
        with run.lock():
            pass
    finally:
        os.write(write, b".")
        os.waitpid(child, 0)
    held = run.lock()
    held.__enter__()
    child = os.fork()
    if child == 0:
        held.__exit__(None, None, None)
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(InputError, match="in use"), run.lock():
        pass
    held.__exit__(None, None, None)


def test_a_relative_path_stays_where_it_was(tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    run = RunDir("run")
    monkeypatch.chdir(tmp_path / "other")
    run.create({})
    assert run.open().path == tmp_path / "run" and str(run.given) == "run"
    assert [*(tmp_path / "other").iterdir()] == []


@pytest.mark.parametrize(
    ("given", "fix"),
    [
        ("", 'pass a path, such as "runs/1"'),
        (b"x", "pass 'x'"),
        ("a\0b", "pass a path"),
        ("\ud800", "pass a path"),
        (3, "pass a path"),
        (tempfile.TemporaryDirectory, "pass its name: '/"),
    ],
)
def test_what_is_no_path_is_refused_before_anything_is_written(given, fix, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with contextlib.ExitStack() as stack:
        if given is tempfile.TemporaryDirectory:
            given = given(dir=tmp_path)
            stack.callback(given.cleanup)
        with pytest.raises(InputError, match=rf"^run_dir\n(.|\n)*fix:      {fix}"):
            make_setup(counter(), Feed(line(), 8), run_dir=given)
        with pytest.raises(InputError, match=r"^fork\n"):
            parse_fork(given)


def test_a_path_that_the_system_refuses_is_an_error_of_the_user():
    with pytest.raises(InputError, match="cannot be written"):
        RunDir("a" * 300).create({})
    with pytest.raises(InputError, match="no such directory"):
        RunDir("a" * 300).open()


def test_the_folder_module_needs_no_jax():
    """Listing runs and `jdl --help` stay fast."""
    code = "import sys, jdl.run.storage.run_dir; print('jax' in sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stdout == "False\n"
    assert files.to_json(Config())["features"] == [32, 64]
