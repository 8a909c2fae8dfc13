"""Members in groups: the same answers as for members on one axis."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl.core import tree
from jdl.core.finite import still_finite
from jdl.core.groups import Groups

ROWS = {"narrow": (0, 3), "wide": (2, 1)}


def groups(narrow, wide):
    return Groups({"narrow": {"w": jnp.asarray(narrow)}, "wide": {"w": jnp.asarray(wide)}}, ROWS)


def test_parts_and_members_are_each_others_inverse():
    values = jnp.arange(4.0)
    assert groups([0.0, 3.0], [2.0, 1.0]).members()["w"].tolist() == values.tolist()
    parts = groups([0.0, 3.0], [2.0, 1.0]).split(values)
    assert parts["narrow"].tolist() == [0, 3] and parts["wide"].tolist() == [2, 1]
    assert parts.members().tolist() == values.tolist()
    nested = jnp.arange(8.0).reshape(2, 4)  # under an ensemble the members are the last axis
    assert parts.split(nested, -1).members(-1).tolist() == nested.tolist()
    keys = jax.random.split(jax.random.key(0), 4)
    assert (parts.split(keys).members() == keys).all()


def test_a_tree_of_groups_is_a_pytree_with_the_paths_of_a_dict():
    found = groups([0.0, 3.0], [2.0, 1.0])
    leaves, structure = jax.tree.flatten(found)
    assert jax.tree.structure(jax.tree.unflatten(structure, leaves)) == structure
    assert list(tree.flatten({"params": found})) == ["params/narrow/w", "params/wide/w"]
    assert structure != jax.tree.structure(Groups(found.parts, {"narrow": (0, 1), "wide": (2, 3)}))


@pytest.mark.parametrize("bad, expected", [(None, []), (0, [0]), (3, [3]), (1, [1]), (2, [2])])
def test_the_member_that_ceases_to_be_finite_is_found(bad, expected):
    before = groups(np.ones((2, 5)), np.full((2, 7), 2.0))
    values = {0: np.ones((5,)), 3: np.ones((5,)), 2: np.full((7,), 2.0), 1: np.full((7,), 2.0)}
    if bad is not None:
        values[bad] = values[bad] * np.inf
    after = groups(np.stack([values[0], values[3]]), np.stack([values[2], values[1]]))
    good = jax.jit(still_finite)(jnp.ones(4, bool), (before, jnp.ones(4)), (after, jnp.ones(4)))
    assert np.flatnonzero(~np.asarray(good)).tolist() == expected


def test_what_was_not_finite_before_may_stay_as_it_was():
    best = jnp.array([jnp.inf, jnp.nan, 1.0])
    good = still_finite(jnp.ones(3, bool), best, best)
    assert good.all()
    good = still_finite(jnp.ones(3, bool), best, jnp.array([-jnp.inf, jnp.nan, jnp.nan]))
    assert good.tolist() == [False, True, False]


def test_members_are_selected_in_their_groups():
    yes, no = groups([10.0, 13.0], [12.0, 11.0]), groups([0.0, 3.0], [2.0, 1.0])
    mask = jnp.array([True, False, True, False])
    assert tree.where(mask, yes, no).members()["w"].tolist() == [10, 1, 12, 3]
    assert tree.where(jnp.array(False), yes, no).members()["w"].tolist() == [0, 1, 2, 3]
