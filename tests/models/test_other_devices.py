"""Forms that a GPU or TPU takes, which compute the same on CPU; a test on a GPU where one is."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl
from jdl.core import lowering
from jdl.learn.guard import GuardState
from jdl.models.layers import attention_ops, primitives, scan_time
from jdl.tasks.losses import cross_entropy
from tests.support.learners import assert_same_bits, record

TOLERANCE = {"rtol": 1e-6, "atol": 1e-6}


def both(function, *inputs):
    """Value and gradient as traced for a CPU and for a GPU, and the two programs."""
    found, programs = [], []
    for platform in ("cpu", "gpu"):
        with lowering.lowering_for(platform=platform):
            # A function of its own each time: what is traced once is not traced again.
            traced = jax.jit(lambda *given: jax.value_and_grad(function)(*given)).trace(*inputs)
            programs.append(str(traced.jaxpr))
            found.append(traced.lower().compile()(*inputs))
    return *found, *programs


@pytest.mark.parametrize("dtype", [np.int32, np.uint8])
def test_few_vectors_are_found_by_a_product(dtype):
    embed = primitives.Embed(7, 5)
    x = np.random.default_rng(0).integers(0, 7, (4, 6)).astype(dtype)
    params = embed.init(jax.random.key(0), x)
    weigh = jax.random.normal(jax.random.key(1), (4, 6, 5))
    on_cpu, on_gpu, plain, product = both(lambda p: (embed.apply(p, x) * weigh).sum(), params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **TOLERANCE), on_gpu, on_cpu)
    assert "gather" in plain and "dot_general" not in plain
    # Nothing is looked up, and no gradient scattered.
    assert "dot_general" in product and "gather" not in product and "scatter" not in product


def test_a_number_without_a_vector_is_nan_in_every_form():
    embed, x = primitives.Embed(3, 2), jnp.array([-1, 0, 2, 3])
    params = embed.init(jax.random.key(0), x)
    with lowering.lowering_for(platform="tpu"):
        found = embed.apply(params, x)
    np.testing.assert_array_equal(found, embed.apply(params, x))
    assert np.isnan(found).all(1).tolist() == [True, False, False, True]


def test_many_vectors_are_looked_up(monkeypatch):
    monkeypatch.setattr(primitives, "ONE_HOT_UP_TO_VECTORS", 2)
    embed, x = primitives.Embed(3, 2), jnp.array([0])
    params = embed.init(jax.random.key(0), x)
    with lowering.lowering_for(platform="gpu"):
        assert "dot_general" not in str(jax.make_jaxpr(embed.apply)(params, x))


def test_cross_entropy_by_comparison_is_that_of_optax():
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(4, 5, 6)), jnp.float32)
    labels = jnp.asarray(rng.integers(-6, 6, (4, 5)))

    def total(logits):
        return (cross_entropy(logits, labels) * jnp.arange(20.0).reshape(4, 5)).sum()

    on_cpu, on_gpu, plain, comparison = both(total, logits)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **TOLERANCE), on_gpu, on_cpu)
    assert "gather" in plain and "gather" not in comparison and "scatter" not in comparison


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_cross_entropy_of_odd_labels_and_large_logits(platform):
    with lowering.lowering_for(platform=platform):
        odd = cross_entropy(jnp.zeros((4, 3)), jnp.array([0, -3, 3, -4]))
        large = cross_entropy(jnp.array([[800.0, -800.0], [-jnp.inf, 0.0]]), jnp.array([1, 1]))
    assert np.isnan(odd).tolist() == [False, False, True, True]
    np.testing.assert_allclose(large, [1600.0, 0.0])


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_loops_over_time_take_several_steps_a_turn(cell, monkeypatch):
    monkeypatch.setattr(scan_time, "STEPS_PER_GPU_ITERATION", 3)
    model = jdl.from_linen(jdl.models.RNN((5,), outputs=2, cell=cell))
    x, lengths = jax.random.normal(jax.random.key(0), (4, 8, 3)), jnp.array([8, 1, 3, 7])
    params, model_state = model.init(jax.random.key(1), (x, lengths))
    on_cpu, on_gpu, plain, unrolled = both(
        lambda p: (model.apply(p, model_state, (x, lengths))[0] ** 2).sum(), params
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **TOLERANCE), on_gpu, on_cpu)
    assert "unroll=1" in plain and "unroll=3" in unrolled and "unroll=1\n" not in unrolled


def test_a_guard_has_no_branch_where_a_device_would_wait_for_its_host():
    learner = jdl.guard(jdl.learner(jdl.regression(jdl.from_linen(jdl.models.MLP((), 1))),
                                    optax.adam(0.1)))  # fmt: skip
    good = {"x": jnp.ones((2, 1)), "y": jnp.ones((2, 1))}
    bad = good | {"y": jnp.full((2, 1), jnp.nan)}
    ends = {}
    for platform, branches in (("cpu", True), ("gpu", False)):
        with lowering.lowering_for(platform=platform):
            step = jax.jit(lambda state, batch: learner.step(state, batch))
            state = learner.init(jax.random.key(0), good)
            assert ("cond[" in str(step.trace(state, good).jaxpr)) == branches
            for batch in (good, bad, good):
                state, _ = step(state, batch)
        ends[platform] = state
    assert int(record(ends["gpu"], GuardState).skipped) == 1
    assert_same_bits(ends["gpu"], ends["cpu"])


def test_only_a_gpu_has_flash_attention():
    """Its call cannot even be traced elsewhere."""
    half = jnp.ones((1, 256, 2, 64), jnp.bfloat16)
    with lowering.lowering_for(platform="gpu"):
        # Compiled, for outside of a program only the form of this device is traced.
        y = jax.jit(partial(attention_ops.attention, is_causal=True))(half, half, half)
    assert y.shape == half.shape


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="no GPU here")
@pytest.mark.parametrize("is_causal", [False, True])
def test_flash_attention_is_the_plain_one_rounded(is_causal):
    keys = jax.random.split(jax.random.key(0), 4)
    query, key, value, weigh = (jax.random.normal(k, (2, 256, 3, 64), jnp.bfloat16) for k in keys)

    def total(form):
        def loss(*inputs):
            return (form(*inputs) * weigh).astype(jnp.float32).sum()

        return jax.jit(jax.grad(loss, (0, 1, 2)))(query, key, value)

    found = total(lambda *qkv: attention_ops.attention(*qkv, is_causal=is_causal))
    expected = total(lambda *qkv: attention_ops._whole(is_causal, *qkv))
    for a, b in zip(found, expected, strict=True):
        a, b = a.astype(jnp.float32), b.astype(jnp.float32)
        assert jnp.linalg.norm(a - b) < 0.02 * jnp.linalg.norm(b)
