"""Cleaning: what is dropped or changed, that the report says so, and that the input is kept."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdl.core.errors import InputError
from jdl.data import clean
from jdl.data.records import Report

NAN = np.nan


def test_duplicates_are_dropped_and_numbered():
    x = np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0], [1.0, 2.0], [0.0, 5.0], [-0.0, 5.0]])
    y = np.array([0, 1, 0, 2, 1, 1])
    data, report = clean.drop_duplicates({"x": x, "y": y})
    assert data["x"].tolist() == x[[0, 1, 3, 4]].tolist() and data["y"].tolist() == [0, 1, 2, 1]
    assert report.rows == {"dropped": (2, 5), "contradicting": (3,)}
    data, report = clean.drop_duplicates({"x": x, "y": y}, by=["x"])
    assert report.rows == {"dropped": (2, 3, 5), "contradicting": (3,)}
    assert len(y) == 6


def test_a_contradiction_to_any_earlier_example_is_named():
    """The third has the label of the first, but the second has another."""
    data = {"x": np.zeros((4, 1)), "y": np.array([0, 1, 0, 0]), "id": np.array([7, 8, 9, 7])}
    rows = clean.drop_duplicates(data)[1].rows
    assert rows == {"dropped": (3,), "contradicting": (1, 2)}
    assert clean.drop_duplicates(data, by=["x"])[1].rows["contradicting"] == (1, 2)


@settings(deadline=None, max_examples=10)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=40))
def test_what_is_kept_is_every_example_once(values):
    x = np.array(values, np.float32)[:, None]
    data, report = clean.drop_duplicates({"x": x})
    assert data["x"][:, 0].tolist() == list(dict.fromkeys(values))
    assert len(data["x"]) + len(report.rows["dropped"]) == len(values)


def test_missing_values_of_every_type():
    data = {
        "x": np.array([[1, 2], [NAN, 2], [1, np.inf], [NAN, NAN], [1, 2]]),
        "kind": np.array(["a", "b", "c", "d", ""]),
        "day": np.array(["2020-01-01", "NaT", "2020-01-01", "2020-01-01", "2020-01-01"], "M8[D]"),
        "y": np.arange(5),
    }
    kept, report = clean.drop_missing(data)
    assert kept["y"].tolist() == [0] and report.rows == {"dropped": (1, 2, 3, 4)}
    expected = {"missing in x": 4, "missing in kind": 1, "missing in day": 1, "missing in y": 0}
    assert report.counts == expected


def test_missing_values_are_filled_from_the_training_part():
    train = np.array([[1.0, 10.0], [3.0, NAN], [5.0, 30.0]])
    x = np.array([[NAN, 7.0], [NAN, NAN], [8.0, 9.0]], np.float32)
    filled, report = clean.fill_missing({"x": x, "y": np.arange(3)}, clean.medians(train))
    assert filled["x"].tolist() == [[3, 7], [3, 20], [8, 9]]
    assert filled["x"].dtype == np.float32 and np.isnan(x[0, 0])
    assert report.rows == {"changed": (0, 1)}
    assert report.counts == {"filled in feature 0": 2, "filled in feature 1": 1}


def test_outliers_lie_outside_tukeys_fences():
    draw = np.random.default_rng(0)
    train = draw.normal(size=(20_000, 1))
    fences = clean.fences(train)
    # Of a normal distribution 0.698 % lie outside.
    dropped, report = clean.drop_outliers({"x": train}, fences)
    assert abs(len(report.rows["dropped"]) / 20_000 - 0.00698) < 0.002
    assert len(dropped["x"]) + len(report.rows["dropped"]) == 20_000
    clipped, changed = clean.clip_outliers({"x": train}, fences)
    assert changed.rows["changed"] == report.rows["dropped"]
    assert clipped["x"].min() == fences["low"] and clipped["x"].max() == fences["high"]
    within = np.delete(np.arange(20_000), changed.rows["changed"])
    assert np.array_equal(clipped["x"][within], train[within])


def test_a_feature_without_spread_has_no_fence():
    x = np.zeros((10, 2))
    x[9, 0], x[:, 1] = 5.0, np.arange(10)
    assert clean.drop_outliers({"x": x}, clean.fences(x))[1].rows == {"dropped": ()}


def test_clean_data_passes_unchanged():
    data = {"x": np.arange(12.0).reshape(6, 2), "y": np.arange(6)}
    for clean_one in (
        clean.drop_duplicates,
        clean.drop_missing,
        lambda d: clean.fill_missing(d, 0.0),
        lambda d: clean.drop_outliers(d, clean.fences(d["x"])),
        lambda d: clean.clip_outliers(d, clean.fences(d["x"])),
    ):
        result, report = clean_one(data)
        assert not any(report.rows.values())
        for name, value in data.items():
            np.testing.assert_array_equal(result[name], value)


def test_a_report_is_one_readable_text():
    report = Report("outliers in 99 examples", {"dropped": tuple(range(12))}, {"in feature 3": 12})
    assert str(report) == (
        "outliers in 99 examples\n"
        "  dropped: 12 (rows 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...)\n"
        "  in feature 3: 12"
    )


X = np.arange(6.0).reshape(3, 2)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: clean.drop_duplicates({"x": X}, by=["z"]), 'data\\["z"\\]'),
        (lambda: clean.drop_duplicates({"x": X, "y": [0]}), "arrays of the same length"),
        (lambda: clean.drop_missing({"x": X[:0]}), "at least one example"),
        (lambda: clean.drop_missing({"x": np.array([None, "a"])}), "Python objects"),
        (lambda: clean.drop_missing({"x": 1.0}), "a scalar"),
        (lambda: clean.drop_missing({"x": X * NAN}), "3 examples, all to be dropped"),
        (lambda: clean.fill_missing({"x": X}, np.zeros(3)), "one value per feature"),
        (lambda: clean.fill_missing({"x": np.ones((2, 1), np.float32)}, 1e39), "values to fill in"),
        (lambda: clean.fill_missing({"x": X[:, 0]}, 0.0), r"x\[:, None\]"),
        (lambda: clean.drop_outliers({"x": X}, clean.fences(np.ones((4, 3)))), r"\[3\]|shape"),
        (lambda: clean.fences(X, reach=0), "a number above 0"),
        (lambda: clean.fences(X * NAN), "none in feature 0"),
        (lambda: clean.medians(np.array([["a"]])), "encode text"),
    ],
)
def test_errors(make, words):
    with pytest.raises(InputError, match=words):
        make()
