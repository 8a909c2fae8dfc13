"""One state in a directory, for a training loop of your own: saved whole, verified when read.

The directory holds a marker and the newest checkpoint as `<n>/`. Each save writes `<n+1>/` in full,
renames it into place, and only then deletes `<n>/`. So at any moment the highest number is whole.
"""

import os
from pathlib import Path

import jax

from jdl.core.errors import InputError, error
from jdl.core.paths import user_path
from jdl.core.types import PyTree
from jdl.run.distributed.collectives import broadcast, on_process_0
from jdl.run.storage.checkpoint import Checkpoints
from jdl.run.storage.files import explain_write_errors, write_bytes
from jdl.run.storage.foreign import describe_path, names_in
from jdl.run.storage.manifest import CorruptCheckpoint, read_manifest
from jdl.run.storage.tree_io import check_names, read_tree, write_error

MARKER = "jdl_state.json"
MARKER_BYTES = b'{"written_by": "jdl.save_state", "format": 1}\n'


def save_state(path: str | os.PathLike[str], state: PyTree) -> None:
    """Save a state, or any pytree of arrays, numbers and random keys, as the directory `path`.

    The checkpoint that was at `path` is replaced once the new one is whole and on disk: after a
    kill or a full disk, `load_state` reads one or the other. With several JAX processes all of them
    call it. Only one program may save to a `path` at a time.

    Raises `InputError` if `path` is a file or a directory with other contents, for a leaf that
    cannot be saved, and if the system refuses to write.

    >>> import tempfile, jax.numpy as jnp
    >>> save_state(path := tempfile.mkdtemp(), {"w": jnp.arange(3.0), "key": jax.random.key(0)})
    >>> print(load_state(path, {"w": jnp.zeros(3), "key": jax.random.key(1)})["w"])
    [0. 1. 2.]
    """
    folder, what = user_path(path).absolute(), f"save_state: {path}"
    check_names(what, state)
    if not any(getattr(leaf, "size", 1) for leaf in jax.tree.leaves(state)):
        fix = "pass the state that jdl.steps yields, or a pytree of arrays"
        raise error(what, expected="a pytree with at least one number", got="none", fix=fix)
    former = on_process_0(lambda: _prepare(folder, what))
    failed = None
    try:
        Checkpoints(folder, keep=1).save(former + 1, state, wait=True)
    except InputError as bad:  # it names steps and a run, and there are none
        last = "the checkpoint before is kept" if former else "no earlier checkpoint"
        cause = bad.__cause__ if isinstance(bad.__cause__, Exception) else bad
        failed = write_error(cause, f"{what} was not written", last, "save again")
        failed.__cause__ = cause
    told = broadcast(failed and str(failed))  # the other processes wait for the rename here
    if failed or told:
        raise failed or InputError(told)


def load_state(path: str | os.PathLike[str], like: PyTree) -> PyTree:
    """Read what `save_state` wrote; every file and leaf is compared with its SHA-256.

    `like` gives the tree, shapes, types and shardings to expect: a state, or the output of
    `jax.eval_shape`. The arrays of the result have the shardings of those of `like`.

    Raises `InputError` if a leaf differs from `like`, naming it; if a file was changed, naming it;
    and if `path` holds no such checkpoint.

    >>> import tempfile
    >>> save_state(folder := tempfile.mkdtemp(), {"step": 3})
    >>> load_state(folder, like={"step": 0})
    {'step': 3}
    """
    folder, what = user_path(path).absolute(), f"load_state: {path}"
    step = on_process_0(lambda: _newest(folder) if _is_ours(folder, what) else 0)
    if step == 0:
        expected, got = "a checkpoint of jdl.save_state", describe_path(folder)
        fix = "check the path; jdl.load reads a run directory"
        raise error(what, expected=expected, got=got, fix=fix)
    at = folder / str(step)
    try:
        return read_tree(at, read_manifest(at, step)["leaves"], like, what, _mismatch)
    except CorruptCheckpoint as damage:
        raise _damaged(what, f"{at}: {damage}") from damage


def _mismatch(what: str, expected: str, got: str) -> InputError:
    fix = "pass a `like` with the structure, shapes and types of what was saved"
    got = f"{got} (in the checkpoint)"
    return error(what, expected=f"{expected} (in `like`)", got=got, fix=fix)


def _damaged(what: str, got: str) -> InputError:
    fix = "restore the directory from a backup, or save to another path"
    return error(what, expected="an undamaged checkpoint", got=got, fix=fix)


def _is_ours(folder: Path, what: str) -> bool:
    """Whether the marker is there; raise `InputError` for a changed one."""
    marker = folder / MARKER
    if marker.is_file() and marker.read_bytes() != MARKER_BYTES:
        raise _damaged(what, f"{marker} was changed")
    return marker.is_file()


def _newest(folder: Path) -> int:
    """The highest number, 0 for none; a directory without a manifest counts, and is damage."""
    return max((int(at.name) for at in folder.iterdir() if at.name.isdecimal()), default=0)


def _prepare(folder: Path, what: str) -> int:
    """Make the directory, or check that it is ours; return the number of its checkpoint."""
    with explain_write_errors(folder):
        if not _is_ours(folder, what):
            if folder.is_file() or names_in(folder, {f".{MARKER}.new"}):
                expected, got = "a new or empty directory, or a saved state", describe_path(folder)
                raise error(what, expected=expected, got=got, fix="choose a new path")
            folder.mkdir(parents=True, exist_ok=True)
            write_bytes(folder / MARKER, MARKER_BYTES)
        return _newest(folder)
