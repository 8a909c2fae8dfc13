"""Distances between two sets of examples."""

from typing import Any

import numpy as np

from jdl.core.errors import error


def frechet_distance(one: Any, other: Any) -> float:
    r"""How far two sets of feature vectors (n, features) are apart, as normal distributions.

    $\lVert \mu - \nu \rVert^2 + \mathrm{tr}\,(C + D - 2 (CD)^{1/2})$ with their means and
    covariances: the "FID" of generated images where the features are those of a classifier
    (Heusel et al. 2017). Runs on the host in float64. It falls as n grows; compare equal n.

    >>> rows = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 2.0]])
    >>> print(round(frechet_distance(rows, rows + 2), 6))
    8.0
    """
    one, other = (np.asarray(rows, np.float64) for rows in (one, other))
    if one.ndim != 2 or other.shape[1:] != one.shape[1:] or min(len(one), len(other)) < 2:
        raise error(
            "frechet",
            expected="two arrays (n, features) with two rows or more, of as many features",
            got=f"shapes {one.shape} and {other.shape}",
            fix="flatten the features of each example to one axis",
        )
    gap = one.mean(0) - other.mean(0)
    c, d = (np.atleast_2d(np.cov(rows.T)) for rows in (one, other))
    values, axes = np.linalg.eigh(c)
    root = (axes * np.sqrt(np.maximum(values, 0))[None]) @ axes.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ d @ root), 0)).sum()
    return float(gap @ gap + np.trace(c) + np.trace(d) - 2 * cross)
