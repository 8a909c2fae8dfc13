"""Paths of users, and the order of names."""

from pathlib import Path

import numpy as np
import pytest

import jdl
from jdl.core.paths import is_system_file, natural_key, user_path
from jdl.run.storage.run_dir import RunDir, next_run_dir


def test_the_order_of_names_is_that_of_their_numbers():
    expected = ["2", "003", "12", "a", "a2c9", "a2c10", "b", "class 9", "class 10"]
    assert sorted(reversed(expected), key=natural_key) == expected


def test_encoders_order_their_names_alike():
    names = jdl.data.encode.labels.fit(["10", "2", "1", "2"])
    assert names[0].tolist() == ["1", "2", "10"]
    assert jdl.data.encode.labels.apply(names, ["10", "2"]).tolist() == [2, 1]
    assert jdl.data.encode.labels.fit([10, 2, 1])[0].tolist() == [1, 2, 10]


@pytest.mark.parametrize(
    "path",
    [".DS_Store", "a/.ipynb_checkpoints/0.png", "Thumbs.db", "__MACOSX/a/0.png", "a/._0.png"],
)
def test_files_of_systems(path):
    assert is_system_file(Path(path))
    assert not is_system_file(Path("a.b/0.png"))


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_path_of_a_user_may_begin_with_the_home(home):
    np.savez(home / "set.npz", x=np.ones((20, 2), np.float32), y=np.arange(20) % 2)
    np.save(home / "x.npy", np.ones(3))
    (home / "poem.txt").write_text("hello")
    assert jdl.data.load("~/set.npz").info["classes"] == 2
    assert jdl.data.load("set.npz", dir="~").info["classes"] == 2
    assert list(jdl.data.read_npz("~/set.npz")) == ["x", "y"]
    assert jdl.data.read_npy("~/x.npy").shape == (3,)
    assert jdl.data.text.read_text("~/poem.txt") == "hello"
    tokenizer = jdl.data.tokenizers.character_tokenizer("hello")
    tokenizer.save("~/tokens.json")
    assert jdl.data.tokenizers.load_tokenizer("~/tokens.json") == tokenizer
    assert next_run_dir("~/runs", "digits") == home / "runs" / "digits" / "1"
    assert RunDir("~/runs/digits/1").path == home / "runs" / "digits" / "1"
    assert not (home / "~").exists()


@pytest.mark.parametrize(
    "read",
    [
        lambda path: jdl.load(path),
        lambda path: jdl.load(path, experiment=path),
        lambda path: jdl.data.load("mnist", dir=path),
        lambda path: jdl.data.read_idx(path),
        lambda path: jdl.data.read_ts(path),
        lambda path: jdl.data.read_csv(path, float),
        lambda path: jdl.data.read_cifar(path),
        lambda path: jdl.data.read_images(path),
        lambda path: jdl.data.movielens.read_ratings(path),
        lambda path: jdl.data.tokenizers.character_corpus(path),
    ],
)
def test_errors_name_the_path_in_the_home(read, home):
    with pytest.raises(jdl.InputError) as refused:
        read("~/absent")
    assert str(home) in str(refused.value)


def test_no_home_is_named(monkeypatch):
    def no_home(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", no_home)
    with pytest.raises(jdl.InputError, match="set HOME"):
        user_path("~/runs")
