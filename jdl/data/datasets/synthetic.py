"""Data made from a seed, with an answer that is known: dicts of arrays {"x", "y"}, all float32.

Each takes n examples and a seed; the same seed gives the same data, another one a fresh sample of
the same distribution, for a validation or test part. Class labels are int32.
"""

from collections.abc import Callable, Sequence

import numpy as np

from jdl.core.errors import check_range, error
from jdl.data.records import Arrays, Data


def sample_data(
    make: Callable[[int, int], Arrays], sizes: tuple[int, int, int], name: str = "generated"
) -> Data:
    """Three samples `make(n, seed)` of those sizes, of the seeds 0, 1 and 2, as `Data`.

    >>> data = sample_data(lambda n, seed: two_moons(n, seed=seed), (100, 20, 50))
    >>> len(data.train["x"]), len(data.test()["x"])
    (100, 50)
    """
    train, valid = (make(n, seed) for seed, n in enumerate(sizes[:2]))
    return Data(train, valid, lambda: make(sizes[2], 2), {"name": name})


def xor(n: int, noise: float = 0.2, seed: int = 0) -> Arrays:
    """Four clouds at (±1, ±1), class 1 where the signs differ: no straight line parts them.

    >>> xor(8, noise=0.0)["x"][:4].tolist(), xor(8)["y"][:4].tolist()
    ([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]], [0, 1, 1, 0])
    """
    draw, corner = _draw(n, noise, seed), np.arange(n) % 4
    signs = np.stack([corner // 2, corner % 2], -1) * 2.0 - 1
    return _classes(signs + noise * draw.normal(size=(n, 2)), (signs[:, 0] != signs[:, 1]))


def two_moons(n: int, noise: float = 0.1, seed: int = 0) -> Arrays:
    r"""Two half circles that interlock: $(\cos t, \sin t)$ and $(1 - \cos t, \tfrac12 - \sin t)$.

    >>> two_moons(6)["y"].tolist()
    [0, 1, 0, 1, 0, 1]
    """
    draw, y = _draw(n, noise, seed), np.arange(n) % 2
    t = draw.uniform(0, np.pi, n)
    sign = 1 - 2 * y
    x = np.stack([y + sign * np.cos(t), y / 2 + sign * np.sin(t)], -1)
    return _classes(x + noise * draw.normal(size=(n, 2)), y)


def sines(n: int, noise: float | Callable[[np.ndarray], np.ndarray] = 0.1, seed: int = 0) -> Arrays:
    r"""$y = \sin x + \sigma(x)\,\epsilon$ for x uniform in $[-\pi, \pi]$; x and y are [n, 1].

    `noise` is the standard deviation $\sigma$, one number or a function of x.

    >>> data = sines(100, noise=lambda x: 0.1 + 0.1 * np.abs(x))
    >>> data["x"].shape, data["y"].shape
    ((100, 1), (100, 1))
    """
    draw = _draw(n, 0.0 if callable(noise) else noise, seed)
    x = draw.uniform(-np.pi, np.pi, (n, 1))
    width = noise(x) if callable(noise) else noise
    y = np.sin(x) + width * draw.normal(size=(n, 1))
    return {"x": x.astype(np.float32), "y": y.astype(np.float32)}


def ring_centers(count: int = 8, radius: float = 1.0) -> np.ndarray:
    """Centres evenly on a circle, [count, 2], for `gaussians`.

    >>> ring_centers(4).round(3).tolist()
    [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [-0.0, -1.0]]
    """
    angle = 2 * np.pi * np.arange(count) / count
    return radius * np.stack([np.cos(angle), np.sin(angle)], -1)


def grid_centers(side: int = 5, gap: float = 1.0) -> np.ndarray:
    """Centres on a square grid around zero, [side², 2], for `gaussians`.

    >>> grid_centers(2).tolist()
    [[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]]
    """
    line = gap * (np.arange(side) - (side - 1) / 2)
    return np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)


def gaussians(n: int, centres: np.ndarray, width: float = 0.05, seed: int = 0) -> Arrays:
    """Points of Gaussians around centres [k, d], as many from each; y says from which.

    >>> points = gaussians(16, ring_centers(8))
    >>> points["x"].shape, np.bincount(points["y"]).tolist()
    ((16, 2), [2, 2, 2, 2, 2, 2, 2, 2])
    """
    centres = _centres(centres)
    draw, y = _draw(n, width, seed), np.arange(n) % len(centres)
    return _classes(centres[y] + width * draw.normal(size=(n, centres.shape[1])), y)


def count_modes(
    points: np.ndarray, centres: np.ndarray, width: float = 0.05, least: float = 0.02
) -> int:
    """Of how many Gaussians there are points: the measure of a generator's collapse.

    One is found if a share of at least `least` of the points [n, d] lies within four widths of
    its centre [k, d].

    >>> centers = ring_centers(8)
    >>> count_modes(gaussians(80, centers)["x"], centers), count_modes(np.zeros((9, 2)), centers)
    (8, 0)
    """
    distance = np.linalg.norm(np.asarray(points)[:, None] - _centres(centres)[None], axis=-1)
    return int(((distance < 4 * width).mean(0) >= least).sum())


def with_label_noise(data: Arrays, share: float, classes: int, seed: int = 0) -> Arrays:
    """The same data with about that share of the labels y [n] replaced by classes drawn at random.

    A class may be drawn again: about `share` * (1 - 1 / `classes`) of the labels are wrong.

    >>> zeros = {"y": np.zeros(1000, np.int32)}
    >>> int((with_label_noise(zeros, 0.2, classes=10)["y"] != 0).sum()) in range(150, 210)
    True
    """
    check_range("share", share, 0, 1)
    draw, y = np.random.default_rng(seed), data["y"]
    drawn = draw.integers(0, classes, len(y), dtype=np.int32)
    return {**data, "y": np.where(draw.random(len(y)) < share, drawn, y)}


def blobs(
    sizes: Sequence[int], centres: np.ndarray | None = None, width: float = 1.0, seed: int = 0
) -> Arrays:
    """`sizes[k]` points of class k around its centre, in random order: classes of unequal size.

    Centres [k, d] are on a circle of radius 2 unless they are given.

    >>> np.bincount(blobs((900, 90, 10))["y"]).tolist()
    [900, 90, 10]
    """
    centres = _centres(ring_centers(len(sizes), 2.0) if centres is None else centres)
    if len(centres) != len(sizes) or any(size < 0 for size in sizes):
        raise error(
            "sizes",
            expected=f"{len(centres)} counts, one for each centre",
            got=str(tuple(sizes)),
            fix="give a count and a centre for each class",
        )
    draw = _draw(sum(sizes), width, seed)
    y = draw.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return _classes(centres[y] + width * draw.normal(size=(len(y), centres.shape[1])), y)


def _draw(n: int, noise: float, seed: int) -> np.random.Generator:
    check_range("n", n, 1)
    check_range("noise", noise, 0)
    return np.random.default_rng(seed)


def _centres(centres: np.ndarray) -> np.ndarray:
    centres = np.asarray(centres, np.float64)
    if centres.ndim != 2 or not centres.size:
        raise error(
            "centres",
            expected="a point for each Gaussian, [k, d]",
            got=f"shape {list(centres.shape)}",
            fix="see jdl.data.synthetic.ring_centers and grid",
        )
    return centres


def _classes(x: np.ndarray, y: np.ndarray) -> Arrays:
    return {"x": x.astype(np.float32), "y": y.astype(np.int32)}
