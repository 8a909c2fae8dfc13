"""Leaves of members that come in groups: those of one group have the same shapes."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PyTree = Any
Rows = Mapping[str, tuple[int, ...]]


@jax.tree_util.register_pytree_with_keys_class
class Groups:
    """A tree for each group of members: `groups[label]` holds the members `groups.rows[label]`.

    A sweep over widths trains networks of several shapes, which cannot share one leading axis. Any
    function of a tree works on the leaves of all groups; `members` and `split` translate between
    an array with one entry for each member and one part for each group.

    >>> parts = {"a": jnp.array([1.0]), "b": jnp.array([2.0, 3.0])}
    >>> Groups(parts, rows={"a": (1,), "b": (0, 2)}).members()
    Array([2., 1., 3.], dtype=float32)
    """

    def __init__(self, parts: Mapping[str, PyTree], rows: Rows):
        self.parts, self.rows = dict(parts), dict(rows)

    def __getitem__(self, label: str) -> PyTree:
        return self.parts[label]

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def tree_flatten_with_keys(self) -> Any:
        """Children with their keys, as JAX asks for them."""
        children = [(jax.tree_util.DictKey(label), part) for label, part in self.parts.items()]
        return children, tuple(self.rows.items())

    @classmethod
    def tree_unflatten(cls, rows: Any, parts: Any) -> "Groups":
        """The groups of such children."""
        self = cls.__new__(cls)
        self.rows = dict(rows)
        self.parts = dict(zip(self.rows, parts, strict=True))
        return self

    def map(self, call: Callable[..., PyTree], *others: "Groups") -> "Groups":
        """`call(part, *parts of the others)` for each group."""
        return Groups(
            {
                k: call(part, *(other.parts[k] for other in others))
                for k, part in self.parts.items()
            },
            self.rows,
        )

    def split(self, values: jax.Array, axis: int = 0) -> "Groups":
        """One entry for each member, as a part for each group."""
        return Groups({k: _take(values, own, axis) for k, own in self.rows.items()}, self.rows)

    def members(self, axis: int = 0) -> PyTree:
        """One tree, with all members in their order on the leading axis (or on `axis`)."""
        parts = list(self.parts.values())
        if len(parts) == 1:  # in order as they are; on many devices each keeps its own
            return parts[0]
        where = np.argsort([row for own in self.rows.values() for row in own])
        return jax.tree.map(lambda *x: _take(jnp.concatenate(x, axis), where, axis), *parts)


def _take(values: jax.Array, rows: Any, axis: int) -> jax.Array:
    index = (..., np.array(rows)) if axis == -1 else (slice(None),) * axis + (np.array(rows),)
    return values[index]


def is_groups(x: Any) -> bool:
    """For `is_leaf` of `jax.tree.map`."""
    return isinstance(x, Groups)
