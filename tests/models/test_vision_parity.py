"""Convolutions, pools, normalisations and blocks equal PyTorch's, to 1e-9 in double precision.

PyTorch's side keeps jdl's layout of the weights and permutes inside, so the gradients compare as
they are.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from jdl.core import tree
from jdl.models import VGG, AlexNet, DenseNet, ResNet, from_linen
from jdl.models.densenet import DenseBlock
from jdl.models.googlenet import Inception
from jdl.models.layers import primitives
from jdl.models.layers.normalization import GroupNorm, InstanceNorm, LayerNorm, norm
from jdl.models.resnet import ResidualBlock

torch = pytest.importorskip("torch", reason="PyTorch is not installed: the extra is `parity`")
F = torch.nn.functional

SIZES = st.tuples(st.integers(2, 3), st.integers(5, 8), st.integers(5, 8), st.integers(1, 3))
few = settings(max_examples=4, deadline=None, derandomize=True)


def nested(flat):
    result = {}
    for path, value in flat.items():
        *folders, name = path.split("/")
        place = result
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = value
    return result


def agree(module, theirs, shape, train=True):
    """Outputs, the gradients of inputs and parameters, and the running statistics."""
    rng = np.random.default_rng(sum(shape))
    x = rng.normal(size=shape)
    with jax.enable_x64(True):
        model = from_linen(module)
        shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.asarray(x))
        # Random scales, biases and running variances, all of them positive.
        params, model_state = jax.tree.map_with_path(
            lambda path, leaf: (
                rng.uniform(0.2, 1.5, leaf.shape)
                if tree.path(path).endswith(("scale", "var"))
                else rng.normal(scale=0.4, size=leaf.shape)
            ),
            shapes,
        )
        y_shape = jax.eval_shape(model.apply, params, model_state, jnp.asarray(x))[0].shape
        weight = rng.normal(size=y_shape)

        @jax.jit
        def ours(params, x):
            y, after = model.apply(params, model_state, x, key=jax.random.key(0), train=train)
            return (y * weight).sum(), (y, after)

        (_, (y, after)), grads = jax.value_and_grad(ours, (0, 1), has_aux=True)(params, x)

    def tensors(values, grad):
        return {
            path: torch.tensor(np.asarray(value), requires_grad=grad)
            for path, value in tree.flatten(values).items()
        }

    flat, seen = tensors(params, True), tensors(model_state.get("batch_stats", {}), False)
    images = torch.tensor(x, requires_grad=True)
    out = theirs(nested(flat), nested(seen), images.permute(0, 3, 1, 2), train)
    out = out.permute(0, 2, 3, 1) if out.ndim == 4 else out
    (out * torch.tensor(weight)).sum().backward()
    close(y, out.detach())
    close(grads[1], images.grad)
    for path, value in tree.flatten(grads[0]).items():
        close(value, flat[path].grad, path)
    return tree.flatten(model_state), tree.flatten(jax.tree.map(np.asarray, after)), seen


def close(ours, theirs, name=""):
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-11, err_msg=name)


def conv(p, x, stride=1, padding=0):
    return F.conv2d(x, p["kernel"].permute(3, 2, 0, 1), p.get("bias"), stride, padding)


def batch_norm(p, s, x, train):
    return F.batch_norm(x, s["mean"], s["var"], p["scale"], p["bias"], train, 0.1, 1e-5)


def unit(p, s, x, train, stride=1):
    window = p["conv"]["kernel"].shape[0]
    return batch_norm(p["norm"], s["norm"], conv(p["conv"], x, stride, window // 2), train)


def residual(p, s, x, train, stride):
    """A residual block; its first 3x3 convolution has the stride."""
    y = x
    for name in ("unit_1", "unit_2"):
        if name in p:
            own = stride if p[name]["conv"]["kernel"].shape[0] == 3 else 1
            y = F.relu(unit(p[name], s[name], y, train, own))
    y = unit(p["last"], s["last"], y, train)
    short = unit(p["shortcut"], s["shortcut"], x, train, stride) if "shortcut" in p else x
    return F.relu(y + short)


def norm_conv(p, s, x, train):
    x = F.relu(batch_norm(p["norm"], s["norm"], x, train))
    return conv(p["conv"], x, 1, p["conv"]["kernel"].shape[0] // 2)


def dense_block(p, s, x, train):
    for index in range(1, 1 + len(p) // 2):
        y = norm_conv(p[f"reduce_{index}"], s[f"reduce_{index}"], x, train)
        y = norm_conv(p[f"grow_{index}"], s[f"grow_{index}"], y, train)
        x = torch.cat([x, y], 1)
    return x


def dense(p, x):
    return x @ p["kernel"] + p["bias"]


@few
@given(SIZES, st.sampled_from([(1, 1, 0), (3, 2, 1), (5, 1, 2), (4, 3, 0)]))
@pytest.mark.slow
def test_convolution(shape, form):
    window, stride, padding = form

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return primitives.conv(3, window, stride=stride, padding=padding, name="conv")(x)

    agree(Net(), lambda p, s, x, train: conv(p["conv"], x, stride, padding), shape)


POOLS = {
    "max": (primitives.MaxPool(3, 2), lambda x: F.max_pool2d(x, 3, 2)),
    "max, padded": (
        primitives.MaxPool(3, 2, ((1, 1), (1, 1))),
        lambda x: F.max_pool2d(x, 3, 2, padding=1),
    ),
    "max, windows": (primitives.MaxPool(2), lambda x: F.max_pool2d(x, 2)),
    "mean": (primitives.AvgPool(3, 2), lambda x: F.avg_pool2d(x, 3, 2)),
    "mean, padded": (
        primitives.AvgPool(3, 2, ((1, 1), (1, 1))),
        lambda x: F.avg_pool2d(x, 3, 2, padding=1),
    ),
    "mean, windows": (primitives.AvgPool(2), lambda x: F.avg_pool2d(x, 2)),
    "adaptive": (primitives.AdaptiveAvgPool(3), lambda x: F.adaptive_avg_pool2d(x, 3)),
    "adaptive, larger": (primitives.AdaptiveAvgPool(9), lambda x: F.adaptive_avg_pool2d(x, 9)),
    "adaptive, one": (primitives.AdaptiveAvgPool(1), lambda x: F.adaptive_avg_pool2d(x, 1)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", POOLS)
@settings(few, max_examples=2)
@given(SIZES)
def test_pools(name, shape):
    module, theirs = POOLS[name]
    agree(module, lambda p, s, x, train: theirs(x), shape)


def over_channels(p, s, x, train):
    x = x.permute(0, 2, 3, 1)
    return F.layer_norm(x, x.shape[-1:], p["scale"], p["bias"], 1e-5).permute(0, 3, 1, 2)


NORMS = {
    "layer": (LayerNorm(), over_channels),
    "instance": (
        InstanceNorm(),
        lambda p, s, x, train: F.instance_norm(x, None, None, p["scale"], p["bias"], eps=1e-5),
    ),
    "group": (
        GroupNorm(2),
        lambda p, s, x, train: F.group_norm(x, 2, p["scale"], p["bias"], 1e-5),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", NORMS)
@settings(few, max_examples=2)
@given(SIZES)
def test_norms_of_single_examples(name, train, shape):
    module, theirs = NORMS[name]
    agree(module, theirs, (*shape[:3], 2 * shape[3]), train)


class Normed(nn.Module):
    """The named normalisation alone."""

    kind: str

    @nn.compact
    def __call__(self, x, train=False):
        return norm(self.kind, train=train, name="norm")(x)


@settings(few, max_examples=3)
@given(SIZES)
def test_batch_norm_and_its_running_statistics(shape):
    theirs = lambda p, s, x, train: batch_norm(p["norm"], s["norm"], x, train)
    before, after, seen = agree(Normed("batch"), theirs, shape)
    n = shape[0] * shape[1] * shape[2]
    close(after["batch_stats/norm/mean"], seen["norm/mean"])
    # PyTorch moves its running variance towards the unbiased one.
    old, new = before["batch_stats/norm/var"], after["batch_stats/norm/var"]
    close(0.9 * old + (new - 0.9 * old) * n / (n - 1), seen["norm/var"])
    before, after, seen = agree(Normed("batch"), theirs, shape, train=False)
    for name in ("mean", "var"):
        np.testing.assert_array_equal(
            after[f"batch_stats/norm/{name}"], before[f"batch_stats/norm/{name}"]
        )


@pytest.mark.slow
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    ("block", "channels"),
    [
        (ResidualBlock(2), 2),
        (ResidualBlock(4, stride=2), 2),
        (ResidualBlock(2, stride=2, bottleneck=True), 3),
    ],
    ids=["identity", "projected", "bottleneck"],
)
def test_residual_block(block, channels, train):
    theirs = lambda p, s, x, train: residual(p, s, x, train, block.stride)
    agree(block, theirs, (3, 5, 6, channels), train)


@pytest.mark.slow
@pytest.mark.parametrize("train", [True, False])
def test_dense_block(train):
    agree(DenseBlock(2, growth=2), dense_block, (3, 4, 5, 3), train)


@pytest.mark.slow
@pytest.mark.parametrize("train", [True, False])
def test_whole_resnet(train):
    def theirs(p, s, x, train):
        x = F.relu(unit(p["stem"]["unit"], s["stem"]["unit"], x, train, 2))
        x = F.max_pool2d(x, 3, 2, padding=1)
        for name, stride in (("stage_1_block_1", 1), ("stage_2_block_1", 2)):
            x = residual(p[name], s[name], x, train, stride)
        return dense(p["output"], x.mean((2, 3)))

    agree(ResNet((1, 1), features=2, classes=3), theirs, (2, 14, 12, 3), train)


@pytest.mark.slow
@pytest.mark.parametrize("train", [True, False])
def test_whole_densenet(train):
    def theirs(p, s, x, train):
        x = F.relu(unit(p["stem"]["unit"], s["stem"]["unit"], x, train))
        x = dense_block(p["block_1"], s["block_1"], x, train)
        x = F.avg_pool2d(norm_conv(p["transition_1"], s["transition_1"], x, train), 2)
        x = dense_block(p["block_2"], s["block_2"], x, train)
        x = F.relu(batch_norm(p["norm"], s["norm"], x, train))
        return dense(p["output"], x.mean((2, 3)))

    net = DenseNet((1, 2), growth=2, features=4, classes=3, stem="small")
    agree(net, theirs, (2, 5, 6, 2), train)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["alexnet", "vgg"])
def test_whole_networks_with_dense_layers(name):
    def alexnet(p, s, x, train):
        x = F.max_pool2d(F.relu(conv(p["conv_1"], x, 2, 2)), 3, 2)
        x = F.adaptive_avg_pool2d(F.relu(conv(p["conv_2"], x, 1, 1)), 2)
        return ends(p, x)

    def vgg(p, s, x, train):
        for stage in (1, 2):
            kernels = p[f"stage_{stage}_unit_1"]["conv"]
            x = F.max_pool2d(F.relu(conv(kernels, x, 1, 1)), 2)
        return ends(p, F.adaptive_avg_pool2d(x, 2))

    def ends(p, x):
        # Channels last, as jdl flattens them.
        hidden = F.relu(dense(p["dense_1"], x.permute(0, 2, 3, 1).flatten(1)))
        return dense(p["output"], hidden)

    net, theirs = {
        "alexnet": (AlexNet((3, 4), (5, 3), 2, (1,), (5,), 2, classes=3, dropout=0.0), alexnet),
        "vgg": (VGG(((3,), (4,)), (5,), 2, classes=3, dropout=0.0), vgg),
    }[name]
    agree(net, theirs, (2, 13, 14, 3))


@pytest.mark.slow
def test_inception_module():
    def theirs(p, s, x, train):
        def run(name, x):
            return F.relu(unit(p[name], s[name], x, train))

        pooled = F.max_pool2d(x, 3, 1, padding=1)
        branches = [
            run("one", x),
            run("three", run("three_reduce", x)),
            run("large", run("large_reduce", x)),
            run("pool_project", pooled),
        ]
        return torch.cat(branches, 1)

    agree(Inception((2, 3, 2, 1, 2, 3), window=5), theirs, (3, 5, 4, 2))
