"""What simple rules reach, to be printed beside a network's number."""

from typing import Any

import numpy as np

from jdl.core.errors import error
from jdl.data.readers import text


def most_frequent(labels: Any) -> float:
    """The accuracy of always answering the most frequent of these classes.

    >>> most_frequent([0, 1, 1, 2])
    0.5
    """
    return float(np.bincount(labels).max() / len(labels))


def pca_error(train: Any, test: Any, count: int) -> float:
    r"""The mean squared error of `test` told by `count` principal components of `train`.

    $\frac1n \lVert (X - \mu)(I - V V^\top) \rVert^2$ with the leading eigenvectors V of the
    training covariance: the best that a linear code of that many numbers can do (Pearson 1901).
    Both are arrays (n, ...), flattened. With 0 components it is the error of the mean example.

    >>> line = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
    >>> round(pca_error(line, line, 1), 6), round(pca_error(line, line, 0), 6)
    (0.0, 0.666667)
    """
    train, test = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (train, test))
    if not 0 <= count <= train.shape[1]:
        raise error(
            "principal components",
            expected=f"from 0 to {train.shape[1]}, the numbers of an example",
            got=str(count),
            fix="ask for fewer",
        )
    mean = train.mean(0)[None]
    axes = np.linalg.eigh(np.cov(train.T))[1][:, train.shape[1] - count :]
    return float((((test - mean) - (test - mean) @ axes @ axes.T) ** 2).mean())


def pixel_mean_nats(train: Any, test: Any) -> float:
    r"""Nats an image where every pixel is told on its own, by its mean over `train`.

    $-\frac1n \sum_{ij} x_{ij} \ln \mu_j + (1 - x_{ij}) \ln (1 - \mu_j)$ for pixels from 0 to 1, the
    means kept 0.0001 away from 0 and 1: what a variational autoencoder must stay below.

    >>> print(round(pixel_mean_nats(np.array([[0.0, 1.0], [1.0, 1.0]]), np.array([[1.0, 1.0]])), 4))
    0.6932
    """
    mean = np.clip(np.mean(train, 0, dtype=np.float64), 1e-4, 1 - 1e-4)[None]
    x = np.asarray(test)
    return float(-(x * np.log(mean) + (1 - x) * np.log(1 - mean)).sum() / len(x))


def ngram_losses(
    train: np.ndarray, valid: np.ndarray, size: int, most: int | None = None
) -> dict[str, float]:
    """The loss in nats of counts of 1, 2, ... `most` tokens, without the first token.

    `size` is that of the vocabulary; see `jdl.data.text.ngram_probabilities`. Without `most`
    it is 4, and 3 for a vocabulary of 100 or more, where counts of four would take too much memory.

    >>> found = ngram_losses(np.array([0, 1] * 9), np.array([0, 1] * 9), size=2, most=2)
    >>> {name: round(loss, 2) for name, loss in found.items()}
    {'1-gram': 0.69, '2-gram': 0.15}
    """
    most = most or (4 if size < 100 else 3)
    said = {n: text.ngram_probabilities(train, valid, size, n) for n in range(1, most + 1)}
    return {f"{n}-gram": float(-np.log(p[1:]).mean()) for n, p in said.items()}


def rating_biases(train: Any, test: Any, mean: float, damping: float = 5.0) -> float:
    r"""The root mean squared error of $\mu + b_u + b_i$, without any factors.

    `train` and `test` are ratings as those of `jdl.data.movielens`: x (n, 2) users and items, y
    (n, 1). The biases come from 20 rounds of damped means, $b_u = \sum r / (n_u + 5)$ of what the
    items leave, and in turn; those of number 0, the unknown, are zero (Koren et al. 2009).

    >>> pairs = np.array([[1, 1], [1, 2], [2, 1], [2, 2]])
    >>> some = {"x": pairs, "y": np.array([[1], [2], [3], [4]])}
    >>> round(rating_biases(some, some, mean=2.5, damping=0), 6)
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
    said = mean + sum(bias[test["x"][:, side]] for side, bias in enumerate(biases))
    return rmse(said, test["y"][:, 0])


def rmse(said: Any, true: Any) -> float:
    """The root mean squared difference; one number may stand for all that is said.

    >>> rmse(2.0, np.array([1.0, 3.0]))
    1.0
    """
    return float(np.sqrt(np.mean((said - np.asarray(true)) ** 2)))
