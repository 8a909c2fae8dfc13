"""Checkpoints of a `TrainState`: written in the background, verified by SHA-256 when read.

Orbax writes and reads the tensors; `orbax.checkpoint.v1.load` opens every `<step>/`. This module
adds three guarantees: a checkpoint exists only when all of it is on disk, every file and every leaf
has a SHA-256, and a leaf of another type is an error instead of a silent cast. Reading never
executes code: the formats are JSON and zarr.
"""

import errno
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import jax

from jdl.core import tree
from jdl.core.errors import InputError, error, from_json
from jdl.core.paths import user_path
from jdl.core.types import TrainState
from jdl.run.distributed.collectives import is_failed_collective
from jdl.run.storage import leaf_io
from jdl.run.storage.files import explain_write_errors, removed, sync_directory, write_json
from jdl.run.storage.orbax_io import begin_save as _orbax_begin
from jdl.run.storage.orbax_io import load as _orbax_load
from jdl.run.storage.orbax_io import load_leaves as _orbax_load_leaves
from jdl.run.storage.orbax_io import mismatch
from jdl.run.storage.orbax_io import save as _orbax_save

log = logging.getLogger("jdl")
MANIFEST = "manifest.json"
Read = TypeVar("Read")


class CorruptCheckpoint(Exception):
    """A checkpoint on disk differs from what was written."""


class Checkpoints:
    """The checkpoints of one run, one subdirectory for each step.

    The newest `keep` checkpoints are kept, and the best one. Only one run may write to the
    directory (see `RunDir.lock`). With several JAX processes all of them call `save` and `restore`;
    process 0 writes the manifest and deletes old checkpoints.
    """

    def __init__(self, folder: Path, keep: int = 2):
        if keep < 1:
            raise error("keep", expected="1 or more", got=str(keep), fix="use keep=2, the default")
        self.folder = user_path(folder).absolute()
        self.keep = keep
        self._made = False
        self._worker: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None

    def save(
        self,
        step: int,
        state: TrainState,
        *,
        best: bool = False,
        value: float | None = None,
        protected: int | None = None,
        wait: bool = False,
    ) -> None:
        """Copy the state to the host, and write it as `<step>/` in the background.

        You may donate or change `state` as soon as this returns. The checkpoint is durable after
        `wait=True`, `wait()` or the next `save`; these raise `InputError` if the write failed.
        `best=True` keeps it until a better one is saved, and records the metric's `value`. The
        checkpoint of the step `protected` is kept in this call, too. Saving a step again replaces
        it, and costs nothing if the content is the same.
        """
        self.wait()
        _check_names(step, state)
        for leaf in jax.tree.leaves(state):
            if isinstance(leaf, jax.Array) and not leaf_io.is_distributed(leaf):
                leaf.copy_to_host_async()
        copy = jax.tree.map(leaf_io.to_host, state)
        # With several processes a save begins with a collective, which must not run at the same
        # time as those of training. The rest, in the background, uses the coordinator only.
        orbax_save = self._begin(int(step), copy) if jax.process_count() > 1 else None
        self._worker = self._worker or ThreadPoolExecutor(1, "jdl-checkpoint")
        record = best_record(step, value) if best else None
        self._pending = self._worker.submit(
            self._write, int(step), copy, record, protected, orbax_save
        )
        if wait:
            self.wait()

    def wait(self) -> None:
        """Block until every save is durable; raise the error of one that failed."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def steps(self) -> list[int]:
        """Steps with a complete checkpoint, in ascending order. Damage shows only in `restore`."""
        return [step for step in self._numbered() if (self._at(step) / MANIFEST).is_file()]

    def best(self) -> int | None:
        """The step last saved as the best one, or None."""
        saved = self.saved_best()
        return None if saved is None else saved[0]

    def saved_best(self) -> tuple[int, float | None] | None:
        """The step last saved as the best one, and its metric if that is known."""
        file = self.folder / "best.json"
        if not file.is_file():
            return None
        try:
            record = from_json(file.read_bytes())
            step, value = int(record["step"]), record.get("value")
            value = None if value is None else float(value)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as bad:
            log.warning("%s cannot be read (%s): the best step is unknown", file, bad)
            return None
        return (step, value) if step in self.steps() else None

    def mark_best(self, step: int | None, value: float | None = None) -> None:
        """Record which of the saved steps is the best one; None if none is."""
        if step is None:
            with explain_write_errors(self.folder):
                (self.folder / "best.json").unlink(missing_ok=True)
        elif step in self.steps() and self.saved_best() != (step, value):
            write_json(self.folder / "best.json", best_record(step, value))

    def restore(self, target: TrainState, step: int | None = None) -> tuple[TrainState, int]:
        """Read the newest good checkpoint, or the one of `step`; return the state and its step.

        `target` gives the tree, shapes, types and shardings to expect: a state, or the output of
        `jax.eval_shape`. Without `step` a damaged checkpoint logs a warning, and the one before it
        is tried.

        Raises `InputError` if a leaf differs from the target, if the checkpoint of `step` is
        damaged, and if no good checkpoint is left.
        """
        self.wait()
        return self._newest_good(step, lambda candidate: self._read(candidate, target))

    def _newest_good(self, step: int | None, read: Callable[[int], Read]) -> tuple[Read, int]:
        damaged = []
        for candidate in [step] if step is not None else self._numbered()[::-1]:
            try:
                return read(candidate), candidate
            except CorruptCheckpoint as damage:
                damaged.append(f"step {candidate}: {damage}")
                if step is None:
                    log.warning("checkpoint %d is skipped: %s", candidate, damage)
        raise error(
            "no good checkpoint left" if step is None else f"checkpoint {step} cannot be used",
            expected=f"an undamaged checkpoint in {self.folder}",
            got="; ".join(damaged) or "no checkpoint",
            fix="restore the directory from a backup, or start a new run"
            if step is None
            else f"choose one of the steps {self.steps()}",
        )

    def read(self, step: int | None = None) -> tuple[dict[str, Any], int]:
        """The leaves of the newest good checkpoint (or that of `step`) by path, and its step.

        Leaves are numpy arrays and typed keys of any shape; nothing is asked of the tree around
        them. Raises `InputError` as `restore` does.
        """
        return self._newest_good(step, self._read_leaves)

    def _at(self, step: int) -> Path:
        return self.folder / str(step)

    def _numbered(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        return sorted(int(entry.name) for entry in self.folder.iterdir() if entry.name.isdecimal())

    def _make_folder(self) -> None:
        """Make the folder; its parents only once, so that a run that was removed stays so."""
        self.folder.mkdir(parents=not self._made, exist_ok=True)
        self._made = True

    def _begin(self, step: int, state: TrainState) -> Any:
        try:
            self._make_folder()
            self._sweep()
            return _orbax_begin(self.folder / f".new-{step}", state)
        except Exception as failure:
            if is_failed_collective(failure):
                raise
            raise _write_error(failure, step, self.folder, self.steps()) from failure

    def _write(
        self,
        step: int,
        state: TrainState,
        best: dict[str, Any] | None,
        protected: int | None,
        orbax_save: Any = None,
    ) -> None:
        new = self.folder / f".new-{step}"
        try:
            described = {name: leaf_io.describe(leaf) for name, leaf in tree.flatten(state).items()}
            if orbax_save is not None:
                orbax_save.result()
                self._commit(new, step, described)
            elif not self._has(step, described):
                self._make_folder()
                self._sweep()
                _orbax_save(new, state)
                self._commit(new, step, described)
            if jax.process_index() == 0:
                self._retain(step, best, protected)
        except Exception as failure:
            if is_failed_collective(failure):
                raise
            self._sweep()
            raise _write_error(failure, step, self.folder, self.steps()) from failure

    def _commit(self, new: Path, step: int, described: dict[str, Any]) -> None:
        """Rename to `<step>/`, which makes the checkpoint exist, after all of it is on disk."""
        if jax.process_index() == 0:
            _write_manifest(new, step, described)
            aside = self.folder / f".old-{step}"
            if self._at(step).exists():
                os.rename(self._at(step), aside)
            os.rename(new, self._at(step))
            sync_directory(self.folder)
            shutil.rmtree(aside, ignore_errors=True)

    def _has(self, step: int, described: dict[str, Any]) -> bool:
        try:  # several processes could disagree, and would then wait for each other
            return jax.process_count() == 1 and self._check(step)["leaves"] == described
        except CorruptCheckpoint:
            return False

    def _retain(self, step: int, best: dict[str, Any] | None, protected: int | None) -> None:
        if best is not None:
            write_json(self.folder / "best.json", best)
        kept = {self.best(), protected}
        # Later steps exist if the run resumed before a damaged checkpoint. They do not count as the
        # newest, and are replaced when the run reaches them.
        for old in [old for old in self.steps() if old <= step][: -self.keep]:
            if old not in kept:
                self._remove(old)

    def _remove(self, step: int) -> None:
        """Delete a checkpoint; the rename first, so that half a deletion does not look damaged."""
        aside = self.folder / f".old-{step}"
        os.rename(self._at(step), aside)
        shutil.rmtree(aside, ignore_errors=True)

    def _sweep(self) -> None:
        """Delete what a killed process or a failed save left half written."""
        if jax.process_index() == 0 and self.folder.is_dir():
            for entry in [*self.folder.glob(".new-*"), *self.folder.glob(".old-*")]:
                shutil.rmtree(entry, ignore_errors=True)

    def _check(self, step: int) -> dict[str, Any]:
        """The manifest of a step; every file has been compared with it."""
        folder = self._at(step)
        try:
            if not (folder / MANIFEST).is_file():
                raise FileNotFoundError
            manifest = from_json((folder / MANIFEST).read_bytes())
            body = manifest["body"]
            if manifest["sha256"] != _digest(body) or body["step"] != step:
                raise CorruptCheckpoint(f"{MANIFEST} was changed (SHA-256 differs)")
            _check_manifest(body)
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

    def _read_leaves(self, step: int) -> dict[str, Any]:
        saved = self._check(step)["leaves"]
        leaves = _orbax_load_leaves(self._at(step), saved)
        _check_leaves(leaves, saved)
        return leaves

    def _read(self, step: int, target: TrainState) -> TrainState:
        saved = self._check(step)["leaves"]
        _check_target(step, saved, target)
        loaded = _orbax_load(step, self._at(step), target)
        _check_leaves(tree.flatten(loaded), saved)
        placed = jax.tree.map(leaf_io.to_device, target, loaded)
        for name, leaf in tree.flatten(placed).items():
            if leaf_io.describe_type(leaf)["dtype"] != saved[name]["dtype"]:
                raise error(
                    f"checkpoint {step}, leaf {name}",
                    expected=f"an array of {saved[name]['dtype']}",
                    got=f"{leaf_io.describe_type(leaf)['dtype']}, which JAX converts it to",
                    fix='call jax.config.update("jax_enable_x64", True) first',
                )
        return placed


def best_record(step: int, value: float | None) -> dict[str, Any]:
    """The content of `best.json`."""
    return {"step": int(step)} | ({} if value is None else {"value": float(value)})


def _check_leaves(leaves: dict[str, Any], saved: dict[str, Any]) -> None:
    """Raise `CorruptCheckpoint` if the digest of a leaf is not the recorded one."""
    for name, leaf in leaves.items():
        digests = {leaf_io.describe(leaf)["sha256"], saved[name]["sha256"]} - {None}
        if len(digests) > 1:
            raise CorruptCheckpoint(f"leaf {name} was changed (SHA-256 differs)")


def _check_manifest(body: dict[str, Any]) -> None:
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


def _write_manifest(folder: Path, step: int, described: dict[str, Any]) -> None:
    """Make every file durable, then write the manifest."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {p.relative_to(folder).as_posix(): _digest_file(p, sync=True) for p in paths}
    for path in {p.parent for p in paths}:
        sync_directory(path)
    body = {"step": step, "files": files, "leaves": described}
    write_json(folder / MANIFEST, {"sha256": _digest(body), "body": body})


def _write_error(failure: Exception, step: int, folder: Path, good: list[int]) -> InputError:
    """The error of a failed write, with the reason and a fix."""
    if not folder.parent.is_dir():
        return removed(folder.parent)
    if isinstance(failure.__cause__, OSError):  # without the file's name, which does not help
        failure = failure.__cause__
    number, text = getattr(failure, "errno", None), str(failure).strip().splitlines()
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
    last = f"the last good checkpoint is step {good[-1]}" if good else "no earlier checkpoint"
    return error(
        f"checkpoint {step} was not written to {folder}",
        expected=expected,
        got=f"{reason}; {last}",
        fix=f"{fix}, then resume the run",
    )


def _check_names(step: int, state: TrainState) -> None:
    """Raise `InputError` for what Orbax cannot write: it takes `a.b` and `a/b` as one leaf."""
    seen: set[str] = set()
    for keys, leaf in jax.tree.leaves_with_path(state):
        name = tree.path(keys)
        twin = name.replace("/", ".") in seen
        seen.add(name.replace("/", "."))
        if twin or not (hasattr(leaf, "dtype") or isinstance(leaf, bool | int | float | complex)):
            raise error(
                f"checkpoint {step}, leaf {name}",
                expected="a unique name, . and / treated alike" if twin else "an array or a number",
                got="a second leaf of that name" if twin else f"a {type(leaf).__name__}",
                fix="rename the leaf" if twin else "keep such objects outside the TrainState",
            )


def _check_target(step: int, saved: dict[str, Any], target: TrainState) -> None:
    """Compare names, types and shapes before tensors are read: Orbax casts silently."""
    target_leaves = {n: leaf_io.describe_type(leaf) for n, leaf in tree.flatten(target).items()}
    for name in [*target_leaves, *saved]:
        expected, got = (
            "{dtype} {shape}".format(**side[name]) if name in side else "no such leaf"
            for side in (target_leaves, saved)
        )
        if expected != got:
            raise mismatch(f"checkpoint {step}, leaf {name}", expected, got)
