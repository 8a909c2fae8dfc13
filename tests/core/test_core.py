"""Means that merge, trees with paths, errors that say what to do."""

import dataclasses
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl.core import tree
from jdl.core.errors import InputError, check_fields, did_you_mean, error
from jdl.core.types import Count, Mean, TrainState


def test_a_mean_does_not_depend_on_the_parts():
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=30), rng.random(30)
    whole = (values * weights).sum() / weights.sum()
    for parts in (1, 2, 5, 30):
        means = [
            Mean((v * w).sum(), w.sum())
            for v, w in zip(np.split(values, parts), np.split(weights, parts), strict=True)
        ]
        total = means[0]
        for mean in means[1:]:
            total = jax.tree.map(np.add, total, mean)
        np.testing.assert_allclose(total.compute(), whole, rtol=1e-12)


def test_a_mean_of_nothing_is_nan_on_the_device_and_on_the_host():
    nothing = Mean(jnp.zeros(()), jnp.zeros(()))
    assert np.isnan(nothing.value) and np.isnan(nothing.compute())


def test_a_mean_is_shown_in_float64_also_from_integers():
    shown = Mean(np.int32(1), np.int32(3)).compute()
    assert shown.dtype == np.float64 and shown == 1 / 3
    np.testing.assert_array_equal(Mean(np.ones(2), np.array([1, 4])).compute(), [1, 0.25])


def test_a_count_keeps_its_function_out_of_the_numbers():
    count = Count(jnp.arange(3), lambda total: total.sum())
    assert len(jax.tree.leaves(count)) == 1
    assert jax.jit(lambda c: tree.add(c, c))(count).compute() == 6


def test_the_state_is_a_frozen_tree():
    state = TrainState(jnp.int32(0), jax.random.key(0), {"w": jnp.ones(2)}, {}, ())
    assert state.extra is None and len(jax.tree.leaves(state)) == 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        state.step = 1  # pyright: ignore[reportAttributeAccessIssue]
    assert list(tree.flatten(state)) == ["step", "key", "params/w"]


def test_paths_of_every_kind_of_container():
    leaves = tree.flatten({"a": [1, {"b": 2}], "c": Mean(3, 4)})
    assert leaves == {"a/0": 1, "a/1/b": 2, "c/total": 3, "c/weight": 4}


def test_where_covers_the_leading_axes():
    mask = jnp.array([True, False])
    keys = jax.random.split(jax.random.key(0), 4)
    one = {"w": jnp.ones((2, 3, 4)), "s": jnp.ones(2), "k": keys[:2]}
    other = {"w": jnp.zeros((2, 3, 4)), "s": jnp.zeros(2), "k": keys[2:]}
    picked = tree.where(mask, one, other)
    assert picked["w"].sum() == 12 and picked["w"][0].all()
    np.testing.assert_array_equal(picked["s"], [1, 0])
    np.testing.assert_array_equal(
        jax.random.key_data(picked["k"]), jax.random.key_data(keys[jnp.array([0, 3])])
    )
    chex.assert_trees_all_equal(tree.where(jnp.array(False), one["w"], other["w"]), other["w"])


@pytest.mark.parametrize(
    "leaf, is_float, is_key",
    [
        (jnp.ones(1), True, False),
        (jnp.ones(1, jnp.bfloat16), True, False),
        (jnp.arange(2), False, False),
        (jax.random.key(0), False, True),
        (2.0, True, False),
        (np.float64(1), True, False),
        (True, False, False),
    ],
)
def test_kinds_of_leaves(leaf, is_float, is_key):
    assert tree.is_key(leaf) == is_key
    if not is_key:
        assert tree.is_float(leaf) == is_float


def test_counts_of_arrays_and_of_shapes():
    arrays = {"w": jnp.zeros((3, 2)), "b": jnp.zeros(2), "none": None}
    assert tree.count(arrays) == tree.count(jax.eval_shape(lambda: arrays)) == 8
    assert tree.leading({"x": jnp.zeros((5, 2))}) == 5


def test_errors_have_one_form():
    made = error("rows", expected="10", got="9", fix="add one")
    assert isinstance(made, InputError) and isinstance(made, ValueError)
    assert str(made) == "rows\n  expected: 10\n  got:      9\n  fix:      add one"


def test_fields_are_checked_element_by_element():
    config = types.SimpleNamespace(rare=(3, 12), epochs=None, rate=jnp.ones(()))
    check_fields(config, epochs=1, rate=2)  # None and arrays pass
    with pytest.raises(InputError, match=r"rare\n.*from 0 to 9\n.*12"):
        check_fields(config, rare=(0, 9))


def test_the_nearest_name_or_all_of_them():
    assert did_you_mean("los", ["loss", "accuracy"]) == 'did you mean "loss"?'
    assert did_you_mean("zzz", ["loss", "accuracy"]) == "choose one of loss, accuracy"
