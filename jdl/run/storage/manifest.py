"""The manifest of a checkpoint: the SHA-256 of each of its files, leaves and of itself."""

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from jdl.core import tree
from jdl.core.errors import from_json
from jdl.core.types import PyTree
from jdl.run.storage import leaf_io
from jdl.run.storage.files import sync_directory, write_json

MANIFEST = "manifest.json"


class CorruptCheckpoint(Exception):
    """A checkpoint on disk differs from what was written."""


def describe(state: PyTree) -> dict[str, Any]:
    """The description of every leaf by its path."""
    return {name: leaf_io.describe(leaf) for name, leaf in tree.flatten(state).items()}


def write_manifest(folder: Path, step: int, described: dict[str, Any]) -> None:
    """Make every file durable, then write the manifest."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {p.relative_to(folder).as_posix(): _digest_file(p, sync=True) for p in paths}
    for path in {p.parent for p in paths}:
        sync_directory(path)
    body = {"step": step, "files": files, "leaves": described}
    write_json(folder / MANIFEST, {"sha256": _digest(body), "body": body})


def read_manifest(folder: Path, step: int) -> dict[str, Any]:
    """The body of a manifest; every file has been compared with it.

    Raises `CorruptCheckpoint`, naming the file that differs.
    """
    try:
        if not (folder / MANIFEST).is_file():
            raise FileNotFoundError
        manifest = from_json((folder / MANIFEST).read_bytes())
        body = manifest["body"]
        if manifest["sha256"] != _digest(body) or body["step"] != step:
            raise CorruptCheckpoint(f"{MANIFEST} was changed (SHA-256 differs)")
        _check_body(body)
    except FileNotFoundError:
        missing = f"unfinished, no {MANIFEST}" if folder.is_dir() else "no such directory"
        raise CorruptCheckpoint(missing) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as bad:
        raise CorruptCheckpoint(f"{MANIFEST} cannot be read ({bad})") from bad
    for name, recorded in body["files"].items():
        try:
            found = _digest_file(folder / name)
        except OSError as bad:
            raise CorruptCheckpoint(f"{name} cannot be read ({bad.strerror})") from bad
        if found != recorded:
            raise CorruptCheckpoint(f"{name} was changed (SHA-256 differs)")
    return body


def check_leaves(leaves: dict[str, Any], saved: dict[str, Any]) -> None:
    """Raise `CorruptCheckpoint` if the digest of a leaf is not the recorded one."""
    for name, leaf in leaves.items():
        digests = {leaf_io.describe(leaf)["sha256"], saved[name]["sha256"]} - {None}
        if len(digests) > 1:
            raise CorruptCheckpoint(f"leaf {name} was changed (SHA-256 differs)")


def _check_body(body: dict[str, Any]) -> None:
    """Raise ValueError for a path outside the checkpoint or a leaf without its description."""
    for name, digest in body["files"].items():
        if Path(name).is_absolute() or ".." in Path(name).parts or not isinstance(digest, str):
            raise ValueError(f"it names {name!r}")
    for name, leaf in body["leaves"].items():
        if not {"dtype", "shape", "sha256"} <= leaf.keys():
            raise ValueError(f"it does not describe leaf {name!r}")


def _digest(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _digest_file(path: Path, sync: bool = False) -> str:
    if not path.is_file():  # reading a pipe or a device might never end
        raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
    with open(path, "rb") as file:
        if sync:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()
