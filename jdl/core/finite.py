"""Check after a step that all values are still finite, separately for each member."""

from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jdl.core import tree
from jdl.core.groups import Groups, is_groups
from jdl.core.lowering import platform
from jdl.core.types import PyTree

PACK_BELOW_ELEMENTS = 2**14
"""On CPU, leaves of at most this many elements per member are checked together."""


def still_finite(
    good: jax.Array, before: PyTree, after: PyTree, pack_below: int = PACK_BELOW_ELEMENTS
) -> jax.Array:
    """Whether `good` holds and every value of `after` is finite, or non-finite and unchanged.

    An unchanged value may be infinite because a "best so far" starts at infinity. `good` and the
    result have the shape of the members, which lead every leaf. Leaves of up to `pack_below`
    elements are concatenated first: a larger bound compiles faster and runs slower.
    """
    members = good.ndim

    def check() -> jax.Array:
        return _check(good, before, after, pack_below)

    # No branch with members, whose devices would wait for each other, or on GPU, which would wait
    # for the host.
    if members > 0 or platform() == "gpu":
        return check()
    values = _pack(_floats(after), pack_below)
    return lax.cond(_all_finite(good, values), lambda: jnp.array(True), check)


def _check(good: jax.Array, before: PyTree, after: PyTree, pack_below: int) -> jax.Array:
    """Compare leaf by leaf, and each group of members separately."""
    groups, members = [x for x in _nodes(after) if is_groups(x)], good.ndim
    for was, now in zip((x for x in _nodes(before) if is_groups(x)), groups, strict=True):
        parts: Groups = now.split(good, -1).map(
            lambda own, a, b: _check(own, a, b, pack_below), was, now
        )
        good = parts.members(-1)
    leaves = zip(
        _pack(_floats([x for x in _nodes(before) if not is_groups(x)]), pack_below, members),
        _pack(_floats([x for x in _nodes(after) if not is_groups(x)]), pack_below, members),
        strict=True,
    )
    # lax, because jax.numpy's functions are jitted and traced again for every shape.
    for was, now in leaves:
        both_nan = lax.bitwise_and(lax.ne(was, was), lax.ne(now, now))
        fine = lax.bitwise_or(lax.is_finite(now), lax.bitwise_or(lax.eq(was, now), both_nan))
        good = good & lax.reduce_and(fine, range(members, now.ndim))
    return good


def _nodes(values: PyTree) -> list[Any]:
    return jax.tree.leaves(values, is_leaf=is_groups)


def _all_finite(good: jax.Array, leaves: list[jax.Array]) -> jax.Array:
    """Whether `good` holds and every value is finite: 0 times a value is 0 only then.

    On CPU a dot product reads a leaf three times as fast as a reduction to one boolean. Each
    product depends on the one before, because they would otherwise compete for threads.
    """
    zero = jnp.where(good, 0.0, jnp.nan).astype(jnp.float32)
    for leaf in leaves:
        zeros = jnp.full(leaf.shape[:1], zero.astype(leaf.dtype))
        products = jnp.tensordot(zeros, leaf, min(leaf.ndim, 1))
        zero = products.sum().astype(jnp.float32)
    return zero == 0


def _floats(values: PyTree) -> list[jax.Array]:
    """The leaves that can be non-finite; a complex leaf as its two parts."""
    floats = []
    for leaf in jax.tree.leaves(values):
        if tree.is_key(leaf) or not leaf.size:
            continue
        if jnp.iscomplexobj(leaf):
            floats += [leaf.real, leaf.imag]
        elif tree.is_float(leaf):
            floats.append(leaf)
    return floats


def _pack(leaves: list[jax.Array], below: int, members: int = 0) -> list[jax.Array]:
    """On CPU, concatenate the small leaves of each type into one.

    Each leaf takes two or three kernels, compiled one by one, and a transformer has a hundred
    small leaves. On other platforms a leaf may be sharded, and would be gathered.
    """
    if platform() != "cpu":
        return leaves
    large: list[jax.Array] = []
    small: dict[Any, list[jax.Array]] = {}
    for leaf in leaves:
        if prod(leaf.shape[members:]) > below:
            large.append(leaf)
        else:
            flat = jnp.reshape(leaf, (*leaf.shape[:members], -1))
            small.setdefault(leaf.dtype, []).append(flat)
    return large + [lax.concatenate(several, members) for several in small.values()]
