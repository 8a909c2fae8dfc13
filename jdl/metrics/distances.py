"""Distances between two sets of examples."""

import numpy as np
from numpy.typing import ArrayLike

from jdl.core.errors import error


def frechet_distance(one: ArrayLike, other: ArrayLike) -> float:
    r"""The Fréchet distance between normal distributions fitted to two sets of feature vectors.

    $\lVert \mu - \nu \rVert^2 + \mathrm{tr}\,(C + D - 2 (CD)^{1/2})$ with the means and covariances
    of both sets, (n, features). With the features of an Inception classifier it is the FID of
    generated images. It is biased and falls as n grows, so compare sets of equal size. Runs on the
    host in float64. Raises `InputError` for other shapes and for sets of fewer than two rows.

    >>> rows = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 2.0]])
    >>> print(round(frechet_distance(rows, rows + 2), 6))
    8.0

    Heusel et al. 2017, "GANs trained by a two time-scale update rule converge to a local Nash
    equilibrium".
    """
    one, other = (np.asarray(rows, np.float64) for rows in (one, other))
    if one.ndim != 2 or other.shape[1:] != one.shape[1:] or min(len(one), len(other)) < 2:
        raise error(
            "frechet_distance",
            expected="two arrays (n, features) of the same features, with at least two rows each",
            got=f"shapes {one.shape} and {other.shape}",
            fix="flatten the features of each example to one axis",
        )
    gap = one.mean(0) - other.mean(0)
    c, d = (np.atleast_2d(np.cov(rows.T)) for rows in (one, other))
    values, axes = np.linalg.eigh(c)
    root = (axes * np.sqrt(np.maximum(values, 0))[None]) @ axes.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ d @ root), 0)).sum()
    return float(gap @ gap + np.trace(c) + np.trace(d) - 2 * cross)
