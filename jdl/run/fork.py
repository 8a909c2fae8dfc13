"""Start a new run from the whole checkpoint of another, with the changes that you make."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from jdl.core import tree
from jdl.core.errors import InputError, error
from jdl.core.paths import user_path
from jdl.core.types import TrainState
from jdl.run.storage import leaf_io
from jdl.run.storage.checkpoint import Checkpoints
from jdl.run.storage.files import read_json
from jdl.run.storage.run_dir import RunDir

if TYPE_CHECKING:
    from jdl.run.setup import TrainingSetup

SHOWN_LEAVES = 8
"""Leaves that an error names."""

RUN_RECORDS = ("extra/inner/inner", "extra/inner")
"""Path of the records of the caller's learner in a checkpoint, with and without a guard of the run:
`fit` keeps its own records around them."""

HYPERPARAMETERS = re.compile(r"opt_state/(.*/)?hyperparams/|(inner/)*values/")
"""Hyperparameters in a state (of `optax.inject_hyperparams`, of a sweep). A fork takes those of the
new learner: the parent's would undo your change."""


class Parent(NamedTuple):
    """The checkpoint that a run was forked from."""

    run: str
    step: int

    def record(self, changes: list[str]) -> dict[str, Any]:
        """The content of `parent.json` in the directory of the new run."""
        return {"run": self.run, "step": self.step, "changes": changes}


def parse_fork(fork: str | Path) -> tuple[RunDir, int | None]:
    """The run directory and the step of `RUN@STEP`; for `RUN` alone the step is None, the newest.

    >>> run_dir, step = parse_fork("runs/digits/1@200")
    >>> run_dir.path.name, step
    ('1', 200)
    """
    run, at, step = str(user_path(fork, "fork")).rpartition("@")
    if at and step.isdecimal():
        return RunDir(run), int(step)
    return RunDir(fork), None


def read_parent(run_dir: RunDir) -> dict[str, Any] | None:
    """The recorded parent of a fork, its step and the changes; None if the run is not a fork."""
    if not run_dir.parent_file.exists():
        return None
    found = read_json(run_dir.parent_file)
    run, step, changes = (found.get(name) for name in ("run", "step", "changes"))
    if not (isinstance(run, str) and type(step) is int and isinstance(changes, list | None)):
        raise error(
            str(run_dir.parent_file),
            expected="the run and the step of a parent",
            got=str(found)[:80],
            fix="restore the file from a backup, or start a new run",
        )
    return found


def check_only_one_begin(start: TrainState | None) -> None:
    """Raise `InputError` if both `fork` and `start` are given."""
    if start is not None:
        raise error(
            "fork",
            expected="either fork (the whole checkpoint) or start (only its weights)",
            got="both",
            fix="leave one of them out",
        )


def start_fork(
    fork: str | Path, setup: "TrainingSetup", state: TrainState
) -> tuple[TrainState, Parent]:
    """The first state of a new run, `state` with the values of the checkpoint, and its parent.

    Step, parameters, model state, moments and the records of transforms (`ema`, ...) are carried
    over, and the key if the seed is the same. If the run directory holds this fork already, `state`
    is returned unchanged, and the run resumes. Raises `InputError` naming every leaf that cannot be
    carried over: one of another shape or type, or one that only the learner or the checkpoint has.
    """
    run, step = parse_fork(fork)
    if setup.run_dir is not None and setup.run_dir.exists():
        return state, _recorded_parent(setup.run_dir, run, step)
    seed = run.open().config().get("fit", {}).get("seed")
    leaves, step = Checkpoints(run.checkpoints).read(step)
    if step >= setup.total_steps:
        raise error(
            "epochs",
            expected=f"more steps than the {step} of the checkpoint {run.given}@{step}",
            got=f"{setup.epochs:g} epochs, {setup.total_steps} steps in all",
            fix="raise epochs, which count from step 0 of the parent",
        )
    state = carry_over(
        state,
        leaves,
        f"{run.given}@{step}",
        guarded=bool(setup.guard),
        keep_key=seed == setup.seed,
    )
    return state, Parent(str(run.path), step)


def carry_over(
    state: TrainState, saved: Mapping[str, Any], name: str, *, guarded: bool, keep_key: bool
) -> TrainState:
    """`state` with the leaves `saved` of a checkpoint, by the paths of `tree.flatten`.

    The records of the run itself stay new: its sums of metrics and, if `guarded`, its guard.
    """
    leaves, own = tree.flatten(state), RUN_RECORDS[0 if guarded else 1]
    records = [n.removeprefix(own) for n in leaves if _is_below(n, own)]
    theirs = max(RUN_RECORDS, key=lambda p: sum(p + n in saved for n in records))
    source = {}
    for leaf in leaves:
        if _is_below(leaf, own):
            source[leaf] = theirs + leaf.removeprefix(own)
        elif not leaf.startswith("extra/"):
            source[leaf] = leaf
    stated = [n for n in source if HYPERPARAMETERS.match(n.removeprefix(f"{own}/"))]
    for leaf in [*stated, *([] if keep_key else ["key"])]:
        source.pop(leaf)
    _check_leaves(name, leaves, source, saved)
    return jax.tree.map_with_path(
        lambda keys, like: (
            _placed(like, saved[source[path]]) if (path := tree.path(keys)) in source else like
        ),
        state,
    )


def check_same_parent(run_dir: RunDir, parent: Parent | None) -> None:
    """Raise `InputError` if a fork without a checkpoint is resumed without its parent."""
    recorded = read_parent(run_dir)
    if recorded and parent is None and not Checkpoints(run_dir.checkpoints).steps():
        raise error(
            f"run directory {run_dir.given}",
            expected="a checkpoint, or the run that it was forked from",
            got="neither",
            fix=f'give fork="{recorded["run"]}@{recorded["step"]}" again (--run.fork)',
        )


def _recorded_parent(run_dir: RunDir, run: RunDir, step: int | None) -> Parent:
    recorded = read_parent(run_dir)
    if (
        recorded is None
        or Path(recorded["run"]).resolve() != run.path.resolve()
        or step not in (None, recorded["step"])
    ):
        raise error(
            f"run directory {run_dir.given}",
            expected="a new directory, or that of the same fork",
            got="the directory of a run that is no fork"
            if recorded is None
            else f"the directory of a fork of {recorded['run']}@{recorded['step']}",
            fix="choose another directory",
        )
    return Parent(recorded["run"], recorded["step"])


def _is_below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}/")


def _check_leaves(
    name: str, leaves: Mapping[str, Any], source: Mapping[str, str], saved: Mapping[str, Any]
) -> None:
    found = []
    for leaf, origin in source.items():
        want = _type(leaves[leaf])
        got = _type(saved[origin]) if origin in saved else "no such leaf"
        if want != got:
            found.append((leaf, want, got))
    trained = ("params/", "model_state/", "opt_state/")
    found += [
        (leaf, "no such leaf", _type(value))
        for leaf, value in saved.items()
        if leaf not in leaves and leaf.startswith(trained)
    ]
    if found:
        raise _refusal(name, found)


def _refusal(name: str, found: list[tuple[str, str, str]]) -> InputError:
    model = [each for each in found if each[0].startswith(("params/", "model_state/"))]
    found = model or found  # the moments of a parameter have its shape
    more = f"; and {len(found) - SHOWN_LEAVES} more" if len(found) > SHOWN_LEAVES else ""
    return error(
        f"fork of {name}",
        expected="; ".join(f"{leaf} {want}" for leaf, want, _ in found[:SHOWN_LEAVES]) + more,
        got="; ".join(f"{leaf} {got}" for leaf, _, got in found[:SHOWN_LEAVES]) + more,
        fix="use the model of that run (a fork keeps all shapes), or start a run without fork"
        if model
        else "keep the optimizer and transforms of that run, or start from its weights only: "
        "start=result.state (--run.start)",
    )


def _type(leaf: Any) -> str:
    return "{dtype} {shape}".format(**leaf_io.describe_type(leaf))


def _placed(like: Any, value: Any) -> Any:
    """A leaf of the checkpoint on the devices of the state's; keys and shards included."""
    if leaf_io.is_distributed(like):
        array = np.asarray(value)
        return jax.make_array_from_callback(array.shape, like.sharding, lambda i: array[i])
    return leaf_io.to_device(like, value)
