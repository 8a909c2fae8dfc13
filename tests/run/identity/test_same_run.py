"""A run directory is resumed by the same run alone; another is refused with what differs."""

import json
import logging

import numpy as np
import optax
import pytest

import jdl
from jdl.run.storage.run_dir import RunDir
from tests.support import learners
from tests.support.runs import assert_same_run, line, net, quiet

pytestmark = pytest.mark.usefixtures("kept_programs")


def train(folder, *, rate=1e-2, data=None, valid=None, epochs=2, **given):
    learner = given.pop("learner", None) or net(rate=rate)
    return jdl.fit(
        learner,
        line() if data is None else data,
        valid=line(8, seed=1) if valid is None else valid,
        batch_size=8,
        epochs=epochs,
        run_dir=folder,
        options=quiet(),
        **given,
    )


wide = jdl.learner(learners.network(width=9), optax.adam(1e-2))
sgd = jdl.learner(learners.network(), optax.sgd(1e-2))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The directory of a finished run of 12 steps, which every refusal leaves as it was."""
    folder = tmp_path_factory.mktemp("run") / "a"
    train(folder)
    return folder


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def permuted(data, name="y"):
    return data | {name: data[name][::-1].copy()}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"data": permuted(line())}, "data: train y differs"),
        ({"data": permuted(line()), "epochs": 4}, "data: train y differs"),
        ({"data": permuted(line(), "x")}, "data: train x differs"),
        ({"valid": permuted(line(8, seed=1))}, "data: valid y differs"),
        ({"data": line() | {"weight": np.ones(48, np.float32)}}, "train weight is absent"),
        ({"rate": 2e-2}, "program: step has other constants (-0.01 in the run, -0.02 now)"),
        ({"rate": 2e-2, "epochs": 4}, "(-0.01 in the run, -0.02 now)"),
        ({"learner": net(noise=0.1)}, "program: step computes something else"),
        ({"learner": wide}, "state: params/in: float32 [3, 8] in the run, float32 [3, 9]"),
        ({"learner": sgd}, "opt_state/0/count: int32 [] in the run, absent now"),
    ],
)
def test_another_run_is_refused_and_nothing_is_touched(trained, change, told):
    before = contents(trained)
    text = learners.message(lambda: train(trained, **change))
    assert told in text and text.count("\n  expected: ") == text.count("\n  fix:      ") == 1
    changed = {p.name for p, b in contents(trained).items() if before.get(p) != b}
    assert changed <= {".lock"}


def test_settings_are_told_before_what_follows_from_them(trained):
    text = learners.message(lambda: train(trained, seed=3, data=permuted(line())))
    assert "fit.seed: 0 in the run, 3 now" in text and "data: train y differs" in text
    assert "order" not in text and "program:" not in text


def test_the_fix_of_a_refusal_works(trained, tmp_path):
    text = learners.message(lambda: train(trained, rate=2e-2))
    fork = text.partition('fork="')[2].partition('"')[0]
    result = train(tmp_path / "b", rate=2e-2, epochs=3, fork=fork)
    assert int(result.state.step) == 18


@pytest.fixture
def said(caplog):
    """What was logged as a warning."""
    with caplog.at_level(logging.WARNING, "jdl"):
        yield lambda: "\n".join(record.getMessage() for record in caplog.records)


def test_the_same_run_resumes_without_a_word(trained, said):
    train(trained)
    assert said() == ""


def test_more_epochs_tell_how_a_schedule_jumps(tmp_path, said):
    schedule = {epochs: optax.cosine_decay_schedule(0.1, 6 * epochs) for epochs in (2, 4)}
    train(tmp_path / "run", rate=schedule[2])
    result = train(tmp_path / "run", rate=schedule[4], epochs=4)
    assert int(result.state.step) == 24
    assert "at step 12 its rate jumps from 0 to 0.05" in said()
    again = said()
    assert_same_run(train(tmp_path / "run", rate=schedule[4], epochs=4), result)
    assert said() == again
    text = learners.message(lambda: train(tmp_path / "run", rate=schedule[2], epochs=4))
    assert "24 in the run, 12 now" in text


def test_a_directory_without_a_fingerprint_resumes_with_a_notice(tmp_path, said):
    train(tmp_path / "run")
    (tmp_path / "run" / "fingerprint.json").unlink()
    train(tmp_path / "run")
    assert "no fingerprint.json: data and program were not compared" in said()
    learners.message(lambda: train(tmp_path / "run", rate=2e-2))  # it has one now


def test_programs_of_other_versions_are_not_compared(tmp_path, said):
    train(tmp_path / "run")
    file = tmp_path / "run" / "fingerprint.json"
    recorded = json.loads(file.read_text())
    recorded["versions"]["jax"] = "0.1"
    file.write_text(json.dumps(recorded))
    text = learners.message(lambda: train(tmp_path / "run", data=permuted(line())))
    assert "data: train y differs" in text
    train(tmp_path / "run", rate=2e-2)
    assert "the program was not compared: jax: 0.1 in the run" in said()


@pytest.mark.parametrize("content", ["{}", '{"data": 1}', "[", '{"data": {"order": 3}}'])
def test_a_damaged_fingerprint_is_named(tmp_path, content):
    train(tmp_path / "run")
    (tmp_path / "run" / "fingerprint.json").write_text(content)
    assert "fingerprint.json" in learners.message(lambda: train(tmp_path / "run"))


# The experiment's source


@pytest.fixture
def experiment(tmp_path):
    """Trains as an experiment's file does, with this text in the file."""

    def run(text, **given):
        file = tmp_path / "mine.py"
        file.write_text(text)
        return train(RunDir(tmp_path / "run", {"width": 8}, file), **given)

    return run


def test_an_edited_experiment_is_refused_with_a_diff(experiment):
    experiment("rate = 1e-2\n")
    text = learners.message(lambda: experiment("rate = 2e-2\n", rate=2e-2))
    assert "\n-rate = 1e-2\n+rate = 2e-2" in text and "-0.01 in the run, -0.02 now" in text


def test_an_edit_that_changes_no_value_is_shown_and_accepted(experiment, said):
    one = experiment("rate = 1e-2\n")
    assert_same_run(experiment("rate = 1e-2  # of Adam\n"), one)
    assert "data and program are the same" in said() and "+rate = 1e-2  # of Adam" in said()
