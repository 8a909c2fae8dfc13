"""Sizes, names, initial weights and layers of the networks."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.test_util import check_grads

from jdl.core import tree
from jdl.core.errors import InputError
from jdl.models import CNN, MLP, from_linen
from jdl.models.layers import primitives

KEY = jax.random.key(0)


def shapes(module, *shape):
    start = from_linen(module).init
    return jax.eval_shape(start, KEY, jax.ShapeDtypeStruct(shape, jnp.float32))


@pytest.mark.parametrize(
    "module, shape, size",
    [
        (MLP((), 1), (4, 2), 3),
        (MLP((4,), 1), (4, 2), 17),
        (CNN(), (2, 28, 28, 1), 225_034),
        (CNN(hidden=()), (2, 28, 28, 1), 34_826),
        # BatchNorm has a scale and a bias for each feature, the convolution no bias.
        (CNN(norm="batch"), (2, 28, 28, 1), 225_034 + 32 + 64),
        (CNN(padding="SAME"), (2, 8, 8, 1), 320 + 18_496 + (2 * 2 * 64 + 1) * 128 + 1_290),
    ],
)
def test_exact_sizes(module, shape, size):
    assert tree.count(shapes(module, *shape)[0]) == size


def test_every_layer_is_named():
    params, model_state = shapes(CNN(norm="batch", dropout=0.1), 2, 28, 28, 1)
    assert set(params) == {
        "conv_1", "conv_2", "batch_norm_1", "batch_norm_2", "dense_1", "output",
    }  # fmt: skip
    assert set(model_state) == {"batch_stats"}
    assert "bias" not in params["conv_1"]
    assert set(shapes(MLP((3, 3)), 2, 4)[0]) == {"dense_1", "dense_2", "output"}


def test_mlp_by_hand():
    model = from_linen(MLP((3,), 2, activation="tanh"))
    x = jax.random.normal(KEY, (5, 2, 2))
    params, model_state = model.init(KEY, x)
    hidden = np.tanh(np.reshape(x, (5, 4)) @ params["dense_1"]["kernel"])
    expected = hidden @ params["output"]["kernel"]
    np.testing.assert_allclose(
        model.apply(params, model_state, x)[0], expected, rtol=1e-5, atol=1e-6
    )


def test_cnn_by_hand():
    """Cross-correlation, ReLU, pool and a dense layer, in loops over pixels."""
    model = from_linen(CNN(features=(2,), hidden=(), classes=3))
    x = np.random.default_rng(0).normal(size=(1, 7, 6, 2)).astype("float32")
    params, model_state = model.init(KEY, x)
    kernel = np.asarray(params["conv_1"]["kernel"], np.float64)
    maps = np.zeros((5, 4, 2))
    for i, j in np.ndindex(5, 4):
        maps[i, j] = np.einsum("uvc,uvcf->f", x[0, i : i + 3, j : j + 3], kernel)
    pooled = np.zeros((2, 2, 2))
    for i, j in np.ndindex(2, 2):
        pooled[i, j] = np.maximum(maps, 0)[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max((0, 1))
    expected = pooled.reshape(-1) @ params["output"]["kernel"]
    np.testing.assert_allclose(
        model.apply(params, model_state, x)[0][0], expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_every_parameter_gets_a_finite_gradient(norm):
    model = from_linen(CNN((4, 4), (8,), 3, norm=norm, dropout=0.2))
    x = jax.random.normal(KEY, (16, 10, 10, 1))
    params, model_state = model.init(KEY, x)

    def loss(params):
        outputs, _ = model.apply(params, model_state, x, key=KEY, train=True)
        return (outputs**2 * jnp.arange(1.0, 4.0)[None]).sum()

    for name, grad in tree.flatten(jax.jit(jax.grad(loss))(params)).items():
        assert np.isfinite(grad).all() and np.abs(grad).max() > 1e-4, name


def test_a_bias_before_batch_norm_would_have_no_gradient():
    """Why the convolution before it has none."""
    x = jax.random.normal(KEY, (16, 3))

    def loss(bias):
        normed = nn.BatchNorm(use_running_average=False).init_with_output(KEY, x + bias[None])[0]
        return (normed**3).sum()

    assert np.abs(jax.grad(loss)(jnp.ones(3))).max() < 1e-3


def test_dropout_removes_its_share_in_training_only():
    model = from_linen(MLP((4000,), 1, activation="sigmoid", dropout=0.25, initializer="zeros"))
    x = jnp.zeros((1, 2))
    params, model_state = model.init(KEY, x)
    params["output"]["kernel"] = jnp.ones((4000, 1))
    total, _ = model.apply(params, model_state, x, key=KEY, train=True)
    kept = total[0, 0] * 0.75 / 0.5 / 4000
    assert abs(kept - 0.75) < 4 * (0.25 * 0.75 / 4000) ** 0.5
    assert model.apply(params, model_state, x)[0][0, 0] == 2000


@pytest.mark.parametrize("activation", ["relu", "tanh", "selu", "identity"])
def test_matched_weights_keep_the_signal(activation):
    """Ten layers deep, the signal neither dies nor explodes; with the other rule ReLU's does."""

    def spread(initializer):
        model = from_linen(MLP((256,) * 10, 256, activation=activation, initializer=initializer))
        x = jax.random.normal(KEY, (64, 256))
        return float(jax.jit(model.apply)(*model.init(KEY, x), x)[0].std())

    assert 0.15 < spread("matched") < 2
    if activation == "relu":
        assert spread("lecun") < 0.1


@pytest.mark.parametrize(
    "name, variance", [("he", 2 / 400), ("lecun", 1 / 400), ("glorot", 2 / 600)]
)
def test_initial_variance(name, variance):
    weights = primitives.INITIALIZERS[name](KEY, (400, 200), jnp.float32)
    np.testing.assert_allclose(weights.var(), variance, rtol=0.03)


def test_orthogonal_and_zero_weights():
    weights = primitives.INITIALIZERS["orthogonal"](KEY, (8, 8), jnp.float32)
    np.testing.assert_allclose(weights.T @ weights, np.eye(8), atol=1e-5)
    params, _ = from_linen(MLP((), 1, initializer="zeros")).init(KEY, jnp.ones((1, 2)))
    assert not params["output"]["kernel"].any()


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (2, 9, 7, 3)])
@pytest.mark.parametrize("window", [2, 3])
def test_pools_equal_the_general_ones(shape, window):
    x = jax.random.normal(KEY, shape)
    sizes = (window, window)
    for ours, theirs in ((primitives.max_pool, nn.max_pool), (primitives.avg_pool, nn.avg_pool)):
        np.testing.assert_allclose(ours(x, window), theirs(x, sizes, sizes), rtol=1e-6)
        one = jax.grad(lambda x, f=ours: (f(x, window) ** 2).sum())(x)
        two = jax.grad(lambda x, f=theirs: (f(x, sizes, sizes) ** 2).sum())(x)
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(ours(x, 3, 2, "SAME"), theirs(x, (3, 3), (2, 2), "SAME"))


@pytest.mark.parametrize("window", [2, 4, 5])  # ties are counted in another way above 4
def test_ties_in_a_pool_share_the_gradient(window):
    x = jnp.ones((1, 2 * window, window, 1)).at[0, 0, 0, 0].set(0.0)
    grad = jax.grad(lambda x: primitives.max_pool(x, window).sum())(x)
    expected = np.full(x.shape, 1 / window**2)
    expected[0, :window] = 1 / (window**2 - 1)
    expected[0, 0, 0] = 0
    np.testing.assert_allclose(grad, expected, rtol=1e-6)


def test_a_pool_is_differentiated_forwards_and_twice():
    x = jax.random.normal(KEY, (1, 4, 4, 2))
    pooled = lambda x: (primitives.max_pool(x) ** 3).sum()
    check_grads(pooled, (x,), order=2, modes=["fwd", "rev"], rtol=2e-2, eps=1e-3)


def test_the_gradient_of_a_pool_writes_no_count_of_ties_for_each_pixel():
    """On CPU the count is arithmetic of the smaller image, fused with what uses it."""
    x = jnp.zeros((4, 8, 8, 16))
    compiled = jax.jit(jax.grad(lambda x: (primitives.max_pool(x) ** 2).sum())).lower(x).compile()
    entry = compiled.as_text().split("ENTRY")[1]
    made = re.findall(r"= (\S+?)\{\S* (?:fusion|reduce|convert|broadcast)\(", entry)
    assert len([shape for shape in made if _size(shape) == x.size]) == 1  # the gradient alone


def _size(shape):
    return np.prod([int(n) for n in re.findall(r"\d+", shape.partition("[")[2])])


def test_dense_is_a_product_on_the_last_axis():
    x = jax.random.normal(KEY, (2, 3, 4, 5))
    module = primitives.Dense(6)
    variables = module.init(KEY, x)
    kernel = np.asarray(variables["params"]["kernel"])
    np.testing.assert_allclose(
        module.apply(variables, x), np.asarray(x) @ kernel, rtol=1e-4, atol=1e-5
    )
    ranks = {
        value.aval.ndim
        for equation in jax.make_jaxpr(module.apply)(variables, x).eqns
        if equation.primitive.name == "dot_general"
        for value in equation.invars
    }
    assert ranks == {2}


def test_batch_norm_over_devices_is_that_of_the_whole_batch():
    model = from_linen(CNN((4,), (), 2, norm="batch", axis_name="data"))
    whole = from_linen(CNN((4,), (), 2, norm="batch"))
    x = jax.random.normal(KEY, (8, 6, 6, 1)) * jnp.arange(1.0, 9.0).reshape(8, 1, 1, 1)
    params, model_state = model.init(KEY, x)
    parts = x.reshape(4, 2, 6, 6, 1)
    apply = jax.vmap(
        lambda part: model.apply(params, model_state, part, key=KEY, train=True), axis_name="data"
    )
    outputs, after = jax.jit(apply)(parts)
    expected, expected_after = jax.jit(
        lambda x: whole.apply(params, model_state, x, key=KEY, train=True)
    )(x)
    np.testing.assert_allclose(outputs.reshape(8, 2), expected, rtol=1e-4, atol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[3], b, rtol=1e-4, atol=1e-5),
        after,
        expected_after,
    )


def test_batch_norm_with_an_axis_that_is_not_mapped():
    model = from_linen(CNN((4,), (), 2, norm="batch", axis_name="data"))
    x = jnp.ones((2, 6, 6, 1))
    params, model_state = model.init(KEY, x)
    with pytest.raises(InputError, match=r"(?s)BatchNorm axis_name 'data'.*leave axis_name out"):
        model.apply(params, model_state, x, key=KEY, train=True)


@pytest.mark.parametrize(
    "module, message",
    [
        (MLP(activation="rellu"), 'did you mean "relu"'),
        (MLP(initializer="hee"), 'did you mean "he"'),
        (MLP(dropout=1.0), "below 1"),
        (CNN(padding="valid"), 'did you mean "VALID"'),
        (CNN(dropout=-0.1), "at least 0"),
    ],
)
def test_values_out_of_range(module, message):
    with pytest.raises(InputError, match=message):
        from_linen(module).init(KEY, jnp.ones((1, 28, 28, 1)))


def test_images_without_a_channel_axis():
    with pytest.raises(InputError, match=r"(?s)got: +shape \(2, 28, 28\).*x\[\.\.\., None\]"):
        from_linen(CNN()).init(KEY, jnp.zeros((2, 28, 28)))


def test_a_network_learns_xor():
    x = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    y = jnp.array([[0.0], [1.0], [1.0], [0.0]])
    model = from_linen(MLP((4,), 1, activation="tanh"))

    def error(params):
        return ((model.apply(params, {}, x)[0] - y) ** 2).mean()

    def train(key):
        params, _ = model.init(key, x)
        step = lambda _, p: jax.tree.map(lambda w, g: w - 0.3 * g, p, jax.grad(error)(p))
        return error(jax.lax.fori_loop(0, 3000, step, params))

    assert jax.jit(jax.vmap(train))(jax.random.split(KEY, 8)).max() < 0.01
