"""A summary counts exactly what a run would hold, and runs nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl
from jdl.core import tree
from jdl.core.errors import InputError
from jdl.understand.summary import Summary, summary

BATCH = {"x": np.zeros((4, 12, 12, 1), np.float32), "y": np.zeros(4, np.int32)}


def network(**settings):
    return jdl.from_linen(jdl.models.CNN(features=(4, 6), hidden=(8,), classes=3, **settings))


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_counts_are_those_of_the_real_state(norm):
    model = network(norm=norm)
    task = jdl.classification(model)
    learner = jdl.ema(jdl.learner(task, optax.adam(1e-3)), 0.9)
    state = jax.jit(learner.init)(jax.random.key(0), BATCH)
    for thing in (model, task, learner):
        found = summary(thing, BATCH)
        assert found.count == tree.count(state.params)
        assert (
            found.model_state_count
            == tree.count(state.model_state)
            == (40 if norm == "batch" else 0) // 2
        )
        assert {leaf.path: leaf.shape for leaf in found.parameters} == {
            path: leaf.shape for path, leaf in tree.flatten(state.params).items()
        }
        assert [(leaf.shape, str(leaf.dtype)) for leaf in found.outputs] == [((4, 3), "float32")]
    found = summary(learner, BATCH)
    kept = (state.params, state.model_state, state.opt_state, state.extra)
    assert found.bytes == sum(leaf.nbytes for leaf in jax.tree.leaves(kept))
    assert summary(model, BATCH).bytes == sum(
        leaf.nbytes for leaf in jax.tree.leaves((state.params, state.model_state))
    )


def test_members_are_counted():
    one = jdl.learner(jdl.classification(network()), optax.sgd(0.1))
    many = summary(jdl.ensemble(one, 5), BATCH)
    assert many.count == 5 * summary(one, BATCH).count
    assert many.outputs[0].shape == (5, 4, 3)


def test_inputs_as_an_array_or_as_x():
    model = network()
    whole, bare = summary(model, BATCH), summary(model, BATCH["x"])
    assert whole == bare
    shapes = jax.ShapeDtypeStruct((4, 12, 12, 1), jnp.float32)
    assert summary(model, shapes) == whole
    assert summary(model, BATCH["x"].astype(np.float64)) == whole


def test_every_function_is_only_traced():
    seen = []

    def init(key, inputs):
        seen.append(isinstance(key, jax.core.Tracer))
        return jnp.zeros(2), {}

    def apply(params, model_state, inputs, **_):
        seen.append(isinstance(params, jax.core.Tracer))
        return inputs * params[None], model_state

    model = jdl.from_functions(init, apply)
    task = jdl.regression(model)
    batch = {"x": np.zeros((1, 2), np.float32), "y": np.zeros((1, 2), np.float32)}
    for thing in (model, task, jdl.learner(task, optax.sgd(0.1))):
        summary(thing, batch)
    assert len(seen) >= 6 and all(seen)


def test_the_size_of_a_model_does_not_matter():
    """The weights would take 800 TB."""
    width = 10_000_000
    model = jdl.from_linen(jdl.models.MLP((width,), outputs=width))
    task = jdl.regression(model)
    learner = jdl.learner(task, optax.adam(1e-3))
    batch = {name: jax.ShapeDtypeStruct((8, width), jnp.float32) for name in "xy"}
    found = summary(learner, batch)
    assert found.count == 2 * (width * width + width)
    assert summary(task, batch).count == summary(model, batch).count == found.count
    assert "200,000,020,000,000 (800.0 TB)" in str(found)


def test_the_table():
    task = jdl.classification(network(norm="batch"))
    found = summary(jdl.learner(task, optax.adam(1e-3)), BATCH)
    lines = str(found).splitlines()
    assert lines[0].split() == ["parameter", "shape", "type", "count"]
    assert "conv_1/kernel                  3x3x1x4  float32     36" in lines
    assert any(line.split() == ["model", "state", "shape", "type", "count"] for line in lines)
    assert "batch_stats/batch_norm_1/mean  4        float32      4" in lines
    assert lines[-5:] == [
        "inputs      x 4x12x12x1 float32, y 4 int32",
        "outputs     4x3 float32",
        f"parameters  {found.count} ({found.count * 4 / 1000:.1f} kB)",
        "model state 20 (80 bytes)",
        f"optimizer   {2 * found.count + 1:,} ({(2 * found.count + 1) * 4 / 1000:.1f} kB)",
    ]
    assert len({len(line) for line in lines[:-5]}) == 1


def test_paths_are_in_natural_order():
    def init(key, inputs):
        return {f"layer_{i}": jnp.zeros(i) for i in (10, 2, 1)}, {}

    model = jdl.from_functions(init, lambda params, model_state, x, **_: (x, model_state))
    found = summary(model, np.zeros((1, 2), np.float32))
    assert [leaf.path for leaf in found.parameters] == ["layer_1", "layer_2", "layer_10"]


def test_a_single_array_of_parameters_and_a_key_in_the_state():
    def init(key, inputs):
        return jnp.zeros(()), {"key": key}

    model = jdl.from_functions(init, lambda params, model_state, x, **_: (x * params, model_state))
    found = summary(model, np.zeros((1, 2), np.float32))
    assert found.count == 1 and found.model_state_count == 1
    assert "(all)" in str(found) and "scalar" in str(found) and "key<fry>" in str(found)


@pytest.mark.parametrize(
    ("thing", "batch", "message"),
    [
        (
            jdl.models.CNN(),
            BATCH,
            "summary\n  expected: a jdl.Model, jdl.Task or jdl.Learner\n  got:      CNN\n"
            "  fix:      wrap a module: jdl.from_linen(module) or jdl.from_nnx(build)",
        ),
        (
            network(),
            {"x": "text"},
            "batch\n  expected: numeric arrays, or jax.ShapeDtypeStruct\n  got:      str",
        ),
        (network(), {"x": np.array(["a"])}, "got:      an array of <U1"),
    ],
)
def test_bad_input(thing, batch, message):
    with pytest.raises(InputError) as info:
        summary(thing, batch)
    assert message in str(info.value)


def test_the_public_name():
    assert jdl.summary is summary
    assert isinstance(jdl.summary(network(), BATCH), Summary)
