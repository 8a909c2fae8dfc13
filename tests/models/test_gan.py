"""Generators and discriminators: sizes, ranges, and kernels of spectral norm one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl.core import tree
from jdl.models import (
    ConvDiscriminator,
    ConvGenerator,
    DenseDiscriminator,
    DenseGenerator,
    from_linen,
)
from jdl.models.gan import output_function
from jdl.models.layers.spectral_norm import SpectralConv, SpectralDense
from tests.support.learners import KEY, assert_same_bits, doubled, message


def shapes(module, *shape):
    return jax.eval_shape(from_linen(module).init, KEY, jax.ShapeDtypeStruct(shape, jnp.float32))


@pytest.mark.parametrize(
    ("module", "shape", "size"),
    [
        (DenseGenerator(), (2, 100), 247_440),
        (DenseDiscriminator(), (2, 28, 28, 1), 233_985),
        (DenseDiscriminator(spectral=True), (2, 28, 28, 1), 233_985),
        # Normalised: a scale and a bias for each unit, the dense layer without its bias.
        (DenseGenerator(normalised=True), (2, 100), 247_440 + 128 + 256),
        (
            ConvGenerator(), (2, 100),
            100 * 3136 + 2 * 64 + 16 * 64 * 32 + 2 * 32 + (16 * 32 + 1),
        ),
        (
            ConvDiscriminator(), (2, 28, 28, 1),
            (16 * 32 + 32) + 16 * 32 * 64 + 2 * 64 + (49 * 64 + 1),
        ),
    ],
    ids=["G", "D", "spectral D", "normalised G", "convolutional G", "convolutional D"],
)  # fmt: skip
def test_exact_sizes(module, shape, size):
    assert tree.count(shapes(module, *shape)[0]) == size


def test_layers_are_named_and_power_iteration_is_no_parameter():
    params, model_state = shapes(DenseDiscriminator(spectral=True), 2, 28, 28, 1)
    assert set(params) == {"dense_1", "dense_2", "output"} and set(model_state) == {"spectral"}
    assert {k: v.shape for k, v in tree.flatten(model_state).items()} == {
        "spectral/dense_1/vector": (784,),
        "spectral/dense_2/vector": (256,),
        "spectral/output/vector": (128,),
    }
    params, model_state = shapes(ConvGenerator(), 2, 100)
    assert set(params) == {
        "dense", "batch_norm", "conv_transpose_1", "batch_norm_1", "output",
    }  # fmt: skip
    assert set(model_state) == {"batch_stats"}


@pytest.mark.parametrize(("output", "low", "high"), [("sigmoid", 0, 1), ("tanh", -1, 1)])
def test_a_generator_fills_the_range_of_its_pixels(output, low, high):
    model = from_linen(DenseGenerator((8,), (5, 5, 1), output=output))
    z = 30 * jax.random.normal(KEY, (64, 3))
    images, _ = model.apply(*model.init(KEY, z), z)
    assert images.shape == (64, 5, 5, 1)
    assert low <= images.min() < low + 0.05 and high - 0.05 < images.max() <= high


def test_relu_at_the_output_is_refused_with_the_reason():
    text = message(lambda: from_linen(DenseGenerator(output="relu")).init(KEY, jnp.zeros((1, 2))))
    assert "no gradient where it is zero" in text and "sigmoid" in text
    assert 'did you mean "tanh"?' in message(lambda: output_function("tan"))
    text = message(
        lambda: from_linen(ConvDiscriminator((2,), "spectrl")).init(KEY, jnp.zeros((1, 8, 8, 1)))
    )
    assert 'did you mean "spectral"?' in text


LAYERS = {
    "dense": (SpectralDense(6), (4, 9)),
    "convolution": (SpectralConv(5, (4, 4), strides=2), (2, 6, 6, 3)),
}


def normalised(layer, variables, x):
    """The kernel that the layer really uses: its answer to unit inputs, or its own form of it."""
    kernel = variables["params"]["kernel"]
    if kernel.ndim == 2:
        zero = {**variables["params"], "bias": jnp.zeros(kernel.shape[1])}
        return layer.apply({**variables, "params": zero}, jnp.eye(len(kernel)))
    one = jnp.zeros((4, 4, *kernel.shape[2:])).reshape(4, 4, kernel.shape[2], -1)
    eye = jnp.eye(16 * kernel.shape[2]).reshape(-1, 4, 4, kernel.shape[2])
    valid = SpectralConv(one.shape[-1], (4, 4), padding="VALID", use_bias=False)
    return valid.apply({**variables, "params": {"kernel": kernel}}, eye).reshape(len(eye), -1)


@pytest.mark.parametrize("name", ["dense", pytest.param("convolution", marks=pytest.mark.slow)])
def test_the_kernels_largest_singular_value_is_one(name, x64):
    layer, shape = LAYERS[name]
    x = jax.random.normal(KEY, shape)
    variables = doubled(jax.jit(layer.init)(KEY, x))
    update = jax.jit(lambda v: layer.apply(v, x, mutable=["spectral"])[1])
    for _ in range(300):
        variables = {**variables, **update(variables)}
    used = np.asarray(normalised(layer, variables, x))
    np.testing.assert_allclose(np.linalg.svd(used, compute_uv=False)[0], 1, rtol=1e-6)
    kernel = np.asarray(variables["params"]["kernel"]).reshape(used.shape)
    np.testing.assert_allclose(used, kernel / np.linalg.svd(kernel)[1][0], rtol=1e-6, atol=1e-9)


def test_fifteen_iterations_at_the_start_come_close_and_evaluation_changes_nothing():
    model = from_linen(DenseDiscriminator((32,), spectral=True))
    x = jax.random.normal(KEY, (4, 50))
    params, model_state = model.init(KEY, x)
    _, same = model.apply(params, model_state, x)
    assert_same_bits(same, model_state)
    _, moved = model.apply(params, model_state, x, train=True)
    assert not np.allclose(
        moved["spectral"]["dense_1"]["vector"],
        model_state["spectral"]["dense_1"]["vector"],
        atol=1e-7,
    )
    kernel = np.asarray(params["dense_1"]["kernel"])
    left = np.asarray(model_state["spectral"]["dense_1"]["vector"])
    top = np.linalg.svd(kernel, compute_uv=False)[0]
    assert 0.9 * top < np.linalg.norm(left @ kernel) <= top * 1.0001


@pytest.mark.slow
def test_a_spectral_discriminator_has_slope_at_most_one():
    model = from_linen(DenseDiscriminator((32, 16), spectral=True))
    x = jax.random.normal(KEY, (16, 50))
    params, model_state = model.init(KEY, x)
    params = jax.tree.map(lambda w: 7 * w, params)  # whatever the weights
    for _ in range(20):
        _, model_state = model.apply(params, model_state, x, train=True)
    slopes = jax.grad(lambda x: model.apply(params, model_state, x)[0].sum())(x)
    assert np.linalg.norm(slopes, axis=-1).max() <= 1.01
