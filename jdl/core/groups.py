"""Members of a sweep in groups: within a group all arrays have the same shapes."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PyTree = Any
Rows = Mapping[str, tuple[int, ...]]


@jax.tree_util.register_pytree_with_keys_class
class Groups:
    """One tree per group of members: `groups[label]` holds the members `groups.rows[label]`.

    A sweep over widths trains networks of several shapes, which cannot share a leading axis.
    `jax.tree.map` sees the leaves of all groups. `split` cuts an array with one entry per member
    into one part per group, and `members` puts the parts together again.

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
        """The parts with their labels, for JAX."""
        children = [(jax.tree_util.DictKey(label), part) for label, part in self.parts.items()]
        return children, tuple(self.rows.items())

    @classmethod
    def tree_unflatten(cls, rows: Any, parts: Any) -> "Groups":
        """The inverse of `tree_flatten_with_keys`."""
        self = cls.__new__(cls)
        self.rows = dict(rows)
        self.parts = dict(zip(self.rows, parts, strict=True))
        return self

    def map(self, call: Callable[..., PyTree], *others: "Groups") -> "Groups":
        """Apply `call(part, *parts of the others)` to each group."""
        return Groups(
            {
                k: call(part, *(other.parts[k] for other in others))
                for k, part in self.parts.items()
            },
            self.rows,
        )

    def split(self, values: jax.Array, axis: int = 0) -> "Groups":
        """Cut an array with one entry per member into one part per group."""
        return Groups({k: _take(values, own, axis) for k, own in self.rows.items()}, self.rows)

    def members(self, axis: int = 0) -> PyTree:
        """One tree with all members, in their order, on `axis`."""
        parts = list(self.parts.values())
        if len(parts) == 1:  # already in order; a gather would move members between devices
            return parts[0]
        where = np.argsort([row for own in self.rows.values() for row in own])
        return jax.tree.map(lambda *x: _take(jnp.concatenate(x, axis), where, axis), *parts)


def _take(values: jax.Array, rows: Any, axis: int) -> jax.Array:
    index = (..., np.array(rows)) if axis == -1 else (slice(None),) * axis + (np.array(rows),)
    return values[index]


def is_groups(x: Any) -> bool:
    """Whether `x` is a `Groups`, for `is_leaf` of `jax.tree.map`."""
    return isinstance(x, Groups)
