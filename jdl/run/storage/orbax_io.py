"""The arrays of a checkpoint, written and read by Orbax."""

import threading
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jdl.core import tree
from jdl.core.types import PyTree
from jdl.run.storage import leaf_io

ORBAX = threading.Lock()
"""Held while Orbax writes or reads: it counts and signals its operations in the whole process, so
those of two threads, two runs for example, break each other."""


def save(path: Path, state: PyTree) -> None:
    """Write the leaves of a state."""
    with ORBAX:
        begin_save(path, state).result()


def begin_save(path: Path, state: PyTree) -> Any:
    """Begin to write; the `result()` of what this returns waits for the end."""
    from orbax.checkpoint import v1 as ocp

    # Orbax refuses arrays of size zero; the manifest holds their types and shapes.
    nonempty = jax.tree.map(lambda leaf: leaf if leaf.size else None, state)
    return ocp.save_async(str(path), nonempty)


def load_leaves(path: Path, saved: dict[str, Any]) -> dict[str, Any]:
    """The leaves by path, as they were described; arrays of size zero are made anew."""
    from orbax.checkpoint import v1 as ocp

    with ORBAX:
        kept = ocp.metadata(str(path)).metadata
        target = jax.tree.map_with_path(
            lambda keys, _: leaf_io.described_target(saved[tree.path(keys)]), kept
        )
        loaded = tree.flatten(ocp.load(str(path), target))
    return {
        name: loaded[name] if name in loaded else np.empty(leaf["shape"], leaf["dtype"])
        for name, leaf in saved.items()
    }


def load(path: Path, target: PyTree) -> PyTree:
    """The state, with the types and shardings of `target`; ValueError for another structure."""
    from orbax.checkpoint import v1 as ocp

    with ORBAX:
        loaded = ocp.load(str(path), jax.tree.map(leaf_io.restore_target, target))
    return jax.tree.map(
        lambda like, leaf: np.empty(like.shape, like.dtype) if leaf is None else leaf,
        target,
        loaded,
    )
