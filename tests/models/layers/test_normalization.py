"""Normalisations: what each looks at, and their names."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jdl.core.errors import InputError
from jdl.models import CNN, from_linen
from jdl.models.layers.normalization import DEFAULT_GROUPS, NORMS, GroupNorm, LayerNorm, norm
from jdl.models.layers.primitives import BatchNorm

KEY = jax.random.key(0)
# Far from zero and of unequal size in every example and channel.
X = np.random.default_rng(0).normal(3, 2, (4, 5, 6, 16)).astype(np.float32)
AXES = {"batch": (0, 1, 2), "layer": (1, 2, 3), "instance": (1, 2)}


class Normed(nn.Module):
    """The named normalisation alone, in training."""

    kind: str

    @nn.compact
    def __call__(self, x):
        return norm(self.kind, train=True, name="norm")(x)


def outputs(kind):
    return np.asarray(Normed(kind).init_with_output(KEY, X)[0])


@pytest.mark.parametrize("kind", AXES)
def test_mean_zero_and_variance_one_over_its_own_axes(kind):
    y = outputs(kind)
    np.testing.assert_allclose(y.mean(AXES[kind]), 0, atol=1e-5)
    np.testing.assert_allclose(y.var(AXES[kind]), 1, atol=1e-3)
    for other, axes in AXES.items():
        if set(axes) < set(AXES[kind]):
            assert np.abs(y.mean(axes)).max() > 0.05, other


def test_group_norm_takes_eight_groups():
    y = outputs("group").reshape(4, 5, 6, DEFAULT_GROUPS, 2)
    np.testing.assert_allclose(y.mean((1, 2, 4)), 0, atol=1e-5)
    np.testing.assert_allclose(y.var((1, 2, 4)), 1, atol=1e-3)


def test_groups_are_not_added_up_few_channels_at_a_time():
    """XLA on CPU does that pixel by pixel; Flax's layer asks for it."""

    def sums(module):
        params = jax.eval_shape(module.init, KEY, X)
        total = jax.grad(lambda params, x: (module.apply(params, x) ** 2).sum(), (0, 1))
        text = jax.jit(total).lower(params, X).compile().as_text()
        return [found.count(",") for found in re.findall(r" reduce\(.*?dimensions={(.*?)}", text)]

    assert max(sums(GroupNorm(8))) <= 1
    assert max(sums(nn.GroupNorm(8, use_fast_variance=False))) == 2


def test_a_large_mean_costs_no_digits():
    """The variance is taken after the mean is subtracted: not as E[x²] - E[x]²."""
    x = np.random.default_rng(0).normal(0, 1, (4, 64))
    far = (x + 3000).astype(np.float32)
    y = LayerNorm().init_with_output(KEY, far)[0]
    exact = far.astype(np.float64)
    exact = (exact - exact.mean(1, keepdims=True)) / exact.std(1, keepdims=True)
    np.testing.assert_allclose(y, exact, atol=1e-3)


def test_batch_norm_far_from_zero():
    draws = np.random.default_rng(0).normal(1000, 0.1, (256, 4)).astype(np.float32)
    layer = BatchNorm(use_running_average=False, momentum=0.0)
    y, variables = layer.init_with_output(KEY, draws)
    exact = draws.astype(np.float64)
    expected = (exact - exact.mean(0)) / np.sqrt(exact.var(0) + layer.epsilon)
    np.testing.assert_allclose(y, expected, atol=3e-3)
    _, after = layer.apply(variables, draws, mutable=["batch_stats"])
    np.testing.assert_allclose(after["batch_stats"]["var"], exact.var(0), rtol=1e-3)


@pytest.mark.parametrize("kind", NORMS)
def test_every_norm_in_a_cnn(kind):
    model = from_linen(CNN((3, 6), (), 2, norm=kind))
    images = jax.ShapeDtypeStruct((2, 12, 12, 1), jnp.float32)
    params, model_state = jax.eval_shape(model.init, KEY, images)
    layer = f"{kind}_norm_2"
    assert (layer in params) == (kind != "none")
    assert ("bias" in params["conv_1"]) == (kind == "none")
    assert bool(model_state) == (kind == "batch")
    if kind != "none":
        assert params[layer]["scale"].shape == (6,)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [k for k in NORMS if k != "batch"])
def test_only_batch_norm_looks_at_other_examples(kind):
    model = from_linen(CNN((8,), (), 2, norm=kind))
    x = jax.random.normal(KEY, (3, 6, 6, 1))
    params, model_state = model.init(KEY, x)
    others = x.at[1:].mul(-5.0)
    one, two = (model.apply(params, model_state, x, train=True)[0] for x in (x, others))
    np.testing.assert_array_equal(one[:1], two[:1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: GroupNorm(3).init(KEY, x), r"(?s)divides the 16 channels.*got: +3"),
        (lambda x: GroupNorm(12).init(KEY, x), r"(?s)got: +12.*fix: +pass num_groups=4"),
        (lambda x: GroupNorm(0).init(KEY, x), r"(?s)got: +0.*fix: +pass num_groups=1"),
        (lambda x: CNN(norm="grop").init(KEY, x), 'did you mean "group"'),
    ],
)
def test_errors(make, message):
    with pytest.raises(InputError, match=message):
        make(X)
