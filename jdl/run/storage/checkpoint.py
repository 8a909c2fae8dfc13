"""Checkpoints of a `TrainState`: written in the background, checked to the last bit when read.

Orbax writes and reads the tensors, and `orbax.checkpoint.v1.load` opens every `<step>/`. What it
leaves open is closed here: a checkpoint exists only when all of it is on the disk, every file and
every leaf has a SHA-256, and a leaf of another type is an error instead of a silent cast. Nothing
that is read can run code: the formats are JSON and zarr.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jdl.core import tree
from jdl.core.errors import InputError, error, from_json
from jdl.core.types import PyTree, TrainState
from jdl.run.storage import leaf_io
from jdl.run.storage.files import sync_directory, write_json

log = logging.getLogger("jdl")
MANIFEST = "manifest.json"


class CorruptCheckpoint(Exception):
    """A checkpoint on the disk is not what was written."""


class Checkpoints:
    """The checkpoints of one run, one folder a step.

    `keep` is how many of the newest stay; the best one stays besides. Only one process may write
    to the folder (see `RunDir.lock`). With several JAX processes all of them call `save` and
    `restore`, and the first one does the book-keeping.
    """

    def __init__(self, folder: Path, keep: int = 2):
        if keep < 1:
            raise error("keep", expected="at least 1 checkpoint", got=str(keep), fix="raise it")
        self.folder = Path(folder).absolute()
        self.keep = keep
        self._worker: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None

    def save(self, step: int, state: TrainState, *, best: bool = False, wait: bool = False) -> None:
        """Copy the state to the host and write it as `<step>/` in the background.

        After the return the caller may donate or change `state`; the checkpoint exists only once
        it is durable (`wait=True`, `wait()`, or the next `save`, each of which raises what went
        wrong in the background). `best=True` exempts it from deletion until a better one is saved.
        Saving a step again costs nothing when the content is the same, and replaces it otherwise.
        """
        self.wait()
        _check_names(step, state)
        for leaf in jax.tree.leaves(state):
            if isinstance(leaf, jax.Array) and not leaf_io.is_distributed(leaf):
                leaf.copy_to_host_async()
        copy = jax.tree.map(leaf_io.to_host, state)
        # Several processes begin together, by a collective, which must not run in the background
        # beside those of the training; in the background they meet through the coordinator.
        begun = self._begin(int(step), copy) if jax.process_count() > 1 else None
        self._worker = self._worker or ThreadPoolExecutor(1, "jdl-checkpoint")
        self._pending = self._worker.submit(self._write, int(step), copy, best, begun)
        if wait:
            self.wait()

    def wait(self) -> None:
        """Block until every save is durable; raises the error of one that failed."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def steps(self) -> list[int]:
        """Steps that have a complete checkpoint, in order (damage shows only when one is read)."""
        return [step for step in self._numbered() if (self._at(step) / MANIFEST).is_file()]

    def best(self) -> int | None:
        """The step last saved as the best one, or None."""
        note = self.folder / "best.json"
        if not note.is_file():
            return None
        try:
            step = int(from_json(note.read_bytes())["step"])
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as bad:
            log.warning("%s cannot be read (%s): no best step", note, bad)
            return None
        return step if step in self.steps() else None

    def restore(self, target: TrainState, step: int | None = None) -> tuple[TrainState, int]:
        """The newest good checkpoint (or that of `step`), and its step.

        `target` has the tree, shapes and types to expect: arrays or the output of
        `jax.eval_shape`, with shardings where the leaves are to be spread over devices. A target
        that does not fit is an `InputError` naming the leaf. A damaged checkpoint is an
        `InputError` where `step` asks for it; else a warning, and the one before it is tried.
        """
        self.wait()
        found = []
        for candidate in [step] if step is not None else self._numbered()[::-1]:
            try:
                return self._read(candidate, target), candidate
            except CorruptCheckpoint as damage:
                found.append(f"step {candidate}: {damage}")
                if step is None:
                    log.warning("checkpoint %d is left out: %s", candidate, damage)
        raise error(
            "no good checkpoint left" if step is None else f"checkpoint {step} cannot be used",
            expected=f"an undamaged checkpoint in {self.folder}",
            got="; ".join(found) or "none at all",
            fix="restore the folder from a backup, or start a new run"
            if step is None
            else f"choose one of the steps {self.steps()}",
        )

    def _at(self, step: int) -> Path:
        return self.folder / str(step)

    def _numbered(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        return sorted(int(entry.name) for entry in self.folder.iterdir() if entry.name.isdecimal())

    def _begin(self, step: int, state: TrainState) -> Any:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
            return _orbax_begin(self.folder / f".new-{step}", state)
        except Exception as failure:
            raise _explained(failure, step, self.folder, self.steps()) from failure

    def _write(self, step: int, state: TrainState, best: bool, begun: Any = None) -> None:
        new = self.folder / f".new-{step}"
        try:
            described = {name: leaf_io.describe(leaf) for name, leaf in tree.flatten(state).items()}
            if begun is not None:
                begun.result()
                self._commit(new, step, described)
            elif not self._has(step, described):
                self.folder.mkdir(parents=True, exist_ok=True)
                self._sweep()
                _orbax_save(new, state)
                self._commit(new, step, described)
            if jax.process_index() == 0:
                self._retain(step, best)
        except Exception as failure:
            self._sweep()
            raise _explained(failure, step, self.folder, self.steps()) from failure

    def _commit(self, new: Path, step: int, described: dict[str, Any]) -> None:
        """The one rename that makes the checkpoint exist, after all of it is on the disk."""
        if jax.process_index() == 0:
            _write_manifest(new, step, described)
            aside = self.folder / f".old-{step}"
            if self._at(step).exists():
                os.rename(self._at(step), aside)
            os.rename(new, self._at(step))
            sync_directory(self.folder)
            shutil.rmtree(aside, ignore_errors=True)

    def _has(self, step: int, described: dict[str, Any]) -> bool:
        try:  # several processes could see this differently, and would then wait for each other
            return jax.process_count() == 1 and self._check(step)["leaves"] == described
        except CorruptCheckpoint:
            return False

    def _retain(self, step: int, best: bool) -> None:
        if best:
            write_json(self.folder / "best.json", {"step": step})
        # Steps after this one belong to a future that was left (its newest was damaged): they
        # must not push out the good ones, and are replaced when the run reaches them.
        for old in [old for old in self.steps() if old <= step][: -self.keep]:
            if old != self.best():
                self._remove(old)

    def _remove(self, step: int) -> None:
        """Take a checkpoint away at once: half a deletion must not look like damage."""
        aside = self.folder / f".old-{step}"
        os.rename(self._at(step), aside)
        shutil.rmtree(aside, ignore_errors=True)

    def _sweep(self) -> None:
        """Delete what a killed process, or a failed save, left half written."""
        if jax.process_index() == 0 and self.folder.is_dir():
            for entry in [*self.folder.glob(".new-*"), *self.folder.glob(".old-*")]:
                shutil.rmtree(entry, ignore_errors=True)

    def _check(self, step: int) -> dict[str, Any]:
        """The manifest of a step, after every file was compared with it."""
        folder = self._at(step)
        try:
            if not (folder / MANIFEST).is_file():
                raise FileNotFoundError
            manifest = from_json((folder / MANIFEST).read_bytes())
            body = manifest["body"]
            if manifest["sha256"] != _digest(body) or body["step"] != step:
                raise CorruptCheckpoint(f"{MANIFEST} is not what was written (SHA-256 differs)")
            _check_form(body)
        except FileNotFoundError:
            missing = f"unfinished, it has no {MANIFEST}" if folder.is_dir() else "no such folder"
            raise CorruptCheckpoint(missing) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as bad:
            raise CorruptCheckpoint(f"{MANIFEST} cannot be read ({bad})") from bad
        for name, recorded in body["files"].items():
            try:
                found = _digest_file(folder / name)
            except OSError as bad:
                raise CorruptCheckpoint(f"{name} cannot be read ({bad.strerror})") from bad
            if found != recorded:
                raise CorruptCheckpoint(f"{name} is not what was written (SHA-256 differs)")
        return body

    def _read(self, step: int, target: TrainState) -> TrainState:
        saved = self._check(step)["leaves"]
        _check_target(step, saved, target)
        loaded = _orbax_load(step, self._at(step), target)
        for name, leaf in tree.flatten(loaded).items():
            digests = {leaf_io.describe(leaf)["sha256"], saved[name]["sha256"]} - {None}
            if len(digests) > 1:
                raise CorruptCheckpoint(f"leaf {name} is not what was written (SHA-256 differs)")
        placed = jax.tree.map(leaf_io.to_device, target, loaded)
        for name, leaf in tree.flatten(placed).items():
            if leaf_io.describe_type(leaf)["dtype"] != saved[name]["dtype"]:
                raise error(
                    f"checkpoint {step}, leaf {name}",
                    expected=f"JAX to hold {saved[name]['dtype']}",
                    got=f"it turns it into {leaf_io.describe_type(leaf)['dtype']}",
                    fix='set jax.config.update("jax_enable_x64", True) first',
                )
        return placed


def _check_form(body: dict[str, Any]) -> None:
    """Refuse a manifest that names files elsewhere, or describes leaves in another way."""
    for name, digest in body["files"].items():
        if Path(name).is_absolute() or ".." in Path(name).parts or not isinstance(digest, str):
            raise ValueError(f"it names {name!r}")
    for name, leaf in body["leaves"].items():
        if not {"dtype", "shape", "sha256"} <= leaf.keys():
            raise ValueError(f"it does not describe leaf {name!r}")


def _digest(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _digest_file(path: Path, sync: bool = False) -> str:
    if not path.is_file():  # a pipe or a device would be read for ever
        raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
    with open(path, "rb") as file:
        if sync:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_manifest(folder: Path, step: int, described: dict[str, Any]) -> None:
    """Make every file durable, then say what it holds."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {p.relative_to(folder).as_posix(): _digest_file(p, sync=True) for p in paths}
    for path in {p.parent for p in paths}:
        sync_directory(path)
    body = {"step": step, "files": files, "leaves": described}
    write_json(folder / MANIFEST, {"sha256": _digest(body), "body": body})


def _explained(failure: Exception, step: int, folder: Path, good: list[int]) -> InputError:
    """What a failed write means for the one who runs the training."""
    if isinstance(failure.__cause__, OSError):  # of a file whose name is no news here
        failure = failure.__cause__
    number, text = getattr(failure, "errno", None), str(failure).strip().splitlines()
    reason = text[0] if text else type(failure).__name__
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in reason:
        expected, fix = "room on the disk", "free some room"
        if number is None:  # TensorStore, with its whole specification of the array
            reason = os.strerror(errno.ENOSPC)
    elif number in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        expected, fix = "a folder that can be written", "mend its permissions"
    else:
        expected, fix = "a disk that takes it", "see the error that this one came from"
    last = f"the last good one is of step {good[-1]}" if good else "there is none before it"
    return error(
        f"checkpoint {step} was not written to {folder}",
        expected=expected,
        got=f"{reason}; {last}",
        fix=f"{fix}, then resume the run",
    )


def _check_names(step: int, state: TrainState) -> None:
    """Refuse what Orbax writes wrongly: of two names that differ in `.` only it keeps one leaf."""
    seen: set[str] = set()
    for keys, leaf in jax.tree.leaves_with_path(state):
        name = tree.path(keys)
        twin = name.replace("/", ".") in seen
        seen.add(name.replace("/", "."))
        if twin or not (hasattr(leaf, "dtype") or isinstance(leaf, bool | int | float | complex)):
            raise error(
                f"checkpoint {step}, leaf {name}",
                expected="a name of its own, . and / taken as one" if twin else "numbers",
                got="a second leaf of that name" if twin else type(leaf).__name__,
                fix="rename it" if twin else "keep other things outside the TrainState",
            )


def _check_target(step: int, saved: dict[str, Any], target: TrainState) -> None:
    """Compare names, types and shapes before anything is read: Orbax casts without a word."""
    wanted = {name: leaf_io.describe_type(leaf) for name, leaf in tree.flatten(target).items()}
    for name in [*wanted, *saved]:
        expected, got = (
            "{dtype} {shape}".format(**side[name]) if name in side else "no such leaf"
            for side in (wanted, saved)
        )
        if expected != got:
            raise _mismatch(f"checkpoint {step}, leaf {name}", expected, got)


def _mismatch(what: str, expected: str, got: str) -> InputError:
    return error(
        what,
        expected=f"{expected} (the learner's)",
        got=f"{got} (the checkpoint's)",
        fix="use the configuration that the run was started with",
    )


def _orbax_save(path: Path, state: TrainState) -> None:
    _orbax_begin(path, state).result()


def _orbax_begin(path: Path, state: TrainState) -> Any:
    from orbax.checkpoint import v1 as ocp

    # Orbax refuses arrays of size zero; the manifest has all there is to know about them.
    kept = jax.tree.map(lambda leaf: leaf if leaf.size else None, state)
    return ocp.save_async(str(path), kept)


def _orbax_load(step: int, path: Path, target: TrainState) -> PyTree:
    from orbax.checkpoint import v1 as ocp

    try:
        loaded = ocp.load(str(path), jax.tree.map(leaf_io.restore_target, target))
    except ValueError as refusal:  # files and leaves are right: containers without leaves differ
        where = [line for line in str(refusal).splitlines()[1:] if line.endswith(":")]
        raise _mismatch(
            f"checkpoint {step}", "these containers", f"others at {' '.join(where) or refusal}"
        ) from refusal
    return jax.tree.map(
        lambda like, leaf: np.empty(like.shape, like.dtype) if leaf is None else leaf,
        target,
        loaded,
    )
