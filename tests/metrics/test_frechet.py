"""The Frechet distance of two sets of features."""

import numpy as np

from jdl.metrics import frechet_distance
from tests.support.learners import message


def test_of_normal_distributions_in_closed_form():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 4)) @ rng.normal(size=(4, 4))
    np.testing.assert_allclose(frechet_distance(rows, rows), 0, atol=1e-9)
    np.testing.assert_allclose(frechet_distance(rows, rows + 3), 4 * 9, rtol=1e-9)
    # Scaling by two doubles every deviation: the sum of (2s - s)^2 is the trace of the covariance.
    centred = rows - rows.mean(0)[None]
    trace = np.trace(np.cov(centred.T))
    np.testing.assert_allclose(frechet_distance(centred, 2 * centred), trace, rtol=1e-9)


def test_equals_the_form_with_a_matrix_root_and_does_not_mind_the_order():
    rng = np.random.default_rng(1)
    one, other = rng.normal(size=(50, 3)), rng.normal(size=(60, 3)) @ rng.normal(size=(3, 3)) + 1
    c, d = np.cov(one.T), np.cov(other.T)
    values = np.linalg.eigvals(c @ d).real
    gap = one.mean(0) - other.mean(0)
    want = gap @ gap + np.trace(c) + np.trace(d) - 2 * np.sqrt(values).sum()
    np.testing.assert_allclose(frechet_distance(one, other), want, rtol=1e-9)
    np.testing.assert_allclose(frechet_distance(other, one), want, rtol=1e-9)


def test_features_that_vanish_do_no_harm():
    rows = np.random.default_rng(0).normal(size=(20, 3)) * np.array([[1.0, 1.0, 0.0]])
    assert np.isfinite(frechet_distance(rows, rows[:10]))


def test_images_that_are_not_flattened_are_refused():
    assert "flatten" in message(lambda: frechet_distance(np.ones((3, 2, 2)), np.ones((3, 2, 2))))
    assert "two rows" in message(lambda: frechet_distance(np.ones((1, 2)), np.ones((3, 2))))
