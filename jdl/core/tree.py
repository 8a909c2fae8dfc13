"""Small functions over pytrees."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jdl.core.groups import is_groups
from jdl.core.types import PyTree


def path(keys: tuple[Any, ...]) -> str:
    """The path of a leaf as words with slashes.

    >>> path(jax.tree.leaves_with_path({"a": {"b": 1}})[0][0])
    'a/b'
    """
    return "/".join(jax.tree_util.keystr((key,), simple=True) for key in keys)


def flatten(tree: PyTree) -> dict[str, Any]:
    """Leaves by their path.

    >>> flatten({"dense": {"bias": 1, "kernel": 2}})
    {'dense/bias': 1, 'dense/kernel': 2}
    """
    return {path(keys): leaf for keys, leaf in jax.tree.leaves_with_path(tree)}


def add(one: PyTree, other: PyTree) -> PyTree:
    """Leaf by leaf sum: how metrics merge."""
    return jax.tree.map(jnp.add, one, other)


def count(tree: PyTree) -> int:
    """Number of scalars in all leaves (works on shapes too).

    >>> count({"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)})
    8
    """
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def is_float(leaf: Any) -> bool:
    """Whether a leaf holds floating-point numbers (typed keys and integers do not)."""
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def any_key() -> jax.ShapeDtypeStruct:
    """What a random key is, for those who ask for shapes: a real one is made by two programs.

    >>> any_key().shape
    ()
    """
    return jax.eval_shape(jax.random.key, 0)


def is_key(leaf: Any) -> bool:
    """Whether a leaf is a typed random key."""
    return jnp.issubdtype(getattr(leaf, "dtype", jnp.float32), jax.dtypes.prng_key)


@jax.jit
def copy(values: PyTree) -> PyTree:
    """Arrays of their own, in one dispatch: leaf by leaf each would be a program."""
    return jax.tree.map(jnp.copy, values)


def where(mask: jax.Array, yes: PyTree, no: PyTree) -> PyTree:
    """Select leaf by leaf; `mask` covers the leading axes of every leaf, those of its members."""

    def pick(a: Any, b: Any) -> Any:
        if a is b:  # spares tracing a choice that XLA would drop
            return a
        if is_groups(a):
            masks = a.map(lambda part: mask) if not mask.ndim else a.split(mask, -1)
            return masks.map(where, a, b)
        # In lax: `jnp.where` is traced as a function, for every shape anew.
        wide = lax.broadcast_in_dim(mask, jnp.shape(a), range(mask.ndim)) if mask.ndim else mask
        return lax.select(wide, a, b)

    return jax.tree.map(pick, yes, no, is_leaf=is_groups)


def leading(batch: PyTree) -> int:
    """Number of examples in a batch: the size of the leading axis."""
    return jax.tree.leaves(batch)[0].shape[0]
