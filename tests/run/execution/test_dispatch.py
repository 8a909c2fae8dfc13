"""How many steps a dispatch takes, from the traced step alone."""

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import linen as nn
from jax import lax

import jdl
from jdl.models.layers import primitives as layers
from jdl.models.layers.convolution import convolution
from jdl.run.execution.dispatch import MAX_STEPS_PER_DISPATCH, DispatchMode, dispatch_mode, holds


def ones(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def theirs(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=NUMBERS)


def ours(x, kernel):
    return convolution(x, kernel, (1, 1), "SAME")


NUMBERS = ("NHWC", "HWIO", "NHWC")
X, KERNEL = ones(2, 8, 8, 4), ones(3, 3, 4, 4)


def step_of(network, *shape):
    learner = jdl.learner(jdl.classification(jdl.from_linen(network)), optax.adam(1e-3))
    batch = {"x": ones(*shape), "y": ones(shape[0], dtype=jnp.int32)}
    state = jax.eval_shape(learner.init, jax.random.key(0), batch)
    return jax.make_jaxpr(learner.step)(state, batch)


class Stranger(nn.Module):
    """A convolutional network that knows nothing of jdl."""

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(10)(nn.relu(nn.Conv(4, (3, 3))(x)).reshape(len(x), -1))


class Grouped(nn.Module):
    """One of jdl's own convolutions that is left to XLA on every platform."""

    @nn.compact
    def __call__(self, x, train=False):
        x = layers.Conv(4, (3, 3), padding="SAME", feature_group_count=4)(x)
        return nn.Dense(10)(x.reshape(len(x), -1))


def test_a_step_of_products_goes_into_a_loop():
    step = step_of(jdl.models.MLP((8,), 10), 4, 16)
    assert (
        dispatch_mode(step, "cpu") == dispatch_mode(step, "gpu") == ("loop", MAX_STEPS_PER_DISPATCH)
    )


@pytest.mark.parametrize("network", [Stranger(), Grouped()])
def test_a_convolution_of_xla_keeps_a_step_out_of_the_loop_on_cpu_alone(network):
    step = step_of(network, 4, 8, 8, 4)
    assert dispatch_mode(step, "cpu").kind == "step"
    assert [dispatch_mode(step, name).kind for name in ("gpu", "cuda", "tpu")] == ["loop"] * 3


@pytest.mark.parametrize(
    ("network", "size"),
    [
        (jdl.models.CNN((4, 4), (8,), 10, padding="SAME"), 8),
        (jdl.models.CNN((4,), (8,), 10, norm="batch"), 8),
        (jdl.models.VGG(((4, 4), (8,)), hidden=(8,), pooled=2, classes=10), 8),
        (jdl.models.ResNet((1, 1), 4, classes=10, stem="small", shortcut="pad"), 8),
    ],
)
def test_the_networks_of_jdl_hold_none_on_cpu(network, size):
    step = step_of(network, 4, size, size, 3)
    assert dispatch_mode(step, "cpu").kind == "loop"
    assert holds(step, "conv_general_dilated", "gpu")  # where it is XLA's that is fast


def test_what_wraps_a_step_hides_nothing():
    """Many members, an average, the guard and the window of `fit`, recomputation, a scan."""
    for network, mode in ((Stranger(), "step"), (jdl.models.CNN((4,), (), 10), "loop")):
        inner = jdl.learner(jdl.classification(jdl.from_linen(network)), optax.adam(1e-3))
        batch = {"x": ones(4, 8, 8, 4), "y": ones(4, dtype=jnp.int32)}
        for learner in (
            jdl.ensemble(inner, 2),
            jdl.ema(inner, 0.9),
            jdl.ema(jdl.ensemble(inner, 2), 0.9),
        ):
            state = jax.eval_shape(learner.init, jax.random.key(0), batch)
            assert dispatch_mode(jax.make_jaxpr(learner.step)(state, batch), "cpu").kind == mode
    for form, mode in ((theirs, "step"), (ours, "loop")):

        def again(x, kernel, form=form):
            return lax.fori_loop(0, 3, lambda _, x: jax.checkpoint(jax.jit(form))(x, kernel), x)

        def gradient(x, kernel, again=again):
            return jax.grad(lambda k: again(x, k).sum())(kernel)

        for function in (again, gradient):
            assert dispatch_mode(jax.make_jaxpr(function)(X, KERNEL), "cpu").kind == mode


def test_a_branch_that_may_be_taken_counts():
    def maybe(x, kernel):
        return lax.cond(x.sum() > 0, lambda: theirs(x, kernel), lambda: x)

    assert dispatch_mode(jax.make_jaxpr(maybe)(X, KERNEL), "cpu").kind == "step"


def test_a_platform_has_its_own_branch():
    def named(x, kernel):
        return lax.platform_dependent(x, kernel, cpu=theirs, cuda=lambda x, k: x)

    step = jax.make_jaxpr(named)(X, KERNEL)
    assert holds(step, "conv_general_dilated", "cpu")
    assert not holds(step, "conv_general_dilated", "gpu")
    assert not holds(step, "conv_general_dilated", "cuda")


def test_larger_steps_are_fewer_and_at_least_one():
    counts = []
    for width in (64, 2048, 16_384, 2**20):
        step = jax.make_jaxpr(lambda x, w: x @ w)(ones(256, width), ones(width, width))
        counts.append(dispatch_mode(step, "cpu").steps)
    assert counts[0] == MAX_STEPS_PER_DISPATCH > counts[1] > counts[2] >= counts[3] == 1
    assert isinstance(dispatch_mode(step, "cpu"), DispatchMode)


def test_a_long_scan_of_small_steps_takes_its_time():
    def turns(x, w, n):
        return lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, length=n)[0]

    steps = [
        dispatch_mode(jax.make_jaxpr(turns, static_argnums=2)(ones(1, 4), ones(4, 4), n), "cpu")
        for n in (10, 10_000, 10**7)
    ]
    assert steps[0].steps == MAX_STEPS_PER_DISPATCH > steps[1].steps > steps[2].steps == 1


def test_an_unknown_platform_is_treated_as_an_accelerator():
    step = jax.make_jaxpr(theirs)(X, KERNEL)
    assert dispatch_mode(step, "quantum") == dispatch_mode(step, "tpu")


def test_a_step_that_computes_nothing_has_a_mode_too():
    step = jax.make_jaxpr(lambda w: w)(ones(3))
    assert dispatch_mode(step, "cpu") == ("loop", MAX_STEPS_PER_DISPATCH)
