"""Series of unequal lengths: what is right is read, what is wrong is named by file and line."""

import os
import random
from pathlib import Path

import numpy as np
import pytest

from jdl.core.errors import InputError
from jdl.data import load, pad_sequences, read_ts, scale
from jdl.data.readers.time_series import scale_series, true_steps

GOOD = """# about
@problemName Two
@timeStamps false
@classLabel true a b

@data
1,2,3:4,5,6:a
-1.5,2e1:0,7:b
1:2:a
"""


@pytest.fixture
def ts(tmp_path):
    def write(text):
        path = tmp_path / "some.ts"
        path.write_text(text)
        return path

    return write


def test_ragged_series(ts):
    series = read_ts(ts(GOOD))
    assert (series.x.shape, series.x.dtype) == ((3, 3, 2), np.float32)
    assert series.lengths.tolist() == [3, 2, 1] and series.lengths.dtype == np.int32
    assert series.x[0].tolist() == [[1, 4], [2, 5], [3, 6]]
    assert series.x[1].tolist() == [[-1.5, 0], [20, 7], [0, 0]]
    assert (series.y.tolist(), series.labels) == ([0, 1, 0], ("a", "b"))


def test_targets_and_nothing_at_the_end(ts):
    targets = read_ts(ts("@targetLabel true\n@data\n1,2:0.25\n3:-4\n"))
    assert targets.y.tolist() == [[0.25], [-4]] and targets.x[..., 0].tolist() == [[1, 2], [3, 0]]
    plain = read_ts(ts("@classLabel false\n@data\n1,2:3,4\n"))
    assert plain.y is None and plain.x.shape == (1, 2, 2)
    with pytest.raises(InputError, match=r"line 4\n.*fit in float32"):
        read_ts(ts("@targetLabel true\n@data\n1,2:0.25\n3:-4e38\n"))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("4,5,6:a", "4,5:a", ["line 7", "channels of one length", "3, 2 steps"]),
        ("1:2:a", "1:2:3:a", ["line 9", "2 channels", "3"]),
        ("2e1", "2o1", ["line 8", "finite numbers", "'2o1'"]),
        ("2e1", "?", ["line 8", "a missing value, '?'"]),
        ("2e1", "inf", ["line 8", "'inf'"]),
        ("2e1", "1e39", ["line 8", "fit in float32", "'1e39'"]),
        ("2e1", "2_0", ["line 8", "'2_0'"]),
        ("true a b", "true a b a", ["line 4", "each class once", "'a' twice"]),
        ("7:b", "7:c", ["line 8", "one of a, b", "'c'"]),
        ("1:2:a", ":a", ["line 9", "a missing value, ''"]),
        ("@timeStamps false", "@timeStamps true", ["line 3", "without time stamps"]),
        ("@classLabel true a b", "@classLabel true", ["line 4", "names of the classes"]),
        ("@data", "data", ["@data"]),
        (GOOD[GOOD.index("1,2") :], "", ["at least one example"]),
    ],
)
def test_what_is_wrong_is_named(ts, old, new, words):
    path = ts(GOOD.replace(old, new))
    with pytest.raises(InputError) as info:
        read_ts(path)
    assert all(word in str(info.value) for word in [str(path), *words]), str(info.value)


def test_unreadable_files(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_ts(tmp_path / "none.ts")
    (tmp_path / "bytes.ts").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"bytes\.ts"):
        read_ts(tmp_path / "bytes.ts")


def test_pad_to_a_common_length():
    x, lengths = pad_sequences([np.ones((2, 3)), np.ones((1, 3))], 4)
    assert x.shape == (2, 4, 3) and x.sum() == 9 and lengths.tolist() == [2, 1]
    for steps, words in ((1, "from 1 to 1 steps"), (None, "from 0 to 2")):
        examples = [np.ones((2, 1)), np.ones((1 if steps else 0, 1))]
        with pytest.raises(InputError, match=words):
            pad_sequences(examples, steps)


@pytest.mark.parametrize(
    ("examples", "words"),
    [
        ([], "got:      none"),
        ([np.ones((2, 2)), np.ones((2, 1))], r"\[2, 2\] and \[2, 1\]"),
        ([np.ones((2, 1)), np.ones(3)], r"\[2, 1\] and \[3\]"),
        ([np.ones((2, 1)), np.full((1, 1), 1e39)], "series 1\n.*fit in float32"),
    ],
)
def test_series_that_cannot_be_padded(examples, words):
    with pytest.raises(InputError, match=words):
        pad_sequences(examples)


def test_scaling_looks_at_true_steps_only():
    x, lengths = pad_sequences([np.full((3, 1), 2.0), np.full((1, 1), 6.0)])
    x[1, 1:] = 99
    statistics = scale.standardise.fit(true_steps(x, lengths))
    assert statistics["mean"] == [3]
    done = scale_series(scale.standardise, statistics, x, lengths)
    assert (done[1, 1:] == 0).all() and np.isclose(true_steps(done, lengths).std(), 1)


VOWELS = Path(os.environ.get("JDL_TEST_DATA", "/nowhere")) / "japanese_vowels"


@pytest.mark.skipif(not VOWELS.is_dir(), reason="no Japanese Vowels: set JDL_TEST_DATA")
def test_japanese_vowels(monkeypatch):
    monkeypatch.setenv("JDL_DATA_DIR", str(VOWELS.parent))
    data = load("japanese_vowels", seed=1)
    assert data.info["sizes"] == {"train": 216, "valid": 54, "test": 370}
    assert np.bincount(data.train["y"]).tolist() == [24] * 9
    test = data.test()
    assert test["x"].shape == (370, 29, 12) and data.train["x"].shape == (216, 29, 12)
    assert np.bincount(test["y"]).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    lengths = np.concatenate([part["lengths"] for part in (data.train, data.valid, test)])
    assert (lengths.min(), lengths.max()) == (7, 29)
    steps = true_steps(data.train["x"], data.train["lengths"])
    assert np.abs(steps.mean(0)).max() < 1e-5 and np.abs(steps.std(0) - 1).max() < 1e-5
    # The first number of the first test series, put back.
    first = read_ts(VOWELS / "JapaneseVowels_TEST.ts").x[0, 0]
    assert np.allclose(scale.standardise.apply(data.info["scaler"], first), test["x"][0, 0])


def test_japanese_vowels_says_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.delenv("JDL_DATA_DIR", raising=False)
    with pytest.raises(InputError, match="no dir="):
        load("japanese_vowels")
    with pytest.raises(InputError, match=r"a file JapaneseVowels_TRAIN\.ts"):
        load("japanese_vowels", dir=tmp_path)
    (tmp_path / "JapaneseVowels_TRAIN.ts").write_text(GOOD)
    (tmp_path / "JapaneseVowels_TEST.ts").write_text(GOOD.replace("true a b", "true b a"))
    with pytest.raises(InputError, match="channels and classes"):
        load("japanese_vowels", dir=tmp_path)


def test_mnist1d_leaves_the_global_generators_alone(monkeypatch):
    pytest.importorskip("mnist1d")
    import mnist1d.data

    real = mnist1d.data.get_dataset_args

    def few():
        given = real()
        given.num_samples = 400
        return given

    monkeypatch.setattr(mnist1d.data, "get_dataset_args", few)
    before = np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    one, again = load("mnist1d"), load("mnist1d")
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before  # noqa: NPY002
    assert one.info["sizes"] == {"train": 288, "valid": 32, "test": 80}
    assert one.train["x"].shape == (288, 40, 1) and one.train["x"].dtype == np.float32
    assert np.array_equal(one.train["x"], again.train["x"])
    assert set(one.test()["y"]) == set(range(10))
