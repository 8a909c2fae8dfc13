"""A disk that is full, or takes nothing, at every file of a run: one message, and no lost work.

`/dev/full` refuses every byte, as a full disk does; a link to it in the place of a file (or of the
one that is to replace it) fills the disk at just that moment. With the rights for it, small file
systems in memory are filled and locked as well.
"""

import dataclasses
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import jdl
from jdl.cli import main
from jdl.run.storage.checkpoint import Checkpoints
from jdl.run.storage.manifest import read_manifest
from tests.faults.catalogue import check_message
from tests.faults.catalogue import rows as named
from tests.support.runs import classes, dropout_net, quiet, rows

pytestmark = [
    pytest.mark.usefixtures("kept_programs"),
    pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system"),
]


@dataclasses.dataclass(frozen=True)
class Config:
    """A classifier that evaluates and saves often."""

    epochs: int = 2


def experiment(config: Config) -> jdl.Experiment:
    x, y = (classes(60)[name] for name in ("x", "y"))
    return jdl.Experiment(
        "small",
        dropout_net(),
        jdl.data.from_arrays(x, y),
        batch_size=8,
        epochs=config.epochs,
        best="min loss",
        options=quiet(evaluate_every=2, save_seconds=0.0, dispatch="step"),
    )


def train(run: Path, *words: str) -> int:
    """`python experiment.py --run.dir RUN`: its exit code."""
    try:
        main.main(Config, experiment, ["--run.dir", str(run), "--run.no-report", *words])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


# the link, and what the message names; whether steps were trained and saved before
TABLE: dict[str, tuple[str, str, bool]] = {
    "the log, cut": (".metrics.jsonl.new", "metrics.jsonl", True),
    "the settings": (".config.json.new", "config.json cannot be written", False),
    "the environment": (".environment.json.new", "environment.json cannot", False),
    "the program": (".experiment.py.new", "run cannot be written", False),
    "the best step": ("checkpoints/.best.json.new", "was not written", False),
    "the best step, later": ("checkpoints/.best.json.new", "was not written", True),
    "the result": (".result.json.new", "result.json", True),
    "the longer settings": (".config.json.new", "config.json", True),
}
FAST = ("the settings", "the result")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, Path]:
    """Runs on a disk with room: of two epochs, the same gone on with to four, and of four at once.

    Where a part of the test is over, a copy of the first one goes on.
    """
    folder = tmp_path_factory.mktemp("whole")
    assert train(folder / "short") == 0
    shutil.copytree(folder / "short", folder / "longer")
    assert train(folder / "longer", "--epochs", "4") == 0
    assert train(folder / "four", "--epochs", "4") == 0
    return {name: folder / name for name in ("short", "longer", "four")}


def leaves(run: Path) -> tuple[int, dict[str, Any]]:
    """Step and digests of the newest checkpoint, all of whose files are as they were written."""
    checkpoints = Checkpoints(run / "checkpoints")
    step = max(checkpoints.steps())
    return step, read_manifest(checkpoints.folder / str(step), step)["leaves"]


def is_same(run: Path, other: Path) -> bool:
    """Every bit of the state, and every number of the log."""
    return leaves(run) == leaves(other) and rows(run) == rows(other)


def refused(run: Path, capfd: Any, fragments: tuple[str, ...]) -> None:
    """The command says what is wrong, in one message, and ends with 2."""
    capfd.readouterr()
    assert train(run, "--epochs", "4") == 2
    err = capfd.readouterr().err
    assert "Traceback" not in err, err
    check_message(err[err.index("jdl: ") :], fragments)


@pytest.mark.parametrize("name", named(TABLE, FAST))
def test_a_full_disk_costs_no_work(name, whole, tmp_path, capfd):
    link, said, later = TABLE[name]
    run = tmp_path / "run"
    if later:
        shutil.copytree(whole["short"], run)
    (run / link).parent.mkdir(parents=True, exist_ok=True)
    (run / link).unlink(missing_ok=True)
    (run / link).symlink_to("/dev/full")
    refused(run, capfd, ("expected: free space on the disk", "free some space", said))
    if later:
        assert leaves(run)[0] >= leaves(whole["short"])[0]
    (run / link).unlink(missing_ok=True)
    assert train(run, "--epochs", "4") == 0
    assert is_same(run, whole["longer" if later else "four"])


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A file system of 160 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160k", "none", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.slow
def test_a_disk_that_fills_up(disk, whole, tmp_path, capfd):
    """The room runs out in the middle of the run: what was saved before is whole."""
    (disk / "other").write_bytes(bytes(20_000))
    refused(disk / "run", capfd, ("free space on the disk", "free some space"))
    step, _ = leaves(disk / "run")
    assert 0 < step < leaves(whole["four"])[0]
    shutil.copytree(disk / "run", tmp_path / "run")  # to a disk with room
    assert train(tmp_path / "run", "--epochs", "4") == 0
    assert is_same(tmp_path / "run", whole["four"])


@pytest.mark.slow
def test_a_disk_that_may_only_be_read(disk, whole, tmp_path, capfd):
    refused(disk / "run", capfd, ("disk",))  # too small for all of it
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    before = leaves(disk / "run")
    refused(disk / "run", capfd, ("a writable directory", "Read-only file system"))
    refused(disk / "new", capfd, ("a writable directory", "Read-only file system"))
    assert leaves(disk / "run") == before
    shutil.copytree(disk / "run", tmp_path / "run")
    assert train(tmp_path / "run", "--epochs", "4") == 0
    assert is_same(tmp_path / "run", whole["four"])
