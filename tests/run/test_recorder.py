"""What a run writes: where it may be slow, and a directory that is removed in the meantime."""

import os
import shutil
import threading

import pytest

import jdl
from jdl.run.trackers.tensorboard import TensorBoard
from tests.support.runs import counter, line, quiet

pytestmark = pytest.mark.usefixtures("kept_programs")


def train(folder, **options):
    return jdl.fit(
        counter(),
        line(16),
        valid=line(8, seed=1),
        batch_size=8,
        epochs=8,
        best="min loss",
        run_dir=folder,
        log=options.pop("log", None),
        options=quiet(evaluate_every=5, save_seconds=0, **options),
    )


def test_the_disk_is_waited_for_in_slow_phases_only(tmp_path, monkeypatch):
    """Several processes end a run if one is late, but not in a phase that may be slow."""
    at, phases, writes = ["starting", True], [], []

    def enter(phase, step, slow=False):
        at[:] = phase, slow
        phases.append(phase)

    def noting(name, real):
        def call(*args):
            if threading.current_thread() is threading.main_thread():
                writes.append((name, *at))
            return real(*args)

        return call

    monkeypatch.setattr(os, "fsync", noting("fsync", os.fsync))
    monkeypatch.setattr(TensorBoard, "write", noting("events", TensorBoard.write))
    train(tmp_path / "run", on_phase=enter)
    assert {"fsync", "events"} == {name for name, *_ in writes}
    assert {"saving", "logging", "finishing"} <= {phase for _, phase, _ in writes}
    assert [write for write in writes if not write[-1]] == []
    assert phases[-2:] == ["training", "finishing"]


@pytest.mark.parametrize("what", ["the run", "config.json"])
def test_a_directory_that_is_removed_ends_the_run(tmp_path, what):
    folder = tmp_path / "run"

    def remove(row):
        if row["step"] == 5 and folder.exists():
            shutil.rmtree(folder) if what == "the run" else (folder / what).unlink(missing_ok=True)

    with pytest.raises(jdl.InputError) as caught:
        train(folder, log=remove)
    got = "no such directory" if what == "the run" else "a directory without config.json"
    text = str(caught.value)
    assert f"run directory {folder}\n" in text and f"got:      {got}" in text
    assert folder.exists() == (what != "the run")


def test_a_run_that_is_put_back_goes_on(tmp_path):
    folder, elsewhere = tmp_path / "run", tmp_path / "moved"
    with pytest.raises(jdl.InputError, match="it was removed or moved"):
        train(folder, log=lambda row: row["step"] == 10 and folder.rename(elsewhere))
    assert not folder.exists()
    elsewhere.rename(folder)  # what the message suggests
    assert int(train(folder).state.step) == 16
