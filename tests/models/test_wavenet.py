"""Causal convolutions: PyTorch's numbers, and a receptive field that the gradient confirms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdl.core import tree
from jdl.core.errors import InputError
from jdl.models import WaveNet, from_linen
from jdl.models.layers.causal_conv import CausalConv, receptive_field

KEY = jax.random.key(0)


@settings(max_examples=6, deadline=None)
@given(
    batch=st.integers(1, 3),
    steps=st.integers(1, 9),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    window=st.integers(1, 3),
    dilation=st.integers(1, 5),
)
def test_causal_convolution_is_pytorchs(batch, steps, channels, window, dilation):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: the extra is `parity`")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, steps, channels[0]))
    params = {"kernel": rng.normal(size=(window, *channels)), "bias": rng.normal(size=channels[1])}
    pull = rng.normal(size=(batch, steps, channels[1]))
    layer = CausalConv(channels[1], window, dilation)

    def loss(params, x):
        outputs = layer.apply({"params": params}, x)
        return (outputs * pull).sum(), outputs

    with jax.enable_x64(True):
        value_and_grad = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
        (_, ours), (grads, dx) = value_and_grad(params, x)

    theirs_x = torch.from_numpy(x).requires_grad_()
    kernel = torch.from_numpy(params["kernel"].transpose(2, 1, 0).copy()).requires_grad_()
    bias = torch.from_numpy(params["bias"]).requires_grad_()
    padded = torch.nn.functional.pad(theirs_x.transpose(1, 2), ((window - 1) * dilation, 0))
    theirs = torch.nn.functional.conv1d(padded, kernel, bias, dilation=dilation).transpose(1, 2)
    (theirs * torch.from_numpy(pull)).sum().backward()
    for one, other in (
        (ours, theirs.detach()),
        (dx, theirs_x.grad),
        (grads["kernel"], kernel.grad.permute(2, 1, 0)),
        (grads["bias"], bias.grad),
    ):
        assert one.dtype == np.float64
        np.testing.assert_allclose(one, other.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("window", "dilations"), [(3, (1, 3)), pytest.param(2, (1, 2, 4), marks=pytest.mark.slow)]
)
def test_the_gradient_ends_where_the_receptive_field_does(window, dilations):
    field, steps = receptive_field(window, dilations), 16
    assert field == 1 + (window - 1) * sum(dilations) < 12
    model = from_linen(WaveNet(4, 8, dilations, outputs=2, window=window))
    x = jax.random.normal(KEY, (1, steps, 2))
    params, _ = model.init(KEY, x)
    at = 13
    output = lambda x: (model.apply(params, {}, x)[0][0, at] * jnp.array([1.0, 0.7])).sum()
    reach = np.abs(jax.jit(jax.grad(output))(x)[0]).max(-1)
    seen = np.flatnonzero(reach)
    assert (seen.min(), seen.max()) == (at - field + 1, at)
    assert (reach[: at - field + 1] == 0).all() and (reach[at + 1 :] == 0).all()


def test_size_and_names():
    module = WaveNet(features=5, skip=7, dilations=(1, 2, 4), outputs=3, window=2)
    shape = jax.ShapeDtypeStruct((2, 9, 4), jnp.float32)
    params, _ = jax.eval_shape(from_linen(module).init, KEY, shape)
    each = 2 * (2 * 5 + 1) * 5 + (5 + 1) * 7
    assert tree.count(params) == 5 * 5 + 3 * each + 2 * 6 * 5 + 8 * 7 + 8 * 3
    assert {"input", "filter_gate_3", "residual_2", "skip_3", "hidden", "output"} <= set(params)
    assert "residual_3" not in params


def test_padding_is_not_looked_at():
    model = from_linen(WaveNet(3, 4, (2,), 2))
    x = np.random.default_rng(0).normal(size=(2, 6, 1)).astype("float32")
    mask, lengths = np.arange(6)[None] < np.array([[2], [6]]), jnp.array([2, 6])
    params, _ = model.init(KEY, (x, lengths))

    @jax.jit
    def grad(params, x):
        kept = lambda p, x: jnp.where(mask[..., None], model.apply(p, {}, (x, lengths))[0], 0)
        return jax.grad(lambda p, x: (kept(p, x) ** 2).sum(), (0, 1))(params, x)

    spoilt = grad(params, np.where(mask[..., None], x, np.nan))
    for one, other in zip(*map(jax.tree.leaves, (spoilt, grad(params, x))), strict=True):
        assert np.array_equal(one, other)
    assert (spoilt[1][~mask] == 0).all()


def test_windows_and_dilations_of_nothing_are_refused():
    with pytest.raises(InputError, match="window 0"):
        receptive_field(0, (1,))
    with pytest.raises(InputError, match=r"dilations \(1, 0\)"):
        WaveNet(2, 2, (1, 0)).init(KEY, jnp.zeros((1, 3, 1)))
