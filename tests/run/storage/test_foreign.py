"""A directory of something else does not become a run directory."""

import numpy as np
import optax
import pytest

import jdl
from jdl.run.storage.files import write_json
from jdl.run.storage.foreign import check_not_foreign
from jdl.run.storage.run_dir import RunDir

X = np.ones((8, 1), np.float32)
LINE = jdl.regression(jdl.from_linen(jdl.models.MLP(features=(), outputs=1)))


def train(folder):
    learner, quiet = jdl.learner(LINE, optax.sgd(0.1)), jdl.Options(bar=False)
    return jdl.fit(learner, {"x": X, "y": X}, batch_size=4, epochs=1, run_dir=folder, options=quiet)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_files_of_others_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(jdl.InputError, match=r"(?s)an empty or new directory.*thesis.tex.*/run"):
        train(tmp_path)
    assert names(tmp_path) == ["thesis.tex"]
    assert int(train(tmp_path / "run").state.step) == 2  # what the message suggests


def test_a_configuration_of_something_else_is_no_run(tmp_path):
    write_json(tmp_path / "config.json", {"architectures": ["Bert"]})
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(jdl.InputError, match=r"model\.safetensors"):
        train(tmp_path)
    assert names(tmp_path) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("left", [[], [".DS_Store", "Thumbs.db"], [".lock", ".config.json.new"]])
def test_a_directory_that_is_as_good_as_empty_is_taken(left, tmp_path):
    for name in left:
        (tmp_path / name).write_bytes(b"")
    check_not_foreign(RunDir(tmp_path))
    check_not_foreign(RunDir(tmp_path / "new"))


def test_a_run_resumes_whatever_was_put_next_to_it(tmp_path):
    train(tmp_path)
    (tmp_path / "notes.txt").write_text("good")
    assert int(train(tmp_path).state.step) == 2


def test_a_run_that_ended_while_it_began_is_begun_again(tmp_path):
    run = RunDir(tmp_path).create({}, records={"fingerprint.json": {}})
    run.config_file.unlink()  # it is written last
    check_not_foreign(run)


@pytest.mark.parametrize("left", ["checkpoints/12/manifest.json", "metrics.jsonl", "events/a"])
def test_a_run_without_its_configuration_is_refused(left, tmp_path):
    run = RunDir(tmp_path).create({})
    write_bytes_in(tmp_path / left)
    check_not_foreign(run)
    run.config_file.unlink()
    name = left.partition("/")[0]
    with pytest.raises(jdl.InputError, match=f"(?s)got: +{name} without config.json.*or choose"):
        check_not_foreign(run)
    check_not_foreign(RunDir(tmp_path / "run"))  # what the message suggests


def write_bytes_in(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def test_many_names_are_counted(tmp_path):
    for i in range(9):
        (tmp_path / f"{i}.txt").write_text("")
    with pytest.raises(jdl.InputError, match=r"0.txt, 1.txt, 2.txt and 6 more"):
        check_not_foreign(RunDir(tmp_path))
