"""Scalers: statistics of what they were fitted on, and nothing else."""

import numpy as np
import pytest

import jdl
from jdl.core.errors import InputError
from jdl.data.prepare.scale import divide, minmax, standardise

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(3, 5, (200, 4))


def test_standardise():
    y = standardise.apply(standardise.fit(X), X)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(y.std(0), 1, atol=1e-6)


def test_sequences_are_scaled_by_feature():
    x = X.reshape(20, 10, 4)
    statistics = standardise.fit(x)
    assert statistics["mean"].shape == (4,)
    np.testing.assert_allclose(statistics["mean"], X.mean(0), rtol=1e-6)


def test_minmax():
    statistics = minmax.fit(X)
    y = minmax.apply(statistics, X)
    np.testing.assert_allclose([y.min(0), y.max(0)], [[0] * 4, [1] * 4], atol=1e-6)
    assert minmax.apply(statistics, X.max(0)[None] + 100).min() > 1  # not clipped


@pytest.mark.parametrize("scaler", [standardise, minmax])
def test_a_constant_feature_becomes_zero(scaler):
    x = np.full((7, 2), 0.1)
    assert (np.abs(scaler.apply(scaler.fit(x), x)) < 1e-6).all()


@pytest.mark.parametrize(
    "x",
    [
        1.7e9 + 51 + np.arange(10.0),  # times in seconds
        2 * 10**7 + np.arange(10),
        1.7e18 + 1e9 * np.arange(10.0),  # in nanoseconds
        1e-46 * np.arange(1, 11.0),
        1e-200 * np.arange(1, 11.0),
    ],
)
def test_no_digit_is_lost_before_the_offset_is_subtracted(x):
    steps = (np.arange(10) - 4.5)[:, None]
    y = standardise.apply(standardise.fit(x[:, None]), x[:, None])
    np.testing.assert_allclose(y, steps / steps.std(), rtol=1e-6)
    y = minmax.apply(minmax.fit(x[:, None]), x[:, None])
    np.testing.assert_allclose(y, (steps + 4.5) / 9, rtol=1e-6)


def test_nor_in_a_data_set_that_is_scaled():
    times = 1.7e9 + np.arange(40.0)[:, None]
    data = jdl.data.from_arrays(times, times - times.mean(), scale=standardise)
    x, y = data.train["x"].astype(np.float64), data.train["y"]
    assert data.train["x"].dtype == np.float32
    np.testing.assert_allclose(x, (y - y.mean()) / y.std(), atol=1e-5)


@pytest.mark.parametrize("scaler", [standardise, minmax])
def test_other_features_than_those_it_was_fitted_on(scaler):
    with pytest.raises(InputError, match=r"(?s)1 features on the last axis.*\[200, 4\]"):
        scaler.apply(scaler.fit(X[:, :1]), X)


def test_fitting_changes_nothing_and_applying_reads_only_statistics():
    before = X.copy()
    statistics = standardise.fit(X[:50])
    standardise.apply(statistics, X)
    assert np.array_equal(before, X)
    one = standardise.apply(statistics, X[60:61])
    assert np.array_equal(one, standardise.apply(statistics, X)[60:61])


def test_divide():
    pixels = divide(16)
    assert pixels.apply(pixels.fit(X), np.array([[16, 4]], np.uint8)).tolist() == [[1.0, 0.25]]


@pytest.mark.parametrize("scaler", [standardise, minmax])
@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.array([[1.0], [np.nan]]), ["1 of 2 not finite", "nan at index [1, 0]"]),
        (np.zeros(5), ["(n, ..., features)", "x[:, None]"]),
        (np.zeros((0, 5)), ["at least one example", "[0, 5]"]),
    ],
)
def test_errors(scaler, x, words):
    with pytest.raises(InputError) as caught:
        scaler.fit(x)
    for word in words:
        assert word in str(caught.value)
