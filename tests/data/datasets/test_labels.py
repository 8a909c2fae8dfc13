"""Labels that are no class numbers: years, numbers from 1, files of them."""

import numpy as np
import pytest

import jdl
from jdl.core.errors import InputError

YEARS = np.repeat(np.arange(1990, 2006), 10)
X = np.arange(160, dtype=np.float32)[:, None]


def test_years_are_as_many_classes_as_occur(caplog):
    data = jdl.data.from_arrays(X, YEARS)
    assert data.info["classes"] == 16
    assert data.info["labels"] == list(range(1990, 2006))
    years = np.array(data.info["labels"])
    np.testing.assert_array_equal(years[data.train["y"]], YEARS[data.train["x"][:, 0].astype(int)])
    assert "1990 to 2005" in caplog.text and "info" in caplog.text


@pytest.mark.parametrize(
    "labels, classes, names",
    [
        ([1, 2, 3], 3, [1, 2, 3]),
        ([0, 255], 2, [0, 255]),
        ([0, 1, 2], 3, None),
        ([0, 1, 3], 4, None),  # class 2 may only be rare
        ([0, 1], 2, None),
        ([1, 1], 2, None),
    ],
)
def test_which_labels_are_numbered(labels, classes, names):
    data = jdl.data.from_arrays(X, np.resize(labels, 160))
    assert data.info["classes"] == classes
    assert data.info.get("labels") == names


def test_tokens_are_not_numbered():
    tokens = np.resize([5, 900], (160, 4))
    data = jdl.data.from_arrays(tokens, tokens)
    assert data.info["classes"] == 901 and data.train["y"].max() == 900


def test_parts_of_a_file_share_the_names(tmp_path):
    path = tmp_path / "set.npz"
    np.savez(path, x=X, y=YEARS, x_test=X[::20], y_test=YEARS[::20])
    data = jdl.data.load(path)
    assert data.info["classes"] == 16 and data.info["labels"][0] == 1990
    np.testing.assert_array_equal(data.test()["y"], YEARS[::20] - 1990)
    np.savez(path, x=X, y=YEARS, x_test=X[:2], y_test=np.array([1990, 1789]))
    with pytest.raises(InputError, match=r"(?s)test part.*1789"):
        jdl.data.load(path)
