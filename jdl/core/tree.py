"""Small functions of pytrees."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jdl.core.groups import is_groups
from jdl.core.types import PyTree


def path(keys: tuple[Any, ...]) -> str:
    """The path of a leaf, its keys joined by slashes.

    >>> path(jax.tree.leaves_with_path({"a": {"b": 1}})[0][0])
    'a/b'
    """
    return "/".join(jax.tree_util.keystr((key,), simple=True) for key in keys)


def flatten(tree: PyTree) -> dict[str, Any]:
    """A dict of the leaves by path.

    >>> flatten({"dense": {"bias": 1, "kernel": 2}})
    {'dense/bias': 1, 'dense/kernel': 2}
    """
    return {path(keys): leaf for keys, leaf in jax.tree.leaves_with_path(tree)}


def add(one: PyTree, other: PyTree) -> PyTree:
    """Add two trees leaf by leaf, as metrics merge."""
    return jax.tree.map(jnp.add, one, other)


def count(tree: PyTree) -> int:
    """The number of elements in all leaves, which may be arrays or `jax.ShapeDtypeStruct`.

    >>> count({"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)})
    8
    """
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def is_float(leaf: Any) -> bool:
    """Whether a leaf is of a real floating-point type."""
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def norm(values: PyTree) -> jax.Array:
    """The Euclidean norm of all leaves together, summed in float32 or wider.

    >>> print(norm({"kernel": jnp.full(300, 1, jnp.bfloat16), "bias": jnp.ones(100)}))
    20.0
    """

    def squares(leaf: Any) -> jax.Array:
        leaf = leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
        return (leaf.conj() * leaf).real.sum()

    return jnp.sqrt(sum(map(squares, jax.tree.leaves(values))))


def any_key() -> jax.ShapeDtypeStruct:
    """The shape and type of a random key, for `jax.eval_shape`; a real key costs two programs.

    >>> any_key().shape
    ()
    """
    return jax.eval_shape(jax.random.key, 0)


def is_key(leaf: Any) -> bool:
    """Whether a leaf is a typed random key."""
    return jnp.issubdtype(getattr(leaf, "dtype", jnp.float32), jax.dtypes.prng_key)


@jax.jit
def copy(values: PyTree) -> PyTree:
    """Copy all arrays in one dispatch."""
    return jax.tree.map(jnp.copy, values)


def where(mask: jax.Array, yes: PyTree, no: PyTree) -> PyTree:
    """Select leaf by leaf; `mask` has the leading axes of every leaf, those that count members."""

    def pick(a: Any, b: Any) -> Any:
        if a is b:  # avoids tracing a select that XLA would remove
            return a
        if is_groups(a):
            masks = a.map(lambda part: mask) if not mask.ndim else a.split(mask, -1)
            return masks.map(where, a, b)
        # lax, because `jnp.where` is jitted and traced again for every shape.
        wide = lax.broadcast_in_dim(mask, jnp.shape(a), range(mask.ndim)) if mask.ndim else mask
        return lax.select(wide, a, b)

    return jax.tree.map(pick, yes, no, is_leaf=is_groups)


def leading(batch: PyTree) -> int:
    """The number of examples in a batch: the size of the leading axis."""
    return jax.tree.leaves(batch)[0].shape[0]
