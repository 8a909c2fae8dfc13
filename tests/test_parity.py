"""Networks, gradients and optimizer steps equal PyTorch's, in double precision to 1e-9."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdl import tasks
from jdl.core import tree
from jdl.models import CNN, MLP, from_linen

torch = pytest.importorskip("torch", reason="PyTorch is not installed: the extra is `parity`")

TOLERANCE = {"rtol": 1e-9, "atol": 1e-12}


def torch_mlp():
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(12, 7), torch.nn.Tanh(), torch.nn.Linear(7, 5),
        torch.nn.Tanh(), torch.nn.Linear(5, 3),
    )  # fmt: skip


def torch_cnn():
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(4, 6, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Flatten(), torch.nn.Linear(6 * 2 * 3, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3),
    )  # fmt: skip


# The jdl network, PyTorch's, the shape of the image and of what is flattened, and PyTorch's index
# of each jdl layer. The CNN's sizes are uneven: pooling drops rows and a wrong order would show.
NETWORKS = {
    "mlp": (
        MLP((7, 5), 3, activation="tanh"), torch_mlp, (3, 2, 2), (3, 2, 2),
        {"dense_1": 1, "dense_2": 3, "output": 5},
    ),
    "cnn": (
        CNN((4, 6), (5,), 3), torch_cnn, (16, 19, 2), (2, 3, 6),
        {"conv_1": 0, "conv_2": 3, "dense_1": 7, "output": 9},
    ),
}  # fmt: skip

OPTIMIZERS = {
    "sgd": (lambda: optax.sgd(0.1), lambda p: torch.optim.SGD(p, 0.1)),
    "momentum": (
        lambda: optax.sgd(0.1, momentum=0.9),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
    ),
    "nesterov": (
        lambda: optax.sgd(0.1, momentum=0.9, nesterov=True),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    ),
    "adam": (lambda: optax.adam(0.01), lambda p: torch.optim.Adam(p, 0.01)),
    "adamw": (
        lambda: optax.adamw(0.01, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1),
    ),
    # optax adds epsilon inside the root by default, PyTorch outside.
    "rmsprop": (
        lambda: optax.rmsprop(0.01, decay=0.99, eps=1e-8, eps_in_sqrt=False),
        lambda p: torch.optim.RMSprop(p, 0.01, alpha=0.99, eps=1e-8),
    ),
}


def for_torch(images):
    """(batch, height, width, channels) to (batch, channels, height, width)."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 1)))


def to_jdl(name, value, flattened, layers):
    """A PyTorch weight (or its gradient) in jdl's layout.

    Dense weights are transposed, kernels go from (out, in, height, width) to (height, width, in,
    out), and the rows of the first dense layer from channels first to channels last.
    """
    index, kind = name.split(".")
    layer = next(ours for ours, theirs in layers.items() if theirs == int(index))
    value = value.detach().numpy()
    if kind == "bias":
        return f"{layer}/bias", value
    if value.ndim == 4:
        return f"{layer}/kernel", value.transpose(2, 3, 1, 0)
    if layer == "dense_1":
        height, width, channels = flattened
        value = value.reshape(len(value), channels, height, width).transpose(0, 2, 3, 1)
        value = value.reshape(len(value), -1)
    return f"{layer}/kernel", value.T


class Pair:
    """One network in both libraries with the same weights, and a batch."""

    def __init__(self, name):
        module, build, shape, self.flattened, self.layers = NETWORKS[name]
        rng = np.random.default_rng(0)
        self.theirs = build().double()
        with torch.no_grad():
            for weight in self.theirs.parameters():
                weight.copy_(torch.from_numpy(rng.normal(scale=0.3, size=tuple(weight.shape))))
        x = rng.normal(size=(9, *shape))
        y = rng.integers(0, 3, 9)
        self.value_and_grad = jax.jit(jax.value_and_grad(self.loss))
        self.task = tasks.classification(from_linen(module))
        self.batch = {"x": jnp.asarray(x), "y": jnp.asarray(y)}
        self.torch_batch = for_torch(x), torch.from_numpy(y)
        shapes, _ = jax.eval_shape(self.task.init, jax.random.key(0), self.batch)
        flat = self.read(lambda weight: weight)
        self.start = {name: w.clone() for name, w in self.theirs.state_dict().items()}
        self.params = jax.tree.map_with_path(lambda p, w: jnp.asarray(flat[tree.path(p)]), shapes)

    def read(self, of):
        return dict(
            to_jdl(name, of(weight), self.flattened, self.layers)
            for name, weight in self.theirs.named_parameters()
        )

    def torch_loss(self):
        x, y = self.torch_batch
        return torch.nn.functional.cross_entropy(self.theirs(x), y)

    def loss(self, params):
        return self.task.loss(params, {}, self.batch, None, train=True)[0].value


compiled = functools.cache(Pair)


@pytest.fixture(params=NETWORKS)
def pair(request, x64):
    pair = compiled(request.param)
    pair.theirs.load_state_dict(pair.start)
    pair.theirs.zero_grad()
    return pair


def compare(ours, theirs):
    ours = tree.flatten(ours)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value.dtype == np.float64
        np.testing.assert_allclose(value, theirs[name], **TOLERANCE, err_msg=name)


def test_outputs(pair):
    ours = pair.task.predict(pair.params, {}, pair.batch)
    np.testing.assert_allclose(ours, pair.theirs(pair.torch_batch[0]).detach(), **TOLERANCE)


def test_loss_and_every_gradient(pair):
    value, grads = pair.value_and_grad(pair.params)
    loss = pair.torch_loss()
    loss.backward()
    np.testing.assert_allclose(value, loss.item(), **TOLERANCE)
    compare(grads, pair.read(lambda weight: weight.grad))
    assert all(np.abs(grad).max() > 1e-6 for grad in jax.tree.leaves(grads))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_of_optimizers(pair, name):
    make, make_theirs = OPTIMIZERS[name]
    tx, theirs = make(), make_theirs(pair.theirs.parameters())

    @jax.jit
    def step(grads, params, opt_state):
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    params, opt_state = pair.params, tx.init(pair.params)
    for _ in range(5):
        params, opt_state = step(pair.value_and_grad(params)[1], params, opt_state)
        theirs.zero_grad()
        pair.torch_loss().backward()
        theirs.step()
    compare(params, pair.read(lambda weight: weight))
    moved = max(
        np.abs(a - b).max()
        for a, b in zip(*map(jax.tree.leaves, (params, pair.params)), strict=True)
    )
    assert moved > 1e-3


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_300_noisy_steps_of_optimizers(name, x64):
    """On a quadratic bowl with noise in every gradient: the whole path is compared."""
    make, make_theirs = OPTIMIZERS[name]
    rng = np.random.default_rng(3)
    start, curvature = rng.normal(size=20), rng.uniform(0.1, 2, 20)
    noise = rng.normal(size=(300, 20))
    tx = make()

    def step(carry, noise):
        w, state = carry
        updates, state = tx.update(curvature * w + noise, state, w)
        w = optax.apply_updates(w, updates)
        return (w, state), w

    w = jnp.asarray(start)
    _, path = jax.jit(lambda w: jax.lax.scan(step, (w, tx.init(w)), jnp.asarray(noise)))(w)
    theirs = torch.tensor(start, requires_grad=True)
    optimizer, followed = make_theirs([theirs]), []
    for row in noise:
        theirs.grad = torch.from_numpy(curvature * theirs.detach().numpy() + row)
        optimizer.step()
        followed.append(theirs.detach().numpy().copy())
    np.testing.assert_allclose(path, followed, rtol=1e-9, atol=1e-11)
    assert np.abs(path[-1] - start).max() > 0.1


def test_epsilon_inside_the_root_would_be_seen(x64):
    """The negative control: with optax's default the comparison above fails."""
    grads = {"w": jnp.full(1, 1e-3)}
    inside, outside = (
        optax.rmsprop(0.01, decay=0.99, eps=1e-8, eps_in_sqrt=flag) for flag in (True, False)
    )
    one, two = (tx.update(grads, tx.init(grads), grads)[0]["w"][0] for tx in (inside, outside))
    assert abs(one / two - 1) > 1e-3
