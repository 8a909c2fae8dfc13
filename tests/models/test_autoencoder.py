"""Autoencoders: sizes, both halves, and parity with PyTorch in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl.core import tree
from jdl.models import Autoencoder, ConvAutoencoder, VariationalAutoencoder, from_linen
from jdl.models.layers.upsampling import conv_transpose
from tests.support.learners import KEY, doubled, message

TOLERANCE = {"rtol": 1e-9, "atol": 1e-12}


def shapes(module, *shape):
    start = from_linen(module).init
    return jax.eval_shape(start, KEY, jax.ShapeDtypeStruct(shape, jnp.float32))[0]


@pytest.mark.parametrize(
    ("module", "size"),
    [
        (Autoencoder(), 784 * 32 + 32 + 32 * 784 + 784),
        (Autoencoder(activation="identity"), 50_992),
        (Autoencoder(8, (64,)), 785 * 64 + 65 * 8 + 9 * 64 + 65 * 784),
        (
            ConvAutoencoder(),
            (9 * 16 + 16) + (9 * 16 * 32 + 32) + (49 * 32 + 1) * 32
            + 33 * 49 * 32 + (16 * 32 * 16 + 16) + (16 * 16 + 1),
        ),
        (VariationalAutoencoder(), 785 * 400 + 401 * 40 + 21 * 400 + 401 * 784),
    ],
    ids=["dense", "linear", "deep", "convolutional", "variational"],
)  # fmt: skip
def test_exact_sizes(module, size):
    assert tree.count(shapes(module, 2, 28, 28, 1)) == size


def test_every_layer_is_named():
    assert set(tree.flatten(shapes(Autoencoder(), 2, 28, 28, 1))) == {
        f"{half}/output/{kind}" for half in ("encoder", "decoder") for kind in ("bias", "kernel")
    }
    names = {
        name.rpartition("/")[0] for name in tree.flatten(shapes(ConvAutoencoder(), 2, 28, 28, 1))
    }
    assert names == {
        "encoder/conv_1", "encoder/conv_2", "encoder/code",
        "decoder/dense", "decoder/conv_transpose_1", "decoder/output",
    }  # fmt: skip


@pytest.mark.parametrize(
    "module", [Autoencoder(3, (5,), shape=(4, 4, 1)), ConvAutoencoder(3, (2,), (4, 4, 1))]
)
def test_the_whole_is_decode_after_encode(module):
    x = jax.random.normal(KEY, (2, 4, 4, 1))
    variables = jax.jit(module.init)(KEY, x)
    codes = module.apply(variables, x, method="encode")
    assert codes.shape == (2, 3)
    back = module.apply(variables, codes, method="decode")
    np.testing.assert_array_equal(back, module.apply(variables, x))
    assert back.shape == x.shape


@pytest.mark.slow
def test_variational_code_is_mean_plus_deviation_times_noise(x64):
    module = VariationalAutoencoder(2, (3,), "tanh", (4,))
    model, x = from_linen(module), jax.random.normal(KEY, (5, 4))
    params, model_state = model.init(KEY, x)
    mean, log_variance = module.apply({"params": params}, x, method="encode")
    still = model.apply(params, model_state, x)[0]
    decode = lambda z: module.apply({"params": params}, z, method="decode")
    np.testing.assert_allclose(still["logits"], decode(mean))
    np.testing.assert_array_equal(still["log_variance"], log_variance)
    one, again, other = (
        model.apply(params, model_state, x, key=jax.random.key(i), train=True)[0]["logits"]
        for i in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, other)

    # A decoder that is the identity shows the code itself: its moments over many keys.
    params["decoder"] = {
        "dense_1": {"kernel": 1e-4 * jnp.eye(2, 3), "bias": jnp.zeros(3)},
        "output": {"kernel": 1e4 * jnp.eye(3, 4), "bias": jnp.zeros(4)},
    }
    keys = jax.random.split(KEY, 4000)
    draw = lambda key: model.apply(params, model_state, x, key=key, train=True)[0]["logits"][:, :2]
    codes = jax.jit(jax.vmap(draw))(keys)
    np.testing.assert_allclose(codes.mean(0), mean, atol=0.1)
    np.testing.assert_allclose(codes.std(0), np.exp(log_variance / 2), rtol=0.1)


def test_gradients_reach_mean_and_variance_through_the_draw():
    model = from_linen(VariationalAutoencoder(2, (3,), "tanh", (4,)))
    x = jax.random.normal(KEY, (5, 4))
    params, model_state = model.init(KEY, x)
    total = lambda p: model.apply(p, model_state, x, key=KEY, train=True)[0]["logits"][..., 0].sum()
    slopes = jax.jit(jax.grad(total))(params)["encoder"]["output"]["bias"]
    assert (np.abs(slopes) > 1e-6).all()


def test_training_a_variational_one_needs_a_key():
    model = from_linen(VariationalAutoencoder(2, (3,), shape=(4,)))
    params, model_state = model.init(KEY, jnp.zeros((1, 4)))
    text = message(lambda: model.apply(params, model_state, jnp.zeros((1, 4)), train=True))
    assert "jax.random.key(0)" in text


def test_images_of_another_size_are_refused():
    text = message(lambda: from_linen(Autoencoder()).init(KEY, jnp.zeros((2, 8, 8, 1))))
    assert "(batch, 28, 28, 1)" in text and "shape=(8, 8, 1)" in text
    odd = ConvAutoencoder(3, (2, 2), (6, 6, 1))
    assert "divisible by 4" in message(lambda: from_linen(odd).init(KEY, jnp.zeros((1, 6, 6, 1))))
    assert "multiple of the stride" in message(lambda: conv_transpose(3, window=3))


def test_transposed_convolution_is_the_gradient_of_a_convolution(x64):
    x, y = jax.random.normal(KEY, (2, 3, 5, 2)), jnp.zeros((2, 6, 10, 4))
    layer = conv_transpose(4, name="up")
    params = doubled(layer.init(KEY, x)["params"])

    def forward(images):
        return jax.lax.conv_general_dilated(
            images, params["kernel"], (2, 2), [(1, 1), (1, 1)],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip

    _, back = jax.vjp(forward, y)
    np.testing.assert_allclose(layer.apply({"params": params}, x), back(x)[0], **TOLERANCE)


def test_first_weights_of_a_transposed_convolution_keep_the_signal():
    layer = conv_transpose(64, name="up")
    x = jax.random.normal(KEY, (4, 6, 6, 32))
    out = jax.jit(lambda k, x: layer.init_with_output(k, x)[0])(KEY, x)
    np.testing.assert_allclose(out[:, 2:-2, 2:-2].std(), 2**0.5, rtol=0.1)
