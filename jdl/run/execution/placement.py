"""Where the arrays of a run lie: with its state, on one device or on a mesh of many processes."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jdl.core.types import PyTree, TrainState
from jdl.data.order import process_rows
from jdl.parallel.mesh import batch_axis

ALIGNMENT_BYTES = 64
"""Bytes, of which the address of an array that JAX uses in place is a multiple."""


def placement(state: TrainState) -> Callable[[PyTree], PyTree]:
    """Puts arrays where the state lives: on its device, or copied to every device of its mesh."""
    where = _everywhere(state)

    def put(tree: PyTree) -> PyTree:
        # A copy first: on CPU a numpy array may be used in place, and its owner may change it.
        return jax.tree.map(lambda x: _placed(_copied(x), where, np.shape(x)), tree)

    return put


def placed_shapes(state: TrainState, tree: PyTree) -> PyTree:
    """What arrays of the host would be once `placement` has put them where the state lives."""
    where = _everywhere(state)
    shapes = jax.eval_shape(lambda x: x, tree)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), shapes)


def _copied(x: Any) -> np.ndarray:
    """A copy at an address from which JAX uses it in place on CPU; it would else copy it again."""
    x = np.asarray(x)
    memory = np.empty(x.nbytes + ALIGNMENT_BYTES, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT_BYTES
    copy = memory[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    copy[...] = x
    return copy


def _everywhere(state: TrainState) -> NamedSharding | None:
    mesh = mesh_of(state)
    return None if mesh is None else NamedSharding(mesh, PartitionSpec())


def local_batch(
    state: TrainState, batch_size: int
) -> tuple[np.ndarray | None, Callable[..., PyTree]]:
    """The rows of a batch that this process feeds (None: all), and what puts them on its devices.

    `put(rows, axis=0)` makes the whole batch of them and of the other processes' rows; `axis` is
    that of the examples. One process feeds everything. Nobody else may hold the rows.
    """
    mesh = mesh_of(state)
    if mesh is None or not mesh.is_multi_process:
        return None, lambda tree, axis=0: jax.device_put(tree, _everywhere(state))
    name = batch_axis(mesh)
    parts = np.moveaxis(mesh.devices, mesh.axis_names.index(name), 0).reshape(mesh.shape[name], -1)
    own = [i for i, part in enumerate(parts) if any(d in mesh.local_devices for d in part)]

    def put(tree: PyTree, axis: int = 0) -> PyTree:
        where = NamedSharding(mesh, PartitionSpec(*[None] * axis, name))

        def place(x: np.ndarray) -> jax.Array:
            return _placed(x, where, (*x.shape[:axis], batch_size, *x.shape[axis + 1 :]))

        return jax.tree.map(place, tree)

    return process_rows(own, len(parts), batch_size), put


def readable_sharding(state: TrainState) -> NamedSharding | None:
    """Where results must be for every process to read them; None where one process has it all."""
    mesh = mesh_of(state)
    return NamedSharding(mesh, PartitionSpec()) if mesh and mesh.is_multi_process else None


def _placed(x: np.ndarray, where: NamedSharding | None, shape: tuple[int, ...]) -> jax.Array:
    if where is None or not where.mesh.is_multi_process:
        return jax.device_put(x, where)
    return jax.make_array_from_process_local_data(where, x, shape)


def mesh_of(state: TrainState) -> Any:
    """The mesh that a state is on, or None."""
    for leaf in jax.tree.leaves(state.params):
        if isinstance(getattr(leaf, "sharding", None), NamedSharding):
            return leaf.sharding.mesh
    return None
