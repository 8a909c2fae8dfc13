"""Autoencoders and spectral normalisation equal PyTorch's, in double precision to 1e-9."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl.core import tree
from jdl.models import Autoencoder, ConvAutoencoder
from jdl.models.layers.spectral_norm import SpectralConv, SpectralDense
from tests.support.learners import KEY, doubled

torch = pytest.importorskip("torch", reason="PyTorch is not installed: the extra is `parity`")

TOLERANCE = {"rtol": 1e-9, "atol": 1e-12}
LAYERS = {
    "dense": (SpectralDense(6), (4, 9)),
    "convolution": (SpectralConv(5, (4, 4), strides=2), (2, 6, 6, 3)),
}


def torch_dense():
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(16, 3), torch.nn.ReLU(), torch.nn.Linear(3, 16),
        torch.nn.Unflatten(1, (1, 4, 4)),
    )  # fmt: skip


def torch_conv():
    return torch.nn.Sequential(
        # Of an even image a convolution of stride 2 with "SAME" sees zeros at the far ends only.
        torch.nn.ZeroPad2d((0, 1, 0, 1)), torch.nn.Conv2d(1, 2, 3, stride=2), torch.nn.ReLU(),
        torch.nn.Flatten(), torch.nn.Linear(8, 3), torch.nn.Linear(3, 8), torch.nn.ReLU(),
        torch.nn.Unflatten(1, (2, 2, 2)), torch.nn.ConvTranspose2d(2, 1, 4, stride=2, padding=1),
    )  # fmt: skip


# The jdl network, PyTorch's, and PyTorch's index of each jdl layer.
NETWORKS = {
    "dense": (
        Autoencoder(3, shape=(4, 4, 1)), torch_dense, {"encoder/output": 1, "decoder/output": 3},
    ),
    "convolutional": (
        ConvAutoencoder(3, (2,), (4, 4, 1)), torch_conv,
        {"encoder/conv_1": 1, "encoder/code": 4, "decoder/dense": 5, "decoder/output": 8},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_and_gradients_are_those_of_pytorch(name, x64):
    module, build, layers = NETWORKS[name]
    theirs, rng = build().double(), np.random.default_rng(0)
    x, target = rng.random((2, 5, 4, 4, 1))
    shapes = jax.eval_shape(module.init, KEY, x)["params"]
    flat = {}
    for layer, index in layers.items():
        for kind in ("kernel", "bias"):
            value = rng.normal(size=shapes[layer.split("/")[0]][layer.split("/")[1]][kind].shape)
            flat[f"{layer}/{kind}"] = jnp.asarray(value)
            with torch.no_grad():
                weight(theirs[index], kind).copy_(torch.tensor(to_torch(layer, value)))
    ours = jax.tree.map_with_path(lambda path, _: flat[tree.path(path)], shapes)

    def loss(params):
        return jnp.square(module.apply({"params": params}, x) - target).sum()

    value, grads = jax.jit(jax.value_and_grad(loss))(ours)
    wanted = theirs(torch.tensor(np.moveaxis(x, -1, 1)))
    wanted = (wanted - torch.tensor(np.moveaxis(target, -1, 1))).square().sum()
    wanted.backward()
    np.testing.assert_allclose(value, wanted.item(), **TOLERANCE)
    for path, grad in tree.flatten(grads).items():
        layer, _, kind = path.rpartition("/")
        theirs_grad = weight(theirs[layers[layer]], kind).grad.numpy()
        np.testing.assert_allclose(to_torch(layer, np.asarray(grad)), theirs_grad, **TOLERANCE)


def weight(layer, kind):
    return layer.weight if kind == "kernel" else layer.bias


def to_torch(layer, value):
    """A weight in PyTorch's layout, where images are flattened channels first."""
    if layer == "encoder/code" and value.ndim == 2:
        value = value.reshape(2, 2, 2, -1).transpose(2, 0, 1, 3).reshape(value.shape)
    if layer == "decoder/dense":
        value = np.moveaxis(value.reshape(-1, 2, 2, 2), -1, 1).reshape(value.shape)
    # (height, width, in, out) to (out, in, height, width); of a transposed one, in and out change
    # places on both sides.
    return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T


@pytest.mark.parametrize("name", LAYERS)
def test_spectral_layers_and_their_gradients_are_those_of_pytorch(name, x64):
    layer, shape = LAYERS[name]
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape)
    variables = doubled(jax.jit(layer.init)(KEY, jnp.asarray(x)))
    kernel = np.asarray(variables["params"]["kernel"])
    if name == "dense":
        plain = torch.nn.Linear(9, 6, dtype=torch.float64)
    else:
        plain = torch.nn.Conv2d(3, 5, 4, stride=2, padding=1, dtype=torch.float64)
    with torch.no_grad():
        plain.weight.copy_(torch.tensor(turned(kernel)))
        plain.bias.zero_()
    theirs = torch.nn.utils.parametrizations.spectral_norm(plain)
    memory = theirs.parametrizations.weight[0]
    left = np.asarray(variables["spectral"]["vector"])
    left = left if name == "dense" else left.reshape(4, 4, 3).transpose(2, 0, 1).ravel()
    memory._v = torch.tensor(left)

    def loss(params):
        out, after = layer.apply({**variables, "params": params}, x, mutable=["spectral"])
        return jnp.square(out - 1).sum(), after

    (value, after), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])
    wanted = (theirs.train()(torch.tensor(np.moveaxis(x, -1, 1))) - 1).square().sum()
    wanted.backward()
    np.testing.assert_allclose(value, wanted.item(), rtol=1e-9)
    grad = theirs.parametrizations.weight.original.grad.numpy()
    np.testing.assert_allclose(turned(np.asarray(grads["kernel"])), grad, rtol=1e-9, atol=1e-12)
    after = np.asarray(after["spectral"]["vector"])
    after = after if name == "dense" else after.reshape(4, 4, 3).transpose(2, 0, 1).ravel()
    np.testing.assert_allclose(after, memory._v.numpy(), rtol=1e-9, atol=1e-12)


def turned(kernel):
    """A kernel in PyTorch's layout."""
    return kernel.T if kernel.ndim == 2 else kernel.transpose(3, 2, 0, 1)
