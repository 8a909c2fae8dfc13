"""Generated data: what it promises, and that the seed decides."""

import numpy as np
import pytest

from jdl.core.errors import InputError
from jdl.data import synthetic

MAKERS = {
    "xor": lambda seed: synthetic.xor(400, seed=seed),
    "two_moons": lambda seed: synthetic.two_moons(400, seed=seed),
    "sines": lambda seed: synthetic.sines(400, seed=seed),
    "gaussians": lambda seed: synthetic.gaussians(400, synthetic.ring_centers(8), seed=seed),
    "blobs": lambda seed: synthetic.blobs((300, 100), seed=seed),
}


@pytest.mark.parametrize("name", MAKERS)
def test_types_and_seeds(name):
    one, again, other = (MAKERS[name](seed) for seed in (0, 0, 1))
    assert one["x"].dtype == np.float32 and one["y"].dtype in (np.int32, np.float32)
    assert len(one["x"]) == len(one["y"]) == 400
    np.testing.assert_array_equal(one["x"], again["x"])
    assert not np.array_equal(one["x"], other["x"])


def test_no_line_parts_xor():
    data = synthetic.xor(2_000, noise=0.3)
    design = np.column_stack([data["x"], np.ones(2_000)])
    weights = np.linalg.lstsq(design, 2.0 * data["y"] - 1, rcond=None)[0]
    assert abs(((design @ weights > 0) == data["y"]).mean() - 0.5) < 0.1
    assert ((data["x"].prod(1) < 0) == data["y"]).mean() > 0.99


def test_the_moons_are_half_circles():
    data = synthetic.two_moons(500, noise=0.0)
    x, y = data["x"], data["y"]
    for k, centre in enumerate([(0, 0), (1, 0.5)]):
        np.testing.assert_allclose(np.linalg.norm(x[y == k] - centre, axis=1), 1, rtol=1e-5)
    assert (x[y == 0, 1] >= 0).all() and (x[y == 1, 1] <= 0.5).all()


def test_the_noise_of_the_sines_may_depend_on_x():
    data = synthetic.sines(20_000, noise=lambda x: 0.1 + 0.2 * (x > 0))
    rest = data["y"] - np.sin(data["x"])
    right = data["x"] > 0
    np.testing.assert_allclose([rest[~right].std(), rest[right].std()], [0.1, 0.3], rtol=0.05)


def test_rings_and_grids_of_gaussians():
    centres = synthetic.grid_centers(3, gap=2.0)
    assert centres.tolist() == [[x, y] for x in (-2, 0, 2) for y in (-2, 0, 2)]
    np.testing.assert_allclose(np.linalg.norm(synthetic.ring_centers(5, 3.0), axis=1), 3)
    points = synthetic.gaussians(9_000, centres, width=0.1)
    for k in range(9):
        own = points["x"][points["y"] == k]
        assert len(own) == 1_000
        np.testing.assert_allclose(own.mean(0), centres[k], atol=0.02)
        np.testing.assert_allclose(own.std(0), 0.1, rtol=0.1)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: synthetic.xor(0), "at least 1"),
        (lambda: synthetic.two_moons(5, noise=-1.0), "at least 0"),
        (lambda: synthetic.gaussians(5, np.zeros(3)), "a point for each Gaussian"),
        (lambda: synthetic.blobs((5, 5), synthetic.ring_centers(3)), "3 counts"),
    ],
)
def test_errors(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_three_samples_of_one_distribution():
    data = synthetic.sample_data(
        lambda n, seed: synthetic.two_moons(n, seed=seed), (9, 4, 6), "moons"
    )
    for part, (n, seed) in zip(
        (data.train, data.valid, data.test()), ((9, 0), (4, 1), (6, 2)), strict=True
    ):
        assert np.array_equal(part["x"], synthetic.two_moons(n, seed=seed)["x"])
    assert data.info["name"] == "moons" and data.steps(2, 4) == 5


def test_modes_of_the_ring_are_counted():
    centres = synthetic.ring_centers(8)
    points = synthetic.gaussians(800, centres)["x"]
    assert synthetic.count_modes(points, centres) == 8
    assert synthetic.count_modes(points[np.arange(800) % 8 < 3], centres) == 3
    assert synthetic.count_modes(np.zeros((100, 2)), centres) == 0


def test_labels_are_wrong_in_their_share():
    data = {"x": np.ones((5_000, 1)), "y": np.zeros(5_000, np.int32)}
    made = synthetic.with_label_noise(data, 0.2, classes=10, seed=1)
    assert made["x"] is data["x"] and made["y"].dtype == np.int32
    assert abs((made["y"] != 0).mean() - 0.18) < 0.02
    assert (synthetic.with_label_noise(data, 0.0, classes=10)["y"] == 0).all()
