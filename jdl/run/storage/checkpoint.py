"""Checkpoints of a `TrainState`: written in the background, verified by SHA-256 when read.

Orbax writes and reads the tensors; `orbax.checkpoint.v1.load` opens every `<step>/`. This module
adds three guarantees: a checkpoint exists only when all of it is on disk, every file and every leaf
has a SHA-256, and a leaf of another type is an error instead of a silent cast. Reading never
executes code: the formats are JSON and zarr.
"""

import logging
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import jax

from jdl.core.errors import InputError, error, from_json
from jdl.core.paths import user_path
from jdl.core.types import TrainState
from jdl.run.distributed.collectives import is_failed_collective
from jdl.run.storage.files import explain_write_errors, removed, sync_directory, write_json
from jdl.run.storage.manifest import (
    MANIFEST,
    CorruptCheckpoint,
    check_leaves,
    describe,
    read_manifest,
)
from jdl.run.storage.manifest import write_manifest as _write_manifest
from jdl.run.storage.orbax_io import begin_save as _orbax_begin
from jdl.run.storage.orbax_io import load_leaves as _orbax_load_leaves
from jdl.run.storage.orbax_io import save as _orbax_save
from jdl.run.storage.tree_io import check_names, read_tree, to_host, write_error

log = logging.getLogger("jdl")
Read = TypeVar("Read")


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
        check_names(f"checkpoint {step}", state)
        copy = to_host(state)
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
            described = describe(state)
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
            return (
                jax.process_count() == 1
                and read_manifest(self._at(step), step)["leaves"] == described
            )
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

    def _read_leaves(self, step: int) -> dict[str, Any]:
        saved = read_manifest(self._at(step), step)["leaves"]
        leaves = _orbax_load_leaves(self._at(step), saved)
        check_leaves(leaves, saved)
        return leaves

    def _read(self, step: int, target: TrainState) -> TrainState:
        saved = read_manifest(self._at(step), step)["leaves"]
        return read_tree(self._at(step), saved, target, f"checkpoint {step}", mismatch)


def best_record(step: int, value: float | None) -> dict[str, Any]:
    """The content of `best.json`."""
    return {"step": int(step)} | ({} if value is None else {"value": float(value)})


def mismatch(what: str, expected: str, got: str) -> InputError:
    """The error of a checkpoint that another learner has written."""
    return error(
        what,
        expected=f"{expected} (in the learner)",
        got=f"{got} (in the checkpoint)",
        fix="build the learner with the configuration that the run was started with",
    )


def _write_error(failure: Exception, step: int, folder: Path, good: list[int]) -> InputError:
    """The error of a failed write, with the reason and a fix."""
    if not folder.parent.is_dir():
        return removed(folder.parent)
    last = f"the last good checkpoint is step {good[-1]}" if good else "no earlier checkpoint"
    return write_error(
        failure, f"checkpoint {step} was not written to {folder}", last, "resume the run"
    )
