"""Augmentation against a plain reference, pixel by pixel."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jdl.core.errors import InputError
from jdl.data.prepare.augmentations import (
    affine,
    brightness,
    compose,
    contrast,
    elastic,
    flip,
    hue,
    per_image,
    sample_bilinear,
    saturation,
    shift,
)

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).uniform(size=(64, 9, 11, 2)).astype(np.float32)


def shifted(image: np.ndarray, down: int, right: int) -> np.ndarray:
    return ndimage.shift(image, (down, right, 0), order=0, mode="constant")


def test_shift_moves_whole_images_and_fills_with_zeros():
    moved = np.asarray(jax.jit(shift(2))(KEY, IMAGES))
    seen = set()
    for image, result in zip(IMAGES, moved, strict=True):
        matches = [
            (i, j)
            for i in range(-2, 3)
            for j in range(-2, 3)
            if np.array_equal(shifted(image, i, j), result)
        ]
        assert len(matches) == 1
        seen.update(matches)
    assert len(seen) > 15  # of 25: every example draws its own


def test_bilinear_equals_scipy():
    random = np.random.default_rng(1)
    rows, columns = random.uniform(-3, 12, (64, 9, 11)), random.uniform(-3, 14, (64, 9, 11))
    result = np.asarray(
        sample_bilinear(jnp.asarray(IMAGES), jnp.asarray(rows), jnp.asarray(columns))
    )
    padded = np.pad(IMAGES, ((0, 0), (4, 4), (4, 4), (0, 0)))
    for i in range(0, 64, 7):
        for channel in range(2):
            expected = ndimage.map_coordinates(
                padded[i, :, :, channel], [rows[i] + 4, columns[i] + 4], order=1
            )
            np.testing.assert_allclose(result[i, :, :, channel], expected, atol=1e-5)


def test_affine_of_nothing_is_the_identity():
    np.testing.assert_allclose(affine()(KEY, jnp.asarray(IMAGES)), IMAGES, atol=1e-6)


def disc(height: int, width: int, y: float, x: float) -> jax.Array:
    rows, columns = jnp.mgrid[:height, :width]
    image = jnp.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 8)
    return jnp.broadcast_to(image[None, :, :, None], (256, height, width, 1))


def centres(images: jax.Array) -> np.ndarray:
    mass = np.asarray(images[..., 0], np.float64)
    rows, columns = np.mgrid[: mass.shape[1], : mass.shape[2]]
    total = mass.sum((1, 2))
    return np.stack([(mass * rows).sum((1, 2)), (mass * columns).sum((1, 2))], 1) / total[:, None]


def test_rotation_turns_about_the_centre_by_at_most_its_angle():
    turned = centres(affine(degrees=20)(KEY, disc(41, 41, 20, 30))) - 20
    radius, angle = np.hypot(*turned.T), np.degrees(np.arctan2(*turned.T))
    np.testing.assert_allclose(radius, 10, atol=0.05)
    assert 18 < angle.max() < 20.1
    assert -20.1 < angle.min() < -18


def test_scale_stretches_both_ways():
    radius = centres(affine(scale=0.2)(KEY, disc(41, 41, 20, 30)))[:, 1] - 20
    assert 11.8 < radius.max() < 12.1
    assert 7.9 < radius.min() < 8.2


def test_shift_of_affine_is_in_pixels():
    moved = centres(affine(shift=3)(KEY, disc(41, 41, 20, 20))) - 20
    assert (np.abs(moved) < 3.05).all()
    assert (np.abs(moved).max(0) > 2.8).all()


def test_compose_applies_in_order_with_keys_of_their_own():
    both = compose(shift(2), affine(degrees=9))(KEY, jnp.asarray(IMAGES))
    first = shift(2)(jax.random.fold_in(KEY, 0), jnp.asarray(IMAGES))
    second = affine(degrees=9)(jax.random.fold_in(KEY, 1), first)
    np.testing.assert_array_equal(both, second)


def test_under_jit_and_vmap():
    turn = compose(shift(1), affine(degrees=9, scale=0.1, shift=1))
    keys = jax.random.split(KEY, 3)
    many = jax.jit(jax.vmap(turn, in_axes=(0, None)))(keys, IMAGES)
    for key, images in zip(keys, many, strict=True):
        np.testing.assert_allclose(turn(key, jnp.asarray(IMAGES)), images, atol=1e-5)


def test_each_gives_every_image_its_own_key():
    noisy = per_image(lambda key, image: image + jax.random.uniform(key))(
        KEY, jnp.zeros((5, 2, 2, 1))
    )
    assert len(np.unique(noisy)) == 5


@pytest.mark.parametrize("vertical", [False, True])
def test_flip_mirrors_some_images(vertical):
    pytest.importorskip("dm_pix", reason="dm-pix is not installed: the extra is `augment`")
    flipped = np.asarray(flip(0.25, vertical=vertical)(KEY, jnp.asarray(IMAGES)))
    mirrored = IMAGES[:, ::-1] if vertical else IMAGES[:, :, ::-1]
    turned = [np.array_equal(a, b) for a, b in zip(flipped, mirrored, strict=True)]
    kept = [np.array_equal(a, b) for a, b in zip(flipped, IMAGES, strict=True)]
    assert all(a != b for a, b in zip(turned, kept, strict=True))
    assert 6 < sum(turned) < 28  # of 64
    np.testing.assert_array_equal(flip(1.0, vertical=vertical)(KEY, IMAGES), mirrored)


def test_colours_change_by_no_more_than_was_asked():
    pytest.importorskip("dm_pix", reason="dm-pix is not installed: the extra is `augment`")
    images = jnp.asarray(IMAGES)
    added = np.asarray(brightness(0.3)(KEY, images) - images)
    np.testing.assert_allclose(added, added[:, :1, :1, :1] + 0 * added, atol=1e-6)
    assert -0.3 <= added.min() < -0.25 and 0.25 < added.max() <= 0.3
    centred = lambda x: np.asarray(x) - np.asarray(x).mean((1, 2), keepdims=True)
    factors = centred(contrast(0.5, 1.5)(KEY, images)) / centred(images)
    np.testing.assert_allclose(factors, factors[:, :1, :1, :1] + 0 * factors, atol=2e-2)
    assert 0.5 <= factors.min() + 0.02 < 0.6 and 1.4 < factors.max() < 1.52


def test_saturation_and_hue_leave_the_brightest_channel():
    """In HSV both keep the value, the largest of the three channels."""
    colours = jnp.asarray(np.random.default_rng(2).uniform(size=(8, 3, 4, 3)), jnp.float32)
    for change in (saturation(0.2, 0.9), hue(0.4)):
        after = np.asarray(change(KEY, colours))
        assert np.abs(after - colours).max() > 0.05
        np.testing.assert_allclose(after.max(-1), colours.max(-1), atol=1e-5)
    dull = np.asarray(saturation(0.2, 0.9)(KEY, colours))
    assert (np.ptp(dull, -1) < np.ptp(np.asarray(colours), -1) + 1e-6).all()


COLOURS = np.random.default_rng(3).uniform(size=(2, 4, 5, 3)).astype(np.float32)
STANDARDISED = np.random.default_rng(4).normal(size=(2, 4, 5, 3)).astype(np.float32)


def in_hsv(image, turn, factor):
    """The change of a pixel by Python's own conversion, which holds only [0, 1]."""
    hue, saturation, value = colorsys.rgb_to_hsv(*image.astype(float))
    return colorsys.hsv_to_rgb((hue + turn) % 1, min(saturation * factor, 1), value)


def test_hue_and_saturation_are_those_of_hsv_also_around_other_values():
    keys = jax.random.split(KEY, 2)
    turns = [float(jax.random.uniform(key, (), minval=-0.4, maxval=0.4)) for key in keys]
    factors = [float(jax.random.uniform(key, (), minval=0.5, maxval=2)) for key in keys]
    turn = jax.jit(hue(0.4))
    turned, dulled = turn(KEY, COLOURS), jax.jit(saturation(0.5, 2))(KEY, COLOURS)
    for found, changes in ((turned, [(t, 1) for t in turns]), (dulled, [(0, f) for f in factors])):
        expected = [
            [[in_hsv(pixel, *change) for pixel in row] for row in image]
            for image, change in zip(COLOURS, changes, strict=True)
        ]
        np.testing.assert_allclose(found, expected, atol=1e-5)
    # A hue does not depend on what is added to all channels, nor on their common scale.
    np.testing.assert_allclose(turn(KEY, 3 * COLOURS - 2), 3 * turned - 2, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_colours_outside_the_unit_interval_stay_where_nothing_is_to_change(dtype):
    images = jnp.asarray(STANDARDISED, dtype)
    changes = [hue(0.0), saturation(1.0, 1.0), saturation(0.999, 1.001), hue(0.001)]
    found = jax.jit(lambda images: [change(KEY, images) for change in changes])(images)
    assert {after.dtype for after in found} == {images.dtype}
    gaps = [np.abs(np.float32(after) - np.float32(images)).max() for after in found]
    assert gaps[:2] == [0, 0] and 0 < max(gaps[2:]) < 0.04


def test_elastic_bends_but_keeps_a_disc_near():
    pytest.importorskip("dm_pix", reason="dm-pix is not installed: the extra is `augment`")
    images = disc(21, 21, 10, 10)[:16]
    # alpha is traced, so that both are one program.
    bend = jax.jit(lambda alpha: elastic(alpha, 2)(KEY, images))
    np.testing.assert_allclose(bend(0.0), images, atol=1e-5)
    bent = bend(8.0)
    moved = centres(bent) - centres(images)
    assert 0.2 < np.abs(moved).max() < 4
    assert np.abs(bent - images).max() > 0.1 and np.ptp(np.asarray(bent[:, 10, 10, 0])) > 0.01


def test_augmentations_of_a_step_follow_from_its_number():
    """The same key and step give the same images, the next step others."""
    pytest.importorskip("dm_pix", reason="dm-pix is not installed: the extra is `augment`")
    change = jax.jit(compose(flip(), brightness(0.2), contrast(0.8, 1.2)))
    steps = [change(jax.random.fold_in(KEY, step), IMAGES) for step in (0, 0, 1)]
    np.testing.assert_array_equal(steps[0], steps[1])
    assert np.abs(steps[0] - steps[2]).max() > 0.1


def test_without_dm_pix(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "dm_pix", None)
    with pytest.raises(InputError, match=r"(?s)package dm-pix.*pip install"):
        flip()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_dtype_is_kept(dtype):
    assert affine(degrees=9)(KEY, jnp.ones((2, 8, 8, 1), dtype)).dtype == dtype


def test_dm_pix_keeps_it_too():
    pytest.importorskip("dm_pix", reason="dm-pix is not installed: the extra is `augment`")
    images = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.bfloat16)
    for change in (flip(), brightness(0.1), contrast(0.5, 2), elastic(2, 1)):
        assert jax.eval_shape(change, KEY, images).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: shift(1)(KEY, jnp.ones((2, 8, 8))), ["(batch, height, width, channels)"]),
        (lambda: affine()(KEY, jnp.ones((2, 8, 8, 1), int)), ["floating-point", "int32"]),
        (lambda: shift(-1), ["shift: pixels"]),
        (lambda: flip(1.5), ["flip probability", "from 0 to 1"]),
        (lambda: brightness(-1), ["brightness delta"]),
        (lambda: contrast(1.2, 0.8), ["contrast", "low=1.2, high=0.8"]),
        (lambda: hue(0.7), ["hue delta", "from 0 to 0.5"]),
        (lambda: elastic(1, 0), ["elastic sigma"]),
        (lambda: hue(0.1)(KEY, jnp.ones((2, 8, 8, 1))), ["three channels"]),
        (lambda: affine(scale=1), ["0 <= scale < 1", "scale=1"]),
    ],
)
def test_errors(make, words):
    with pytest.raises(InputError) as caught:
        make()
    for word in words:
        assert word in str(caught.value)
