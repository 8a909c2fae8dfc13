"""The arithmetic of programs, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

import jdl
from jdl.core.flops import Flops, flops, of_jaxpr
from jdl.models.layers.convolution import convolution


def ones(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_a_product_with_batch_axes():
    assert flops(jnp.matmul, ones(7, 2, 3), ones(7, 3, 5)) == Flops(2 * 7 * 2 * 3 * 5)


def test_a_scan_counts_each_turn():
    def turns(a, b):
        return lax.fori_loop(0, 9, lambda _, x: x @ b, a)

    one = 2 * 2 * 3 * 3
    assert flops(turns, ones(2, 3), ones(3, 3)) == Flops(9 * one)
    # The compiler's own number, for the same program: one turn, whatever their number.
    compiled = jax.jit(turns).lower(ones(2, 3), ones(3, 3)).compile().cost_analysis()
    assert compiled["flops"] < 2 * one


def test_a_loop_of_unknown_length_counts_once_and_says_so():
    def turns(a, b, n):
        return lax.fori_loop(0, n, lambda _, x: x @ b, a)

    n = jax.ShapeDtypeStruct((), jnp.int32)
    assert flops(turns, ones(2, 3), ones(3, 3), n) == Flops(36, ("while",))


def test_the_dearest_branch_and_what_has_no_formula():
    def branches(a, b, yes):
        return lax.cond(yes, lambda: a @ b @ b, lambda: a + jnp.fft.fft(a).real)

    yes = jax.ShapeDtypeStruct((), jnp.bool_)
    assert flops(branches, ones(2, 3), ones(3, 3), yes) == Flops(2 * 36, ("fft",))


def test_rematerialised_products_count_twice():
    def loss(a, b):
        return jnp.sum(jnp.sin(jnp.sin(a @ b) @ b))

    a, b = ones(3, 3), ones(3, 3)
    plain = flops(jax.grad(loss), a, b).count
    again = flops(jax.grad(jax.checkpoint(loss)), a, b).count
    assert plain == 4 * 54 and again > plain


def test_every_device_of_a_mapped_program_counts():
    mesh = jdl.mesh(data=4)

    def both(a, b):
        return jax.shard_map(jnp.matmul, mesh=mesh, in_specs=(P("data"), P()), out_specs=P("data"))(
            a, b
        )

    assert flops(both, ones(8, 3), ones(3, 5)) == Flops(2 * 8 * 3 * 5)


def by_hand(x, kernel, strides, padding):
    """Multiply-adds of a convolution, counted by convolving ones: an image of how many meet."""
    ones_, taps = np.ones(x, np.float32), np.ones(kernel, np.float32)
    out = lax.conv_general_dilated(
        ones_, taps, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return 2 * int(out.sum())


@pytest.mark.parametrize("strides", [(1, 1), (2, 3)])
@pytest.mark.parametrize("padding", ["VALID", "SAME"])
@pytest.mark.parametrize("form", ["xla", "by platform"])
def test_a_convolution_and_its_gradients(strides, padding, form):
    x, kernel = (2, 8, 7, 3), (3, 2, 3, 5)
    numbers = ("NHWC", "HWIO", "NHWC")

    def run(x, k):
        if form == "xla":
            return lax.conv_general_dilated(x, k, strides, padding, dimension_numbers=numbers)
        return convolution(x, k, strides, padding)

    forward = by_hand(x, kernel, strides, padding)
    assert flops(run, ones(*x), ones(*kernel)) == Flops(forward)
    gradients = jax.grad(lambda x, k: jnp.sum(run(x, k) ** 2), (0, 1))
    assert flops(gradients, ones(*x), ones(*kernel)) == Flops(3 * forward)
    within = jax.grad(lambda x, k: jnp.sum(jax.jit(run)(x, k) ** 2), (0, 1))
    assert flops(jax.jit(within), ones(*x), ones(*kernel)) == Flops(3 * forward)


def test_a_grouped_convolution():
    def run(x, k):
        return lax.conv_general_dilated(
            x, k, (1, 1), "VALID", feature_group_count=2, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    one = 2 * 2 * 6 * 6 * 9 * 3 * 4  # places, window, inputs of a group, outputs
    assert flops(run, ones(2, 8, 8, 6), ones(3, 3, 3, 4)) == Flops(one)
    gradients = jax.grad(lambda x, k: jnp.sum(run(x, k) ** 2), (0, 1))
    assert flops(gradients, ones(2, 8, 8, 6), ones(3, 3, 3, 4)) == Flops(3 * one)


def step_flops(learner, batch):
    state = jax.eval_shape(learner.init, jax.random.key(0), batch)
    return flops(learner.step, state, batch)


def test_the_step_of_a_dense_network():
    model = jdl.from_linen(jdl.models.MLP(features=(32, 16), outputs=4))
    learner = jdl.learner(jdl.classification(model), optax.adam(1e-3))
    batch = {"x": np.ones((10, 8), np.float32), "y": np.zeros(10, np.int32)}
    first, rest = 8 * 32, 32 * 16 + 16 * 4
    # Forward and the weights' gradient for all, the inputs' gradient for all but the first.
    assert step_flops(learner, batch) == Flops(2 * 10 * (2 * first + 3 * rest))


def test_the_step_of_a_decoder():
    c = {"vocabulary": 11, "context": 8, "blocks": 2, "heads": 2, "width": 12}
    model = jdl.from_linen(jdl.models.Decoder(**c))
    learner = jdl.learner(jdl.tasks.language_model(model), optax.adam(1e-3))
    batch = {"x": np.zeros((5, 9), np.int32)}
    tokens, d = 5 * 8, 12
    block = 12 * d * d + 2 * 8 * d  # weights, and two products of each query with 8 keys or values
    assert step_flops(learner, batch) == Flops(3 * 2 * tokens * (2 * block + d * 11))


def test_a_traced_program():
    traced = jax.jit(jnp.matmul).trace(ones(2, 3), ones(3, 5))
    assert of_jaxpr(traced.jaxpr) == Flops(60)
