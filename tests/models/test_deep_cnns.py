"""Exact sizes of the published networks, small variants, and images that are too small."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl.core import tree
from jdl.core.errors import InputError
from jdl.models import CNN, VGG, AlexNet, DenseNet, GoogLeNet, ResNet, from_linen
from jdl.models.resnet import ResidualBlock

KEY = jax.random.key(0)
PHOTO, CIFAR, DIGIT = (1, 224, 224, 3), (1, 32, 32, 3), (2, 8, 8, 1)

# What the docstrings recommend for the 8x8 digits.
SMALL = {
    "AlexNet": AlexNet(
        (16, 32, 48, 32, 32),
        (3,) * 5,
        stride=1,
        pools=(1, 5),
        hidden=(64, 64),
        pooled=1,
        classes=10,
    ),
    "VGG": VGG(((16, 16), (32, 32)), hidden=(64,), pooled=2, classes=10),
    "GoogLeNet": GoogLeNet(
        (((8, 8, 16, 4, 8, 8),), ((16, 8, 16, 4, 8, 8),)), classes=10, stem="small"
    ),
    "ResNet": ResNet((1, 1), features=16, classes=10, stem="small"),
    "DenseNet": DenseNet((2, 2), growth=8, features=16, classes=10, stem="small"),
}


def shapes(module, shape):
    start = from_linen(module).init
    return jax.eval_shape(start, KEY, jax.ShapeDtypeStruct(shape, jnp.float32))


@pytest.mark.parametrize(
    ("module", "shape", "size"),
    [
        (AlexNet(), PHOTO, 61_100_840),
        (VGG(), PHOTO, 138_357_544),
        # Each of 4,224 convolution channels has a scale more: its bias becomes the norm's.
        (VGG(norm="batch"), PHOTO, 138_357_544 + 4_224),
        (GoogLeNet(), PHOTO, 6_624_904),
        # 5x5 windows, of which the nine modules have these: 25 - 9 more weights a pair.
        (
            GoogLeNet(window=5), PHOTO,
            6_624_904 + 16 * (
                16 * 32 + 32 * 96 + 16 * 48 + 3 * 24 * 64 - 24 * 64 + 32 * 64 + 2 * 32 * 128
                + 48 * 128
            ),
        ),
        (ResNet(), PHOTO, 11_689_512),
        (ResNet((3, 4, 6, 3), bottleneck=True), PHOTO, 25_557_032),
        (ResNet((3, 3, 3), 16, classes=10, stem="small", shortcut="pad"), CIFAR, 269_722),
        (DenseNet(), PHOTO, 7_978_856),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_exact_sizes(module, shape, size):
    assert tree.count(shapes(module, shape)[0]) == size


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "expected"),
    [(AlexNet(), 6), (VGG(), 7), (GoogLeNet(), 7), (ResNet(), 7), (DenseNet(), 7)],
    ids=lambda value: type(value).__name__,
)
def test_a_photograph_becomes_seven_pixels_wide(module, expected):
    """Where the last feature maps have the published size, every stride and pool is right."""
    model = from_linen(module)
    images = jax.ShapeDtypeStruct(PHOTO, jnp.float32)
    params, model_state = jax.eval_shape(model.init, KEY, images)
    jaxpr = jax.make_jaxpr(lambda p, s, x: model.apply(p, s, x)[0])(params, model_state, images)
    text = str(jaxpr)
    sides = {size for size in range(2, 300) if f"f32[1,{size},{size}," in text}
    assert min(sides - {2, 3}) == expected


@pytest.mark.parametrize("name", SMALL)
def test_small_variants_are_small_and_every_layer_is_named(name):
    params, _ = shapes(SMALL[name], DIGIT)
    assert 5_000 < tree.count(params) < 60_000
    paths = list(tree.flatten(params))
    assert not [path for path in paths if any(part[:1].isupper() for part in path.split("/"))]


TOO_SMALL = [
    (CNN(), (2, 8, 8, 1), "layer pool_2", r"\(2, 0, 0, 64\)"),
    (AlexNet(), (2, 32, 32, 3), "layer pool_5", r"\(2, 1, 1, 256\)"),
    (AlexNet(), (2, 6, 6, 3), "layer conv_1", r"\(2, 6, 6, 3\)"),
    (VGG(), (2, 28, 28, 1), "layer pool_5", r"\(2, 1, 1, 512\)"),
    (DenseNet(stem="small"), (2, 4, 4, 1), "layer pool_3", r"\(2, 1, 1, \d+\)"),
]


@pytest.mark.parametrize(
    ("module", "shape", "layer", "size"), TOO_SMALL, ids=lambda value: type(value).__name__
)
def test_an_image_that_shrinks_below_a_pixel(module, shape, layer, size):
    with pytest.raises(InputError, match=rf"(?s)^{layer}\b.*{size}.*too small for the network"):
        shapes(module, shape)


@pytest.mark.parametrize(
    "module", [GoogLeNet(), ResNet(), ResNet(stem="small"), GoogLeNet(stem="small")]
)
def test_networks_that_round_up_take_a_single_pixel(module):
    model = from_linen(module.copy(classes=3))
    images = jax.ShapeDtypeStruct((1, 1, 1, 3), jnp.float32)
    params, model_state = jax.eval_shape(model.init, KEY, images)
    assert jax.eval_shape(model.apply, params, model_state, images)[0].shape == (1, 3)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (ResNet(stem="smal"), 'did you mean "small"'),
        (GoogLeNet(stem="tiny"), '"large" .for photographs. or "small"'),
        (ResNet(shortcut="pads"), 'did you mean "pad"'),
        (ResNet(norm="bach"), 'did you mean "batch"'),
        (VGG(dropout=1.0), "below 1"),
        (AlexNet(dropout=-1.0), "at least 0"),
        (GoogLeNet(dropout=2.0), "below 1"),
    ],
)
def test_values_out_of_range(module, message):
    with pytest.raises(InputError, match=message):
        shapes(module, (1, 64, 64, 3))


@pytest.mark.parametrize("name", SMALL)
def test_images_without_a_channel_axis(name):
    with pytest.raises(InputError, match=r"x\[\.\.\., None\]"):
        shapes(SMALL[name], (2, 8, 8))


def test_a_padded_shortcut_keeps_every_second_pixel():
    """With kernels of zero the block is its shortcut."""
    block = from_linen(ResidualBlock(6, stride=2, shortcut="pad"))
    x = jax.random.uniform(KEY, (2, 5, 4, 3))
    params, model_state = block.init(KEY, x)
    params = jax.tree.map_with_path(
        lambda path, leaf: jnp.zeros_like(leaf) if "kernel" in tree.path(path) else leaf, params
    )
    y, _ = block.apply(params, model_state, x)
    np.testing.assert_array_equal(y[..., :3], x[:, ::2, ::2])
    assert y.shape == (2, 3, 2, 6) and not y[..., 3:].any()


def test_dropout_of_the_dense_layers_acts_in_training_only():
    model = from_linen(SMALL["VGG"])
    x = jax.random.normal(KEY, DIGIT)
    params, model_state = model.init(KEY, x)
    plain, again = (model.apply(params, model_state, x)[0] for _ in range(2))
    dropped = model.apply(params, model_state, x, key=KEY, train=True)[0]
    np.testing.assert_array_equal(plain, again)
    assert np.abs(dropped - plain).max() > 1e-3
