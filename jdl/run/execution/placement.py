"""Placing the arrays of a run where its state is: on one device, or on a mesh of many processes."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jdl.core.types import PyTree, TrainState
from jdl.data.order import process_rows
from jdl.parallel.mesh import batch_axis

ALIGNMENT_BYTES = 64
"""Alignment from which JAX on CPU uses a numpy array in place."""


def placement(state: TrainState) -> Callable[[PyTree], PyTree]:
    """A function that puts arrays on the state's device, or on every device of its mesh."""
    sharding = _replicated(state)

    def put(tree: PyTree) -> PyTree:
        # A copy, because JAX on CPU may use a numpy array in place, and the caller may change it.
        return jax.tree.map(lambda x: _put(_aligned_copy(x), sharding, np.shape(x)), tree)

    return put


def placed_shapes(state: TrainState, tree: PyTree) -> PyTree:
    """The shapes and shardings that `placement` would give to arrays of the host."""
    sharding = _replicated(state)
    shapes = jax.eval_shape(lambda x: x, tree)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)


def _aligned_copy(x: Any) -> np.ndarray:
    """A copy at an address that JAX on CPU uses in place, instead of copying once more."""
    x = np.asarray(x)
    memory = np.empty(x.nbytes + ALIGNMENT_BYTES, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT_BYTES
    copy = memory[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    copy[...] = x
    return copy


def _replicated(state: TrainState) -> NamedSharding | None:
    mesh = mesh_of(state)
    return None if mesh is None else NamedSharding(mesh, PartitionSpec())


def local_batch(
    state: TrainState, batch_size: int
) -> tuple[np.ndarray | None, Callable[..., PyTree]]:
    """The rows of a batch that this process loads (None: all), and a function to place them.

    `put(rows, axis=0)` combines them with the rows of the other processes to the whole batch;
    `axis` is the axis of examples. The caller must not use the rows afterwards.
    """
    mesh = mesh_of(state)
    if mesh is None or not mesh.is_multi_process:
        return None, lambda tree, axis=0: jax.device_put(tree, _replicated(state))
    name = batch_axis(mesh)
    parts = np.moveaxis(mesh.devices, mesh.axis_names.index(name), 0).reshape(mesh.shape[name], -1)
    own = [i for i, part in enumerate(parts) if any(d in mesh.local_devices for d in part)]

    def put(tree: PyTree, axis: int = 0) -> PyTree:
        sharding = NamedSharding(mesh, PartitionSpec(*[None] * axis, name))

        def place(x: np.ndarray) -> jax.Array:
            return _put(x, sharding, (*x.shape[:axis], batch_size, *x.shape[axis + 1 :]))

        return jax.tree.map(place, tree)

    return process_rows(own, len(parts), batch_size), put


def readable_sharding(state: TrainState) -> NamedSharding | None:
    """The sharding of results that every process can read; None with one process."""
    mesh = mesh_of(state)
    return NamedSharding(mesh, PartitionSpec()) if mesh and mesh.is_multi_process else None


def _put(x: np.ndarray, sharding: NamedSharding | None, shape: tuple[int, ...]) -> jax.Array:
    if sharding is None or not sharding.mesh.is_multi_process:
        return jax.device_put(x, sharding)
    return jax.make_array_from_process_local_data(sharding, x, shape)


def mesh_of(state: TrainState) -> Any:
    """The mesh of a state, or None."""
    for leaf in jax.tree.leaves(state.params):
        if isinstance(getattr(leaf, "sharding", None), NamedSharding):
            return leaf.sharding.mesh
    return None
