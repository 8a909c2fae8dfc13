"""A run that was stopped and resumed is, bit for bit, the run that was never stopped."""

import json
import logging
import os
import signal
import subprocess
import sys
import time

import numpy as np
import optax
import pytest

import jdl
from jdl.run.distributed.signals import Interrupted
from jdl.run.recorder import Recorder
from jdl.run.storage.metrics_log import read_metrics
from tests.support import learners
from tests.support.runs import (
    ROOT,
    assert_same_run,
    classes,
    content,
    counter,
    dropout_net,
    force,
    line,
    quiet,
    rows,
    saved,
    target_of,
)

pytestmark = pytest.mark.usefixtures("kept_programs")

# 60 examples in batches of 8 for 4 epochs: 30 steps; rows at 7, 14, ..., evaluations at 5, 10, ...
OPTIONS = quiet(log_every=7, evaluate_every=5, save_seconds=1e9)


def train(folder, learner=None, **given):
    given = {"batch_size": 8, "epochs": 4, "options": OPTIONS, "best": "min loss"} | given
    learner = dropout_net() if learner is None else learner
    data = given.pop("data", classes(60))
    return jdl.fit(learner, data, valid=classes(20, seed=1), run_dir=folder, **given)


@pytest.fixture(autouse=True)
def short_dispatches(monkeypatch):
    """Three steps at most in a dispatch, so that a run can be stopped between boundaries."""
    force(monkeypatch, "loop", 3)


@pytest.fixture
def stop_at(monkeypatch):
    """Make the next runs stop, by a real signal, once they have come to a step."""
    plain = Recorder.progress

    def set_up(step, number=signal.SIGINT):
        def progress(self, at):
            plain(self, at)
            if step is not None and at >= step:
                os.kill(os.getpid(), number)

        monkeypatch.setattr(Recorder, "progress", progress)

    return set_up


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that is never stopped."""
    with pytest.MonkeyPatch.context() as patch:
        force(patch, "loop", 1000)
        return train(tmp_path_factory.mktemp("whole") / "run")


def assert_same_folder(one, other):
    like = target_of(dropout_net(), classes())
    learners.assert_same_bits(content(saved(one, like)), content(saved(other, like)))
    assert rows(one) == rows(other)
    best = [
        json.loads((folder / "checkpoints" / "best.json").read_text()) for folder in (one, other)
    ]
    assert best[0] == best[1]


@pytest.mark.parametrize("stops", [(3,), (10, 20, 25), (28,)])
def test_stopped_and_resumed_is_the_same_run(tmp_path, stop_at, whole, stops):
    folder = tmp_path / "run"
    for step in stops:
        stop_at(step)
        with pytest.raises(Interrupted) as info:
            train(folder)
        assert step <= info.value.step < step + 3
    stop_at(None)
    result = train(folder)
    assert_same_run(result, whole)
    assert_same_folder(folder, whole.run_dir)


def test_sigterm_and_resume_is_the_same_run(tmp_path, stop_at, whole):
    stop_at(16, signal.SIGTERM)
    with pytest.raises(Interrupted):
        train(tmp_path / "run")
    stop_at(None)
    assert_same_run(train(tmp_path / "run"), whole)


def test_a_finished_run_is_not_trained_again(whole):
    before = (whole.run_dir / "metrics.jsonl").read_bytes()
    assert_same_run(train(whole.run_dir), whole)
    assert (whole.run_dir / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_another_seed_is_another_run(tmp_path, whole):
    other = train(tmp_path / "run", seed=1)
    assert learners.differ(other.state.params, whole.state.params)
    assert rows(other) != rows(whole)


@pytest.mark.slow
def test_convolutions_resume_with_the_same_bits(tmp_path, stop_at, monkeypatch):
    force(monkeypatch, "step", 2)
    draw = np.random.default_rng(0)
    data = {"x": draw.random((24, 8, 8, 1), np.float32), "y": np.arange(24, dtype=np.int32) % 3}
    model = jdl.models.CNN(features=(2,), hidden=(4,), classes=3, dropout=0.2, norm="batch")
    learner = jdl.ema(jdl.learner(jdl.classification(jdl.from_linen(model)), optax.adam(1e-2)), 0.9)

    def run(folder):
        return jdl.fit(
            learner, data, batch_size=8, epochs=4, run_dir=folder, options=quiet(log_every=5)
        )

    stop_at(None)
    straight = run(tmp_path / "straight")
    stop_at(8)
    with pytest.raises(Interrupted):
        run(tmp_path / "run")
    stop_at(None)
    assert_same_run(run(tmp_path / "run"), straight)


@pytest.mark.parametrize("step", [20, 27, 31])
def test_patience_runs_out_at_the_same_step(tmp_path, stop_at, step):
    given = {"best": None, "patience": 2, "epochs": 10, "data": line(60)}
    straight = train(None, counter(), **given)
    assert float(straight.state.params["w"]) == 20 and rows(straight)[-1]["step"] == 35
    stop_at(step)
    with pytest.raises(Interrupted):
        train(tmp_path / "run", counter(), **given)
    stop_at(None)
    resumed = train(tmp_path / "run", counter(), **given)
    assert_same_run(resumed, straight)
    assert_same_run(train(tmp_path / "run", counter(), **given), straight)  # it stays ended


@pytest.mark.slow
def test_more_epochs_go_on_where_the_run_ended(tmp_path, whole):
    # 14 epochs are 105 steps, 28 are 210: both end on a row and on an evaluation.
    options = {"options": quiet(log_every=7, evaluate_every=5), "best": None}
    train(tmp_path / "run", small_net(), epochs=14, **options)
    longer = train(tmp_path / "run", small_net(), epochs=28, **options)
    assert int(longer.state.step) == 210
    assert_same_run(longer, train(None, small_net(), epochs=28, **options))
    recorded = json.loads((tmp_path / "run" / "config.json").read_text())
    assert recorded["fit"]["epochs"] == 28


def small_net():
    """The classifier without dropout, quicker to compile."""
    model = jdl.from_linen(jdl.models.MLP((4,), outputs=2))
    return jdl.learner(jdl.classification(model), optax.adam(1e-2))


@pytest.mark.parametrize(
    ("change", "fragments"),
    [
        ({"batch_size": 16}, ["fit.batch_size: 8 in the run, 16 now"]),
        ({"epochs": 3}, ["fit.epochs: 4 in the run, 3 now"]),
        (
            {"seed": 5, "best": "max accuracy"},
            [
                "fit.seed: 0 in the run, 5 now",
                'fit.best: "min loss" in the run, "max accuracy" now',
            ],
        ),
        ({"options": quiet(log_every=6, evaluate_every=5)}, ["fit.log_every: 7 in the run, 6 now"]),
    ],
)
def test_another_configuration_is_refused_with_both_values(whole, change, fragments):
    before = (whole.run_dir / "metrics.jsonl").read_bytes()
    text = learners.message(lambda: train(whole.run_dir, **change))
    assert all(fragment in text for fragment in fragments)
    assert (whole.run_dir / "metrics.jsonl").read_bytes() == before


# Damage


def damage(folder, step):
    largest = max((folder / "checkpoints" / str(step)).rglob("*"), key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(bytes(content))


def test_a_damaged_newest_checkpoint_costs_only_time(tmp_path, stop_at, whole, caplog):
    folder = tmp_path / "run"
    for step in (12, 21):
        stop_at(step)
        with pytest.raises(Interrupted):
            train(folder)
    damage(folder, 21)
    stop_at(None)
    with caplog.at_level(logging.WARNING, "jdl"):
        result = train(folder)
    assert any("checkpoint 21 is skipped" in record.getMessage() for record in caplog.records)
    assert_same_run(result, whole)


def test_no_good_checkpoint_left_is_an_error(tmp_path, stop_at):
    folder = tmp_path / "run"
    stop_at(3)
    with pytest.raises(Interrupted):
        train(folder)
    damage(folder, 3)
    text = learners.message(lambda: train(folder))
    assert "no good checkpoint left" in text and "step 3: " in text


# kill -9

KILLED = """
import sys, time
import jdl
from jdl.run import setup
from jdl.run.execution.dispatch import DispatchMode
from tests.support.runs import classes, dropout_net, quiet
setup.choose_dispatch = lambda *_: DispatchMode("loop", 3)
options = quiet(log_every=7, evaluate_every=5, save_seconds=0.0)
jdl.fit(
    dropout_net(), classes(), valid=classes(20, seed=1), run_dir=sys.argv[1], batch_size=8,
    epochs=float(sys.argv[2]), best="min loss", options=options, log=lambda row: time.sleep(0.1),
)
"""


def test_killed_without_warning_and_resumed_is_the_same_run(tmp_path, program_store):
    folder = tmp_path / "run"
    program = tmp_path / "killed.py"
    program.write_text(KILLED)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_COMPILATION_CACHE_DIR": str(program_store / "jdl" / "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    process = subprocess.Popen([sys.executable, program, folder, "20"], env=environment)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        done = [int(p.name) for p in (folder / "checkpoints").glob("[0-9]*")]
        if done and max(done) > 30:
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    steps = max(row["step"] for row in read_metrics(folder / "metrics.jsonl"))
    assert 20 < steps < 150
    options = quiet(log_every=7, evaluate_every=5)
    resumed = train(folder, epochs=20, options=options)
    assert_same_run(resumed, train(tmp_path / "straight", epochs=20, options=options))
    assert_same_folder(folder, tmp_path / "straight")
