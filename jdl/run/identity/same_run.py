"""Start a run directory, or check that it holds the same run; if not, say what differs."""

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
    """Create the directory of a new run, or check that the run in it can be resumed.

    Raises `InputError` if settings, data or program differ, with a diff of the experiment's source.
    Some runs resume with a warning: if the source was edited and computes the same, if the program
    was traced by other versions, and if the directory has no fingerprint. Returns the old constants
    of the schedules if these depend on the number of steps and `epochs` has grown, else None.
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
    recorded = _recorded(run_dir)
    run_dir.check_same_config(config, differences, diff, record if record != recorded else None)
    for name, part in record["data"].items() if recorded else ():
        if part["hash"] and part["hash of"] != "all bytes" and name != "order":
            log.info("data   %s was compared by its hash of %s", name, part["hash of"])
    for notice in found.notices:
        log.warning("run directory %s: %s", run_dir.given, notice)
    if diff:
        log.warning(
            "run directory %s: the experiment was edited since the run began%s\n%s",
            run_dir.given,
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
    """What a fork changes: settings, data, program."""
    settings = parent.described_changes(config)
    return [*settings, *_worth_showing(compare_with_run(parent, record).differences, settings)]


def log_schedule_change(setup: "TrainingSetup", before: list[Any], state: TrainState) -> None:
    """Warn that the rate of a schedule jumps at this state because the run has more steps."""
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
    """The differences to show. If settings differ, order and program follow and are left out."""
    own = ("data: train", "data: valid")
    return [text for text in differences if not settings or text.startswith(own)]


def _shown(values: np.ndarray) -> str:
    """A rate without the optimizer's sign, or the range of rates of several members."""
    low, high = np.abs(values).min(), np.abs(values).max()
    return f"{low:.4g}" if low == high else f"{low:.4g} ... {high:.4g}"
