"""Twenty-four kill -9, in the middle of saves and of steps, of a real `python experiment.py`.

After each the newest checkpoint holds, bit for bit, what the run had at that step; the next process
goes on from it and saves; and the end is that of the run that was never killed.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from jdl.core.types import TrainState
from jdl.run.imports import load_module
from jdl.run.storage.checkpoint import Checkpoints
from jdl.run.storage.run_dir import RunDir
from tests.faults.catalogue import COUNTS
from tests.support import learners
from tests.support.runs import ROOT, content, rows, target_of_experiment

# A step takes so long that several fall between two saves now and then, and a kill hits both.
FILE = '''"""Two classes, with dropout; everything is saved all the time."""
import dataclasses
import optax
import jdl
from tests.support.runs import classes, target_of_experiment

@dataclasses.dataclass(frozen=True)
class Config:
    """A classifier."""
    epochs: int = 16

def experiment(config):
    model = jdl.models.MLP((64,), outputs=2, dropout=0.3)
    task = jdl.classification(jdl.from_linen(model))
    return jdl.Experiment(
        "killed", jdl.ema(jdl.learner(task, optax.adam(1e-2)), 0.9), classes(60),
        valid=classes(20, seed=1), batch_size=8, epochs=config.epochs, best="min loss",
        options=jdl.Options(
            log_every=5, evaluate_every=7, save_seconds=0.0, bar=False, dispatch="step"
        ),
    )

if __name__ == "__main__":
    jdl.main(Config, experiment)
'''
CHAINS, KILLS = 4, 6
"""So many runs, each killed so often: every second time while a checkpoint is being written."""


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("experiment") / "killed.py"
    path.write_text(FILE)
    return path


@pytest.fixture(scope="module")
def straight(file, tmp_path_factory) -> tuple[Path, dict[int, TrainState]]:
    """The run that is never killed: its folder, and what it held at every step."""
    held: dict[int, TrainState] = {}
    plain = Checkpoints.save

    def save(self, step, state, **given):
        held[int(state.step)] = jax.tree.map(
            np.array, learners.numbers(state)
        )  # the state is donated
        plain(self, step, state, **given)

    module = load_module(file)
    folder = RunDir(tmp_path_factory.mktemp("straight") / "run", {}, file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "save", save)
        module.experiment(module.Config()).fit(run_dir=folder)
    return folder.path, held


@pytest.fixture(scope="module")
def target(file) -> TrainState:
    """The tree of a checkpoint of these runs."""
    module = load_module(file)
    return target_of_experiment(module.experiment(module.Config()))


def begin(file: Path, run: Path, store: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(store)}
    words = [sys.executable, str(file), "--run.dir", str(run), "--run.no-report"]
    return subprocess.Popen(
        words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def newest(run: Path) -> int:
    return max(Checkpoints(run / "checkpoints").steps(), default=0)


def kill(process: subprocess.Popen[bytes], run: Path, saving: bool, draw: random.Random) -> bool:
    """Kill -9 after the process has saved something, in a save or at any moment; did it hit?"""
    before, deadline = newest(run), time.monotonic() + 120
    while newest(run) <= before + draw.randrange(3) and process.poll() is None:
        assert time.monotonic() < deadline, "the process saves nothing"
        time.sleep(0.002)
    time.sleep(draw.uniform(0, 0.05))
    while saving and process.poll() is None and not list((run / "checkpoints").glob(".new-*/*")):
        time.sleep(0.0002)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.usefixtures("kept_programs")
@pytest.mark.parametrize("chain", range(CHAINS))
def test_killed_again_and_again(chain, file, straight, target, tmp_path, program_store):
    assert COUNTS["kill -9"] == CHAINS * KILLS
    whole, held = straight
    run, draw, at, hits = tmp_path / "run", random.Random(chain), 0, 0
    for number in range(KILLS):
        process = begin(file, run, program_store)
        hits += kill(process, run, saving=number % 2 == 0, draw=draw)
        state, step = Checkpoints(run / "checkpoints").restore(target)
        assert step == newest(run) > at, "the newest is whole, and newer than the last time"
        learners.assert_same_bits(content(state), content(held[step]))
        at = step
    assert hits == KILLS, "a run ended before it was killed: make it longer"
    process = begin(file, run, program_store)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err.decode()
    ends = [Checkpoints(f / "checkpoints").restore(target) for f in (run, whole)]
    assert ends[0][1] == ends[1][1] == 120
    learners.assert_same_bits(content(ends[0][0]), content(ends[1][0]))
    assert rows(run) == rows(whole)
    best = [(f / "checkpoints" / "best.json").read_bytes() for f in (run, whole)]
    assert best[0] == best[1]
    assert not list((run / "checkpoints").glob(".*"))
