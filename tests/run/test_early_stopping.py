"""Best weights and patience: the same run after a kill, a lost log and more epochs."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

import jdl
from jdl.run.checks import resolve_data
from jdl.run.early_stopping import Best
from jdl.run.experiment import restore
from jdl.run.setup import make_setup
from jdl.run.storage import checkpoint
from jdl.run.storage.checkpoint import Checkpoints
from jdl.run.storage.run_dir import RunDir
from tests.support.runs import assert_same_run, counter, force, line, quiet

pytestmark = pytest.mark.usefixtures("kept_programs")

# 40 examples in batches of 8: 5 steps an epoch. Evaluations at 5, 10, ... and at the end.
OPTIONS = quiet(log_every=4, evaluate_every=5, save_seconds=0.0)


class Killed(BaseException):
    """In place of SIGKILL: nothing in jdl catches it."""


@pytest.fixture(autouse=True)
def short_dispatches(monkeypatch):
    force(monkeypatch, "loop", 3)


def train(folder, learner, **given):
    given = {"batch_size": 8, "epochs": 4, "options": OPTIONS} | given
    return jdl.fit(learner, line(40), valid=line(8), run_dir=folder, **given)


def weight(result):
    return float(result.state.params["w"])


def loaded(folder, learner, **given):
    made = {"name": "counter", "data": line(40), "valid": line(8), "batch_size": 8, "epochs": 4}
    return restore(RunDir(folder), jdl.Experiment(learner=learner, options=OPTIONS, **made | given))


def best_file(folder):
    return json.loads((folder / "checkpoints" / "best.json").read_text())


@pytest.mark.parametrize(
    ("best", "last"), [("max loss", 5), pytest.param("min loss", 10, marks=pytest.mark.slow)]
)
def test_a_kill_between_a_best_checkpoint_and_its_note_loses_nothing(
    best, last, tmp_path, monkeypatch
):
    """The losses are 7, 2 and 3 at the steps 5, 10 and 15."""
    plain = checkpoint.write_json

    def write(path, value):
        if path.name == "best.json" and value["step"] == last:
            raise Killed
        plain(path, value)

    learner, given = counter(goal=12.0), {"best": best, "epochs": 3}
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoint, "write_json", write)
        train(tmp_path / "run", learner, **given)
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps()[-1] == last
    assert weight(loaded(tmp_path / "run", learner, **given)) == last
    resumed = train(tmp_path / "run", learner, **given)
    assert weight(resumed) == last and best_file(tmp_path / "run")["step"] == last
    assert last in Checkpoints(tmp_path / "run" / "checkpoints").steps()


def test_without_its_log_a_run_keeps_its_best_weights_and_says_so(tmp_path, caplog):
    learner, folder = counter(goal=12.0), tmp_path / "run"
    train(folder, learner, best="max loss", epochs=2)
    (folder / "metrics.jsonl").unlink()
    longer = train(folder, learner, best="max loss", epochs=3)
    assert weight(longer) == 5 and best_file(folder) == {"step": 5, "value": 7.0}
    assert "has lost the evaluation at step 5" in caplog.text
    (folder / "metrics.jsonl").unlink()
    (folder / "checkpoints" / "best.json").write_text('{"step": 5}')
    assert weight(train(folder, learner, best="max loss", epochs=3)) == 5


@pytest.mark.parametrize(
    ("goal", "more", "kept"),
    [
        (11.0, {"best": "max loss", "epochs": 4.8}, 5),  # the losses: 6, 1, 4, at 18 7, nan, nan
        pytest.param(18.0, {"patience": 2, "epochs": 10}, 20, marks=pytest.mark.slow),
        pytest.param(18.0, {"best": "min loss", "epochs": 3.8}, 19, marks=pytest.mark.slow),
    ],
)
def test_more_epochs_give_the_run_that_had_them_from_the_start(goal, more, kept, tmp_path):
    """The first run ends at step 18 with its best evaluation, which the long one does not have."""
    learner = counter(goal, bad=(20, 24) if goal == 11 else ())
    first = train(tmp_path / "run", learner, **more | {"epochs": 3.6})
    assert first.history[-1]["step"] == 18 and weight(first) == 18
    straight = train(None, learner, **more)
    longer = train(tmp_path / "run", learner, **more)
    assert weight(longer) == kept
    assert_same_run(longer, straight)
    assert best_file(tmp_path / "run")["step"] == kept
    assert weight(loaded(tmp_path / "run", learner, **more)) == kept


@pytest.mark.slow
def test_the_first_evaluation_may_have_been_that_of_an_old_end(tmp_path):
    learner, more = counter(), {"best": "max loss"}
    train(tmp_path / "run", learner, **more, epochs=0.6)
    assert best_file(tmp_path / "run")["step"] == 3
    assert weight(train(tmp_path / "run", learner, **more, epochs=2)) == 5


def test_best_and_patience_take_nan_and_infinity():
    best = Best("min loss", 2)
    for step, value in enumerate([np.nan, np.inf, 3.0, 3.0, np.nan]):
        best.see({"step": step, "loss": float(value)})
    assert (best.step, best.value, best.step_before(2)) == (2, 3.0, 1)
    assert [best.is_over(step) for step in (2, 4, 5)] == [False, False, True]


def test_numbers_of_numpy_and_jax_make_the_run_of_plain_ones():
    """int8 would overflow, and float16 round."""

    def settings(batch_size, seed, epochs, patience, log_every, evaluate_every):
        data = line(300)
        feed, valid = resolve_data(data, data, batch_size, seed)
        options = quiet(log_every=log_every, evaluate_every=evaluate_every)
        given = {"epochs": epochs, "patience": patience, "options": options, "seed": seed}
        setup = make_setup(counter(), feed, valid, **given)
        return setup.settings(), setup.total_steps, setup.next_boundary(240)

    plain = settings(2, 3, 3.3, 9, 100, 60)
    assert plain[1:] == (495, 300)
    numbers = settings(
        np.int8(2), np.uint8(3), np.float64(3.3), np.int64(9), np.int8(100), jnp.int32(60)
    )
    assert numbers == plain and json.dumps(numbers) == json.dumps(plain)
    assert settings(2, 3, np.float16(4), 9, 100, 60) == settings(2, 3, 4, 9, 100, 60)
