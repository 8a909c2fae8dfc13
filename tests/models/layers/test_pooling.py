"""Pooling: NaN stays NaN in compiled programs, and values are those of numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jdl
from jdl.models.layers import primitives

# So large that XLA on CPU splits a reduction into parallel parts, which is where NaN was lost.
SHAPE = (16, 17, 17, 16)
RNG = np.random.default_rng(0)
CASES = [
    (2, None, "VALID"),
    (2, None, "SAME"),
    (3, 2, "VALID"),
    (3, 2, ((1, 1), (2, 0))),
    (2, 3, "SAME"),
    (5, None, "VALID"),
]


def windows_of(image, window, stride, padding):
    """Every window of one channel of one image, by the definition."""
    rows, columns = (
        [(0, 0), (0, 0)]
        if padding == "VALID"
        else [_same(n, window, stride) for n in image.shape]
        if padding == "SAME"
        else padding
    )
    padded = np.pad(image, (rows, columns), constant_values=-np.inf)
    return [
        [
            padded[i : i + window, j : j + window]
            for j in range(0, padded.shape[1] - window + 1, stride)
        ]
        for i in range(0, padded.shape[0] - window + 1, stride)
    ]


def _same(size, window, stride):
    total = max(0, (-(-size // stride) - 1) * stride + window - size)
    return total // 2, total - total // 2


@pytest.mark.parametrize(("window", "stride", "padding"), CASES)
def test_max_pool_is_the_largest_value_and_keeps_nan(window, stride, padding):
    x = RNG.normal(size=SHAPE).astype(np.float32)
    x[0, 3, 5, 0] = x[-1, 0, 0, -1] = np.nan
    pool = jax.jit(lambda x: primitives.max_pool(x, window, stride, padding))
    got = np.asarray(pool(x))
    for batch, channel in ((0, 0), (-1, -1), (3, 7)):
        want = [
            [part.max() for part in row]
            for row in windows_of(x[batch, :, :, channel], window, stride or window, padding)
        ]
        np.testing.assert_array_equal(got[batch, :, :, channel], want)
    assert np.isnan(pool(np.full_like(x, np.nan))).all()


@pytest.mark.parametrize(
    ("window", "stride", "padding"), [(3, 2, "SAME"), (3, 1, ((1, 1), (1, 1)))]
)
def test_the_gradient_of_max_pool_is_that_of_flax(window, stride, padding):
    """Relu makes ties; the first of them gets the gradient."""
    x = np.maximum(RNG.normal(size=(2, 7, 8, 3)), 0).astype(np.float32)
    weights = jnp.asarray(
        RNG.normal(size=nn.max_pool(x, (window,) * 2, (stride,) * 2, padding).shape)
    )

    def total(pool):
        return jax.jit(jax.grad(lambda x: (weights * pool(x)).sum()))(x)

    ours = total(lambda x: primitives.max_pool(x, window, stride, padding))
    flax = total(lambda x: nn.max_pool(x, (window,) * 2, (stride,) * 2, padding))
    np.testing.assert_array_equal(ours, flax)


@pytest.mark.parametrize(
    "pool",
    [
        lambda x: primitives.avg_pool(x),
        lambda x: primitives.avg_pool(x, 3, 2, "SAME"),
        lambda x: primitives.adaptive_avg_pool(x, 5),
    ],
)
def test_averages_keep_nan(pool):
    one = jnp.ones(SHAPE).at[0, 3, 5, 0].set(jnp.nan)
    assert np.isnan(jax.jit(pool)(one)[0, ..., 0]).any()
    assert np.isnan(jax.jit(pool)(jnp.full(SHAPE, jnp.nan))).all()


def test_max_pool_takes_integers_and_images_smaller_than_the_window():
    x = jnp.arange(-18, 0).reshape(1, 3, 6, 1)
    assert primitives.max_pool(x, 3, 2, "SAME").dtype == x.dtype
    assert primitives.max_pool(x, 3, 2, "SAME").max() == -1
    assert primitives.max_pool(jnp.ones((1, 2, 6, 1)), 3).shape == (1, 0, 2, 1)


def test_a_cnn_gives_nan_for_an_image_of_nan():
    module = jdl.models.CNN(features=(8,), hidden=(), classes=3, padding="SAME")
    model = jdl.from_linen(module)
    x = jnp.zeros((16, 16, 16, 3))
    params, state = model.init(jax.random.key(0), x)
    apply = jax.jit(lambda x: model.apply(params, state, x)[0])
    assert np.isnan(apply(x * jnp.nan)).all()
    assert np.isnan(apply(x.at[2, 5, 5, 0].set(jnp.nan))[2]).all()
