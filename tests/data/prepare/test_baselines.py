"""Simple rules against their definitions and other programs."""

import numpy as np
import pytest

from jdl.core.errors import InputError
from jdl.data import baselines, text


def test_principal_components_are_those_of_scikit_learn():
    decomposition = pytest.importorskip("sklearn.decomposition")
    train, test = np.random.default_rng(0).random((2, 40, 3, 2, 1)) ** 2
    fitted = decomposition.PCA(3).fit(train.reshape(40, -1))
    flat = test.reshape(40, -1)
    back = fitted.inverse_transform(fitted.transform(flat))
    found = baselines.pca_error(train, test, 3)
    np.testing.assert_allclose(found, ((back - flat) ** 2).mean())
    mean = ((test - train.mean(0)[None]) ** 2).mean()
    np.testing.assert_allclose(baselines.pca_error(train, test, 0), mean)
    with pytest.raises(InputError, match="from 0 to 6"):
        baselines.pca_error(train, test, 7)


def test_pixels_by_their_means_cost_their_cross_entropy():
    train, test = np.random.default_rng(0).random((2, 30, 4, 4, 1))
    mean = train.mean(0)
    each = [-(x * np.log(mean) + (1 - x) * np.log(1 - mean)).sum() for x in test]
    np.testing.assert_allclose(baselines.pixel_mean_nats(train, test), np.mean(each), rtol=1e-6)


def test_counts_of_tokens_leave_the_first_out():
    train, valid = np.random.default_rng(0).integers(0, 5, (2, 400))
    found = baselines.ngram_losses(train, valid, size=5)
    assert list(found) == ["1-gram", "2-gram", "3-gram", "4-gram"]
    expected = -np.log(text.ngram_probabilities(train, valid, 5, 2)[1:]).mean()
    np.testing.assert_allclose(found["2-gram"], expected)
    assert list(baselines.ngram_losses(train % 5, valid, size=100))[-1] == "3-gram"


def test_biases_find_what_has_no_factors():
    rng = np.random.default_rng(0)
    users, items = rng.normal(size=60), rng.normal(size=80)
    x = np.stack([rng.integers(0, 60, 4_000), rng.integers(0, 80, 4_000)], 1)
    y = 3 + users[x[:, 0]] + items[x[:, 1]] + rng.normal(0, 0.3, 4_000)
    made = {"x": x + 1, "y": y[:, None]}
    train, test = (
        {n: v[part] for n, v in made.items()} for part in (slice(3_000), slice(3_000, None))
    )
    mean = train["y"].mean()
    found = baselines.rating_biases(train, test, mean)
    assert 0.28 < found < 0.36 < baselines.rmse(mean, test["y"])


def test_an_unknown_user_has_no_bias():
    train = {"x": np.array([[1, 1], [2, 1]]), "y": np.array([[1.0], [5.0]])}
    unknown = {"x": np.array([[0, 0]]), "y": np.array([[3.0]])}
    assert baselines.rating_biases(train, unknown, mean=3.0) == 0


def test_one_feature_or_one_example_has_components_too():
    column = np.array([[1.0], [3.0]])
    assert baselines.pca_error(column, column, 1) == pytest.approx(0)
    assert baselines.pca_error(column, column, 0) == pytest.approx(1)
    one = np.ones((1, 4))
    assert baselines.pca_error(one, one, 2) == pytest.approx(0)


@pytest.mark.parametrize("count", [0, 1])
def test_there_must_be_a_token_to_predict(count):
    with pytest.raises(InputError, match=rf"(?s)valid.*two tokens.*{count}"):
        baselines.ngram_losses(np.array([0, 1]), np.zeros(count, int), size=2)
