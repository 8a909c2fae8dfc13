"""A run directory is begun, or found to hold the same run; else it is refused with what differs."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jdl.core.types import TrainState
from jdl.run.fork import check_same_parent
from jdl.run.identity.compare import Comparison, compare_fingerprints
from jdl.run.identity.program import schedule_change
from jdl.run.storage.files import read_json
from jdl.run.storage.run_dir import RunDir

if TYPE_CHECKING:
    from jdl.run.setup import TrainingSetup

log = logging.getLogger("jdl")


def begin_run(setup: "TrainingSetup", run_dir: RunDir) -> list[Any] | None:
    """Make the directory of a new run, or check that the run in it may be resumed.

    Raises `InputError` where settings, data or program differ, with a diff of the experiment's
    source. An edited source that computes the same is accepted with a warning, and so is what
    cannot be compared: programs of other versions, and directories without a fingerprint. Returns
    the old constants of the schedules where they follow a larger number of steps.
    """
    settings = {"fit": setup.settings()}
    record = setup.fingerprint.record()
    if not run_dir.exists():
        records = {"fingerprint.json": record}
        if setup.parent is not None:
            config = run_dir.full_config(settings)
            records["parent.json"] = setup.parent.record(
                describe_changes(RunDir(setup.parent.run), config, record)
            )
        run_dir.begin(settings, records)
        return None
    run_dir.open()
    check_same_parent(run_dir, setup.parent)
    config, diff = run_dir.full_config(settings), run_dir.source_diff()
    found = compare_with_run(run_dir, record)
    differences = _worth_showing(found.differences, run_dir.differing_settings(config))
    is_changed = record != _recorded(run_dir)
    run_dir.check_same_config(config, differences, diff, record if is_changed else None)
    for name, part in record["data"].items():
        if part["hash of"] != "all bytes" and name != "order":
            log.info("data   %s was compared by %s", name, part["hash of"])
    for notice in found.notices:
        log.warning("run directory %s: %s", run_dir.path, notice)
    if diff:
        log.warning(
            "run directory %s: the experiment was edited since the run began%s\n%s",
            run_dir.path,
            "" if found.notices else "; its data and program are the same",
            diff,
        )
    return found.schedule


def compare_with_run(run_dir: RunDir, record: Mapping[str, Any]) -> Comparison:
    """How a fingerprint differs from the one in a run directory."""
    recorded = _recorded(run_dir)
    if recorded is None:
        return Comparison(
            notices=["it has no fingerprint.json: data and program were not compared"]
        )
    return compare_fingerprints(recorded, record)


def describe_changes(parent: RunDir, config: Mapping[str, Any], record: Any) -> list[str]:
    """What a fork states anew: settings, data, program."""
    settings = parent.described_changes(config)
    return [*settings, *_worth_showing(compare_with_run(parent, record).differences, settings)]


def log_schedule_change(setup: "TrainingSetup", before: list[Any], state: TrainState) -> None:
    """Log how the rate of a schedule jumps at this state, now that the run has more steps."""
    step = int(state.step)
    leaves = jax.tree.leaves(setup.caller_state(state))
    pairs = schedule_change(setup.fingerprint.programs["step"], leaves, before)
    shown = [f"from {_shown(was)} to {_shown(now)}" for was, now in pairs]
    log.warning(
        "a schedule depends on the number of steps, now %d: at step %d its rate %s",
        setup.total_steps,
        step,
        "jumps " + ", ".join(dict.fromkeys(shown)) if shown else "is the same as before",
    )


def _recorded(run_dir: RunDir) -> dict[str, Any] | None:
    return read_json(run_dir.fingerprint_file) if run_dir.fingerprint_file.exists() else None


def _worth_showing(differences: list[str], settings: list[str]) -> list[str]:
    """Differences to tell next to those of the settings, which change order and program too."""
    own = ("data: train", "data: valid")
    return [text for text in differences if not settings or text.startswith(own)]


def _shown(values: np.ndarray) -> str:
    """A rate, or the range of rates of several members; its sign is the optimizer's."""
    low, high = np.abs(values).min(), np.abs(values).max()
    return f"{low:.4g}" if low == high else f"{low:.4g} ... {high:.4g}"
