"""Synthetic data with a known answer: dicts of arrays `x` float32 and `y`, int32 for classes.

Each function takes the number of examples and a seed. The same seed gives the same data; use
another seed for an independent validation or test split.
"""

from collections.abc import Callable, Sequence

import numpy as np

from jdl.core.errors import check_range, error
from jdl.data.records import Arrays, Data


def sample_data(
    make: Callable[[int, int], Arrays], sizes: tuple[int, int, int], name: str = "generated"
) -> Data:
    """`Data` from three samples `make(n, seed)` with `sizes` examples and seeds 0, 1 and 2.

    The shapes are those of `make`.

    >>> data = sample_data(lambda n, seed: two_moons(n, seed=seed), (100, 20, 50))
    >>> len(data.train["x"]), len(data.test()["x"])
    (100, 50)
    """
    train, valid = (make(n, seed) for seed, n in enumerate(sizes[:2]))
    return Data(train, valid, lambda: make(sizes[2], 2), {"name": name})


def xor(n: int, noise: float = 0.2, seed: int = 0) -> Arrays:
    """Four clouds at (±1, ±1), of class 1 where the signs differ, which no linear model separates.

    `x` has shape (n, 2) and `y` (n,). Raises `InputError` for n below 1 and negative noise.

    >>> xor(8, noise=0.0)["x"][:4].tolist(), xor(8)["y"][:4].tolist()
    ([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]], [0, 1, 1, 0])
    """
    draw, corner = _draw(n, noise, seed), np.arange(n) % 4
    signs = np.stack([corner // 2, corner % 2], -1) * 2.0 - 1
    return _classes(signs + noise * draw.normal(size=(n, 2)), (signs[:, 0] != signs[:, 1]))


def two_moons(n: int, noise: float = 0.1, seed: int = 0) -> Arrays:
    r"""Two interlocking half circles: $(\cos t, \sin t)$ and $(1 - \cos t, \tfrac12 - \sin t)$.

    `x` has shape (n, 2) and `y` (n,). Raises `InputError` for n below 1 and negative noise.

    >>> two_moons(6)["y"].tolist()
    [0, 1, 0, 1, 0, 1]
    """
    draw, y = _draw(n, noise, seed), np.arange(n) % 2
    t = draw.uniform(0, np.pi, n)
    sign = 1 - 2 * y
    x = np.stack([y + sign * np.cos(t), y / 2 + sign * np.sin(t)], -1)
    return _classes(x + noise * draw.normal(size=(n, 2)), y)


def sines(n: int, noise: float | Callable[[np.ndarray], np.ndarray] = 0.1, seed: int = 0) -> Arrays:
    r"""$y = \sin x + \sigma(x)\,\epsilon$ for x uniform in $[-\pi, \pi]$; x and y are (n, 1).

    `noise` is the standard deviation $\sigma$, a number or a function of x. Raises `InputError` for
    n below 1 and negative noise.

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
    """Centres at equal distances on a circle, (count, 2), for `gaussians`.

    >>> ring_centers(4).round(3).tolist()
    [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [-0.0, -1.0]]
    """
    angle = 2 * np.pi * np.arange(count) / count
    return radius * np.stack([np.cos(angle), np.sin(angle)], -1)


def grid_centers(side: int = 5, gap: float = 1.0) -> np.ndarray:
    """Centres on a square grid around zero, shape (side * side, 2), for `gaussians`.

    >>> grid_centers(2).tolist()
    [[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]]
    """
    line = gap * (np.arange(side) - (side - 1) / 2)
    return np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)


def gaussians(n: int, centres: np.ndarray, width: float = 0.05, seed: int = 0) -> Arrays:
    """Points from Gaussians around `centres` (k, d), equally many from each.

    `x` has shape (n, d); `y` (n,) is the index of the centre. `width` is the standard deviation.
    Raises `InputError` for n below 1, a negative width and centres of another rank.

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
    """The number of Gaussians that a generator covers, a measure of mode collapse.

    A Gaussian is covered if at least a fraction `least` of the points (n, d) lies within four
    widths of its centre (k, d); compare Srivastava et al. 2017. Raises `InputError` for centres of
    another rank.

    >>> centers = ring_centers(8)
    >>> count_modes(gaussians(80, centers)["x"], centers), count_modes(np.zeros((9, 2)), centers)
    (8, 0)
    """
    distance = np.linalg.norm(np.asarray(points)[:, None] - _centres(centres)[None], axis=-1)
    return int(((distance < 4 * width).mean(0) >= least).sum())


def with_label_noise(data: Arrays, share: float, classes: int, seed: int = 0) -> Arrays:
    """Replace a random fraction `share` of the labels y (n,) by random classes (Zhang et al. 2017).

    The new class may equal the old one: about `share` * (1 - 1 / `classes`) of the labels are
    wrong. Raises `InputError` for a share outside [0, 1].

    >>> zeros = {"y": np.zeros(1000, np.int32)}
    >>> int((with_label_noise(zeros, 0.2, classes=10)["y"] != 0).sum()) in range(150, 210)
    True
    """
    check_range("share", share, 0, 1)
    draw, y = np.random.default_rng(seed), data["y"]
    new_labels = draw.integers(0, classes, len(y), dtype=np.int32)
    return {**data, "y": np.where(draw.random(len(y)) < share, new_labels, y)}


def blobs(
    sizes: Sequence[int], centres: np.ndarray | None = None, width: float = 1.0, seed: int = 0
) -> Arrays:
    """Gaussian classes of unequal size: `sizes[k]` points of class k around its centre, shuffled.

    `x` has shape (n, d) and `y` (n,). `centres` (k, d) are by default on a circle of radius 2, and
    `width` is the standard deviation. Raises `InputError` for another number of centres than sizes.

    >>> np.bincount(blobs((900, 90, 10))["y"]).tolist()
    [900, 90, 10]
    """
    centres = _centres(ring_centers(len(sizes), 2.0) if centres is None else centres)
    if len(centres) != len(sizes) or any(size < 0 for size in sizes):
        raise error(
            "sizes",
            expected=f"{len(centres)} counts, one for each centre",
            got=str(tuple(sizes)),
            fix="pass a count and a centre for each class",
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
            expected="a point for each Gaussian, shape (k, d)",
            got=f"shape {list(centres.shape)}",
            fix="use jdl.data.synthetic.ring_centers or grid_centers",
        )
    return centres


def _classes(x: np.ndarray, y: np.ndarray) -> Arrays:
    return {"x": x.astype(np.float32), "y": y.astype(np.int32)}
