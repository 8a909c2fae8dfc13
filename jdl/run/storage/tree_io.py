"""A pytree and its checkpoint: what can be written, and reading into the tree that is expected."""

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from jdl.core import tree
from jdl.core.errors import InputError, error
from jdl.core.types import PyTree
from jdl.run.storage import leaf_io, orbax_io
from jdl.run.storage.manifest import check_leaves

Mismatch = Callable[[str, str, str], InputError]
"""The error for what was expected and what is in the checkpoint."""


def to_host(state: PyTree) -> PyTree:
    """A copy on the host; leaves that no process has whole are copied on their devices."""
    for leaf in jax.tree.leaves(state):
        if isinstance(leaf, jax.Array) and not leaf_io.is_distributed(leaf):
            leaf.copy_to_host_async()
    return jax.tree.map(leaf_io.to_host, state)


def check_names(what: str, state: PyTree) -> None:
    """Raise `InputError` for what Orbax cannot write: it takes `a.b` and `a/b` as one leaf."""
    seen: set[str] = set()
    for keys, leaf in jax.tree.leaves_with_path(state):
        name = tree.path(keys)
        twin = name.replace("/", ".") in seen
        seen.add(name.replace("/", "."))
        if twin or not (hasattr(leaf, "dtype") or isinstance(leaf, bool | int | float | complex)):
            raise error(
                _of_leaf(what, name),
                expected="a unique name, . and / treated alike" if twin else "an array or a number",
                got="a second leaf of that name" if twin else f"a {type(leaf).__name__}",
                fix="rename the leaf" if twin else "keep such objects outside the state",
            )


def read_tree(
    folder: Path, saved: dict[str, Any], target: PyTree, what: str, mismatch: Mismatch
) -> PyTree:
    """Read a checkpoint whose files were verified, with the types and shardings of `target`."""
    _check_target(saved, target, what, mismatch)
    try:
        loaded = orbax_io.load(folder, target)
    except ValueError as refusal:  # files and leaves fit, so containers without leaves differ
        where = [line for line in str(refusal).splitlines()[1:] if line.endswith(":")]
        other = f"another structure at {' '.join(where) or refusal}"
        raise mismatch(what, "the same tree structure", other) from refusal
    check_leaves(tree.flatten(loaded), saved)
    placed = jax.tree.map(leaf_io.to_device, target, loaded)
    for name, leaf in tree.flatten(placed).items():
        if leaf_io.describe_type(leaf)["dtype"] != saved[name]["dtype"]:
            raise error(
                _of_leaf(what, name),
                expected=f"an array of {saved[name]['dtype']}",
                got=f"{leaf_io.describe_type(leaf)['dtype']}, which JAX converts it to",
                fix='call jax.config.update("jax_enable_x64", True) first',
            )
    return placed


def _check_target(saved: dict[str, Any], target: PyTree, what: str, mismatch: Mismatch) -> None:
    """Compare names, types and shapes before tensors are read: Orbax casts silently."""
    target_leaves = {n: leaf_io.describe_type(leaf) for n, leaf in tree.flatten(target).items()}
    for name in [*target_leaves, *saved]:
        expected, got = (
            "{dtype} {shape}".format(**side[name]) if name in side else "no such leaf"
            for side in (target_leaves, saved)
        )
        if expected != got:
            raise mismatch(_of_leaf(what, name), expected, got)


def _of_leaf(what: str, name: str) -> str:
    return f"{what}, leaf {name}" if name else what  # the tree is that leaf


def write_error(failure: Exception, what: str, last: str, retry: str) -> InputError:
    """The error of a failed write, with the reason, what is left, and how to try again."""
    if isinstance(failure.__cause__, OSError):  # without the file's name, which does not help
        failure = failure.__cause__
    number = getattr(failure, "errno", None)
    text = (getattr(failure, "strerror", None) or str(failure)).strip().splitlines()
    reason = text[0] if text else type(failure).__name__
    told = re.search(r"\[os_error_code='(\d+)'\]", reason) if number is None else None
    if told is not None:  # TensorStore, whose message holds the whole array specification
        number = int(told[1])
        reason = os.strerror(number)
    if number in (errno.ENOSPC, errno.EDQUOT):
        expected, fix = "free space on the disk", "free some space"
    elif number in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        expected, fix = "a writable directory", "change its permissions"
    else:
        expected, fix = "a successful write", "check the disk and the cause of this error"
    return error(what, expected=expected, got=f"{reason}; {last}", fix=f"{fix}, then {retry}")
