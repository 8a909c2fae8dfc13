"""Simple baselines to compare a network with."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jdl.core.errors import error
from jdl.data.readers import text
from jdl.data.records import Arrays


def most_frequent(labels: Sequence[int] | np.ndarray) -> float:
    """Accuracy of always predicting the most frequent class of `labels` (n,).

    >>> most_frequent([0, 1, 1, 2])
    0.5
    """
    return float(np.bincount(labels).max() / len(labels))


def pca_error(train: np.ndarray, test: np.ndarray, count: int) -> float:
    r"""Mean squared error of reconstructing `test` from `count` principal components of `train`.

    $\frac1n \lVert (X - \mu)(I - V V^\top) \rVert^2$ with the leading eigenvectors V of the
    training covariance (Pearson 1901): the lower bound for a linear autoencoder with a code of that
    size. Both arrays are (n, ...) and are flattened. With 0 components it is the error of the mean
    example. Raises `InputError` for more components than features.

    >>> line = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
    >>> round(pca_error(line, line, 1), 6), round(pca_error(line, line, 0), 6)
    (0.0, 0.666667)
    """
    train, test = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (train, test))
    if not 0 <= count <= train.shape[1]:
        raise error(
            "principal components",
            expected=f"from 0 to {train.shape[1]}, the number of features",
            got=str(count),
            fix="pass a smaller count",
        )
    mean = train.mean(0)[None]
    scatter = (train - mean).T @ (train - mean)  # the covariance, up to a factor
    axes = np.linalg.eigh(scatter)[1][:, train.shape[1] - count :]
    return float((((test - mean) - (test - mean) @ axes @ axes.T) ** 2).mean())


def pixel_mean_nats(train: np.ndarray, test: np.ndarray) -> float:
    r"""Cross-entropy in nats per image of predicting each pixel by its mean over `train`.

    $-\frac1n \sum_{ij} x_{ij} \ln \mu_j + (1 - x_{ij}) \ln (1 - \mu_j)$ for images (n, ...) with
    pixels from 0 to 1; the means are clipped to [0.0001, 0.9999]. A variational autoencoder must do
    better.

    >>> print(round(pixel_mean_nats(np.array([[0.0, 1.0], [1.0, 1.0]]), np.array([[1.0, 1.0]])), 4))
    0.6932
    """
    mean = np.clip(np.mean(train, 0, dtype=np.float64), 1e-4, 1 - 1e-4)[None]
    x = np.asarray(test)
    return float(-(x * np.log(mean) + (1 - x) * np.log(1 - mean)).sum() / len(x))


def ngram_losses(
    train: np.ndarray, valid: np.ndarray, size: int, most: int | None = None
) -> dict[str, float]:
    """Cross-entropy in nats per token of n-gram counts for n = 1, 2, ... `most`.

    `train` and `valid` are tokens (time,) and `size` is that of the vocabulary. `most` defaults to
    4, or 3 for a vocabulary of 100 or more, where 4-gram counts would need too much memory. The
    first token is not counted. See `jdl.data.text.ngram_probabilities` (MacKay and Peto 1995).
    Raises `InputError` for fewer than two tokens to predict.

    >>> losses = ngram_losses(np.array([0, 1] * 9), np.array([0, 1] * 9), size=2, most=2)
    >>> {name: round(loss, 2) for name, loss in losses.items()}
    {'1-gram': 0.69, '2-gram': 0.15}
    """
    if len(valid) < 2:
        raise error(
            "valid",
            expected="two tokens or more, because the first is not counted",
            got=str(len(valid)),
            fix="use a longer text",
        )
    most = most or (4 if size < 100 else 3)
    probabilities = {n: text.ngram_probabilities(train, valid, size, n) for n in range(1, most + 1)}
    return {f"{n}-gram": float(-np.log(p[1:]).mean()) for n, p in probabilities.items()}


def rating_biases(train: Arrays, test: Arrays, mean: float, damping: float = 5.0) -> float:
    r"""Root mean squared error of the baseline $\mu + b_u + b_i$ (Koren et al. 2009).

    `train` and `test` are ratings as in `jdl.data.movielens`: `x` (n, 2) users and items, `y` (n,
    1). The biases come from 20 rounds of damped means, $b_u = \sum (r - \mu - b_i) / (n_u + 5)$ and
    the same for items. Number 0, the unknown user or item, has bias 0.

    >>> pairs = np.array([[1, 1], [1, 2], [2, 1], [2, 2]])
    >>> ratings = {"x": pairs, "y": np.array([[1], [2], [3], [4]])}
    >>> round(rating_biases(ratings, ratings, mean=2.5, damping=0), 6)
    0.0
    """
    biases = [np.zeros(max(part["x"][:, side].max() for part in (train, test)) + 1)
              for side in (0, 1)]  # fmt: skip
    rest = train["y"][:, 0] - mean
    for _ in range(20):
        for side, bias in enumerate(biases):
            other = biases[1 - side][train["x"][:, 1 - side]]
            sums = np.bincount(train["x"][:, side], rest - other, len(bias))
            counts = np.bincount(train["x"][:, side], minlength=len(bias)) + damping
            bias[:] = sums / np.maximum(counts, 1e-9)
            bias[0] = 0
    predicted = mean + sum(bias[test["x"][:, side]] for side, bias in enumerate(biases))
    return rmse(predicted, test["y"][:, 0])


def rmse(predicted: Any, true: ArrayLike) -> float:
    """Root mean squared error of predictions, an array or a scalar, for targets of any shape.

    >>> rmse(2.0, np.array([1.0, 3.0]))
    1.0
    """
    return float(np.sqrt(np.mean((predicted - np.asarray(true)) ** 2)))
