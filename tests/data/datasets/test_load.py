"""Data sets: the right numbers, split before anything is fitted, and clear refusals."""

import gzip
import hashlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

import jdl.data
from jdl.core.errors import InputError
from jdl.data import scale
from jdl.data.datasets.load import from_arrays, load
from jdl.data.readers.binary import read_idx

MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    data, original = load("digits", seed=3), load_digits()
    parts = [data.train, data.valid, data.test()]
    x = np.concatenate([part["x"] for part in parts]) * 16
    found = sorted(map(bytes, x.astype(np.uint8).reshape(len(x), -1)))
    assert found == sorted(map(bytes, original.data.astype(np.uint8)))
    assert sum(np.bincount(part["y"]) for part in parts).tolist() == (
        np.bincount(original.target).tolist()
    )


def test_digits_shapes_and_info():
    data = load("digits")
    assert data.train["x"].shape == (1258, 8, 8, 1)
    assert (data.train["x"].dtype, data.train["y"].dtype) == (np.float32, np.int32)
    assert (data.train["x"].min(), data.train["x"].max()) == (0, 1)
    assert data.info["classes"] == 10
    assert data.info["shape"] == (8, 8, 1)
    assert data.info["scaler"] == {"divisor": 16.0}
    for part, share in ((data.valid, 18), (data.test(), 36)):
        assert np.abs(np.bincount(part["y"]) - share).max() <= 2


def test_the_seed_decides_the_split():
    one, again, other = load("digits", seed=1), load("digits", seed=1), load("digits", seed=2)
    assert np.array_equal(one.test()["x"], again.test()["x"])
    assert not np.array_equal(one.test()["x"], other.test()["x"])


def test_the_test_part_is_fresh_at_each_call():
    data = load("digits")
    data.test()["x"][:] = 7
    assert data.test()["x"].max() == 1


@pytest.mark.parametrize(
    ("name", "n", "features", "classes"),
    [
        ("iris", 150, 4, 3),
        ("wine", 178, 13, 3),
        ("breast_cancer", 569, 30, 2),
        ("diabetes", 442, 10, None),
    ],
)
def test_tables(name, n, features, classes):
    data = load(name, seed=1)
    assert sum(data.info["sizes"].values()) == n
    assert data.info["classes"] == classes
    assert len(data.info["features"]) == features
    x, y = data.train["x"], data.train["y"]
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(x.std(0), 1, atol=1e-4)
    # Fitted on the training part alone, the others are close to standard and never exactly.
    assert np.abs(data.test()["x"].mean(0)).max() > 1e-3
    assert np.abs(np.concatenate([x, data.valid["x"], data.test()["x"]]).mean(0)).max() > 1e-4
    assert (x.dtype, y.dtype) == (np.float32, np.float32 if classes is None else np.int32)
    assert y.shape == ((len(x), 1) if classes is None else (len(x),))


def test_regression_targets_stay_in_natural_units():
    data = load("diabetes")
    y = np.concatenate([data.train["y"], data.valid["y"], data.test()["y"]])
    assert (y.min(), y.max()) == (25, 346)
    assert data.info["target"] == "as given, not scaled"


def test_mnist(mnist_dir, monkeypatch):
    for stem, digest in MD5.items():
        raw = gzip.decompress((mnist_dir / f"{stem}.gz").read_bytes())
        assert hashlib.md5(raw).hexdigest() == digest
    monkeypatch.setenv("JDL_DATA_DIR", str(mnist_dir.parent))
    data = load("mnist", seed=1)
    assert data.info["sizes"] == {"train": 55_000, "valid": 5_000, "test": 10_000}
    assert data.train["x"].shape == (55_000, 28, 28, 1)
    assert data.train["x"].dtype == np.float32
    labels = read_idx(mnist_dir / "train-labels-idx1-ubyte.gz")
    counts = np.bincount(data.train["y"]) + np.bincount(data.valid["y"])
    assert np.array_equal(counts, np.bincount(labels))
    assert np.abs(np.bincount(data.valid["y"]) - np.bincount(labels) / 12).max() < 2
    test = read_idx(mnist_dir / "t10k-images-idx3-ubyte.gz")
    assert np.array_equal(np.round(data.test()["x"][..., 0] * 255), test)
    means = [data.train["x"].mean(dtype=np.float64), data.valid["x"].mean(dtype=np.float64)]
    images = read_idx(mnist_dir / "train-images-idx3-ubyte.gz")
    whole = (55 * means[0] + 5 * means[1]) / 60
    np.testing.assert_allclose(whole, images.mean() / 255, rtol=1e-6)


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.fixture
def small_mnist(tmp_path):
    """Four plain files in MNIST's form, the training part just large enough."""
    for stem, n in (("train", 5_100), ("t10k", 30)):
        write_idx(tmp_path / f"{stem}-images-idx3-ubyte", np.zeros((n, 4, 4)))
        write_idx(tmp_path / f"{stem}-labels-idx1-ubyte", np.arange(n) % 10)
    return tmp_path


def test_mnist_from_plain_files_and_other_spelling(small_mnist):
    path = small_mnist / "t10k-images-idx3-ubyte"
    path.rename(small_mnist / "t10k-images.idx3-ubyte")
    data = load("mnist", dir=small_mnist)
    assert data.info["sizes"] == {"train": 100, "valid": 5_000, "test": 30}
    assert data.info["files"]["test"][0].endswith("t10k-images.idx3-ubyte")


def test_a_bad_test_file_is_found_before_training(small_mnist):
    path = small_mnist / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="cut short") as caught:
        load("mnist", dir=small_mnist)
    assert str(path) in str(caught.value)


def test_mnist_that_is_not_there(small_mnist, tmp_path, monkeypatch):
    monkeypatch.delenv("JDL_DATA_DIR", raising=False)
    with pytest.raises(InputError, match="no dir=, and JDL_DATA_DIR is not set"):
        load("mnist")
    (small_mnist / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(InputError) as caught:
        load("mnist", dir=small_mnist)
    for word in ("train-labels-idx1-ubyte.gz", str(tmp_path), str(tmp_path / "mnist")):
        assert word in str(caught.value)


def test_mnist_of_too_few_images(small_mnist):
    for kind, array in (("images-idx3", np.zeros((9, 4, 4))), ("labels-idx1", np.arange(9))):
        write_idx(small_mnist / f"train-{kind}-ubyte", array)
    with pytest.raises(InputError, match="more than 5000 images"):
        load("mnist", dir=small_mnist)


def test_unknown_name():
    with pytest.raises(InputError, match='did you mean "digits"'):
        load("digit")


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(InputError, match=r'pip install "jdl-jax\[datasets\]"'):
        load("iris")


def grey(n: int) -> dict[str, np.ndarray]:
    return {"x": np.full((n, 5, 6), 255, np.uint8), "y": np.arange(n) % 3}


def test_npz_of_one_part(tmp_path):
    np.savez(tmp_path / "set.npz", **grey(60), number=np.arange(60))
    data = load(tmp_path / "set.npz")
    assert data.info["sizes"] == {"train": 42, "valid": 6, "test": 12}
    assert (data.info["classes"], data.info["scaler"]) == (3, {"divisor": 255.0})
    assert data.train["x"].shape == (42, 5, 6, 1)
    assert data.train["x"].max() == 1
    rows = np.concatenate([data.train["number"], data.valid["number"], data.test()["number"]])
    assert sorted(rows.tolist()) == list(range(60))
    assert load("set.npz", dir=tmp_path).info["sizes"] == data.info["sizes"]


def test_npz_with_parts_of_its_own(tmp_path):
    given = {f"{key}_{part}": v for part in ("train", "test") for key, v in grey(30).items()}
    np.savez(tmp_path / "set.npz", **given)
    data = load(tmp_path / "set.npz")
    assert data.info["sizes"] == {"train": 27, "valid": 3, "test": 30}


@pytest.mark.parametrize("suffix", ["valid", "val", "validation", "dev", "Val"])
def test_npz_calls_the_valid_part_as_others_do(tmp_path, suffix):
    valid = {f"{key}_{suffix}": value for key, value in grey(30).items()}
    np.savez(tmp_path / "set.npz", **grey(60), **valid)
    data = load(tmp_path / "set.npz")
    assert data.info["sizes"] == {"train": 48, "valid": 30, "test": 12}
    assert set(data.train) == {"x", "y"}


BAD_NPZ = {
    "x twice": ({**grey(9), "x_train": grey(9)["x"]}, ["array x_train", "x as well"]),
    "valid twice": (
        {**grey(9), "x_val": grey(9)["x"], "x_valid": grey(9)["x"]},
        ["array x_valid", "one array x of the split valid", "x_val as well"],
    ),
    "unknown split": (
        {**grey(9), "x_holdout": grey(9)["x"], "y_holdout": grey(9)["y"]},
        ["array x_holdout", "_train, _valid or _test"],
    ),
    "no y": ({"x": np.zeros((4, 2))}, ["arrays x and y", "got:      x"]),
    "test without y": ({**grey(9), "x_test": grey(9)["x"]}, ["test part", "got:      x"]),
    "other shape": (
        {**grey(9), "x_test": np.zeros((3, 5, 7), np.uint8), "y_test": np.arange(3)},
        ["test part", "(5, 7, 1)"],
    ),
    "unknown class": (
        {**grey(9), "x_test": grey(9)["x"], "y_test": np.arange(9)},
        ["the test part", "labels from 0 to 2", "the first 3"],
    ),
    "NaN": ({"x": np.array([[1.0], [np.nan]] * 5), "y": np.zeros(10, int)}, ["5 of 10", "[1, 0]"]),
    "count": ({"x": np.zeros((4, 2)), "y": np.zeros(5, int)}, ["x 4, y 5"]),
    "text": (
        {"x": np.zeros((4, 2)), "y": np.array(list("abcd"))},
        ['["y"]', "an array of numbers"],
    ),
}


@pytest.mark.parametrize("case", BAD_NPZ)
def test_bad_npz(tmp_path, case):
    arrays, words = BAD_NPZ[case]
    path = tmp_path / "set.npz"
    np.savez(path, **arrays)
    with pytest.raises(InputError) as caught:
        load(path)
    for word in [str(path), *words]:
        assert word in str(caught.value)


X = np.random.default_rng(0).normal(size=(100, 3))


def test_arrays_stay_as_they_are_unless_a_scaler_is_given():
    y = np.arange(100) % 2
    plain, scaled = from_arrays(X, y), from_arrays(X, y, scale=scale.standardise)
    assert plain.info["scaler"] is None
    rows = {row.tobytes() for row in X.astype(np.float32)}
    assert all(row.tobytes() in rows for row in plain.train["x"])
    expected = plain.train["x"].mean(0, dtype=np.float64)
    np.testing.assert_allclose(scaled.info["scaler"]["mean"], expected, rtol=1e-5)


def test_regression_from_arrays():
    data = from_arrays(X, X[:, 0])
    assert data.train["y"].shape == (70, 1)
    assert data.info["classes"] is None
    assert np.array_equal(data.train["x"][:, :1], data.train["y"])


def test_groups_times_and_no_labels():
    groups = np.arange(100) // 5
    parts = from_arrays(groups[:, None], groups=groups)
    homes = [set(part["x"].ravel()) for part in (parts.train, parts.valid, parts.test())]
    assert sum(map(len, homes)) == len(set.union(*homes)) == 20
    forward = from_arrays(np.arange(100)[:, None], times=np.arange(100))
    assert forward.train["x"].max() < forward.valid["x"].min()
    assert forward.valid["x"].max() < forward.test()["x"].min()
    assert "y" not in forward.train


def test_groups_in_time_are_split_by_their_latest_time():
    times, groups = np.arange(20), np.arange(20) // 2
    with pytest.raises(InputError, match=r"groups and times\n.*overlap"):
        from_arrays(times[:, None], groups=groups, times=times)
    latest = np.array([times[groups == group].max() for group in groups])
    data = from_arrays(times[:, None], times=latest)  # what the message suggests
    parts = [data.train["x"], data.valid["x"], data.test()["x"]]
    assert [set(part.ravel() // 2) for part in parts] == [set(range(7)), {7}, {8, 9}]


def test_64_bits_make_one_line(caplog):
    from_arrays(X, np.arange(100) % 2, name="mine")
    assert len(caplog.records) == 1
    assert "mine: cast x float64 -> float32, y int64 -> int32" in caplog.text


def test_loading_a_named_set_makes_none(caplog):
    load("digits")
    load("diabetes")
    assert not caplog.records


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: from_arrays(X, np.arange(100)[:, None]), ["(n,)", "[100, 1]", "y[:, 0]"]),
        (lambda: from_arrays(X, np.eye(2, dtype=int)[[0, 1] * 50]), ["one-hot", "y.argmax(1)"]),
        (lambda: from_arrays(X, np.arange(100) - 1), ["labels from 0", "the first -1"]),
        (lambda: from_arrays(X[:2], [0, 1]), ["parts of 2 examples"]),
        (lambda: from_arrays(X, valid=0.5, test=0.5), ["no empty part"]),
        (lambda: from_arrays(X, groups=[1, 2]), ["groups", "shape (100,)", "[2]"]),
        (lambda: from_arrays(X[:, 0].astype(str)), ["an array of numbers"]),
    ],
)
def test_bad_arrays(make, words):
    with pytest.raises(InputError) as caught:
        make()
    for word in words:
        assert word in str(caught.value)


def test_importing_is_cheap_and_every_name_loads():
    code = (
        "import sys, jdl.data; print([m for m in ('jax', 'numpy', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    for name in dir(jdl.data):
        assert getattr(jdl.data, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        jdl.data.lode  # pyright: ignore


def test_a_folder_called_mnist_inside_the_folder(small_mnist, tmp_path):
    inner = tmp_path / "mnist"
    inner.mkdir()
    for path in list(tmp_path.glob("*ubyte")):
        shutil.move(path, inner / path.name)
    assert load("mnist", dir=tmp_path).info["sizes"]["test"] == 30
