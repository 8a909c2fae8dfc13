"""Whether a directory may become a run directory: it must be empty, or hold a run."""

import os
from collections.abc import Collection
from pathlib import Path

from jdl.core.errors import error
from jdl.core.paths import SYSTEM_NAMES
from jdl.run.storage.files import explain_write_errors
from jdl.run.storage.run_dir import RunDir

RESULT_NAMES = {".lock", "result.json", "sweep.json"}
"""Files of a run other than those that `RunDir` names."""

HARMLESS_NAMES = SYSTEM_NAMES | {".ds_store", ".gitignore", ".gitkeep", ".ipynb_checkpoints"}
"""Names, in lower case, that a directory may hold and still count as empty."""

SHOWN_NAMES = 3


def names_in(folder: Path, own: Collection[str] = ()) -> list[str]:
    """The names in a directory other than harmless ones and `own`; none if it does not exist."""
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    return [name for name in names if name not in own and name.lower() not in HARMLESS_NAMES]


def describe_path(path: Path) -> str:
    """What is at a path, for an error."""
    if path.is_dir():
        return f"a directory that holds {_shown(names_in(path))}"
    return "a file" if path.exists() else "no such directory"


def _shown(names: list[str]) -> str:
    more = len(names) - SHOWN_NAMES
    shown = ", ".join(names[:SHOWN_NAMES]) or "nothing"
    return shown + (f" and {more} more" if more > 0 else "")


def check_not_foreign(run_dir: RunDir) -> None:
    """Raise `InputError` for a directory that holds files, but no run.

    A run that ended before it had written its `config.json` counts as one. One that had trained
    does not: nothing tells with which settings.
    """
    if run_dir.exists() and run_dir.environment_file.exists():
        return
    if not run_dir.exists():
        _check_not_trained(run_dir)
    strangers = _foreign_names(run_dir)
    if strangers:
        raise error(
            f"run directory {run_dir.given}",
            expected="an empty or new directory, or that of a run",
            got=f"a directory that holds {_shown(strangers)}",
            fix=f"choose a new directory, such as {run_dir.given / 'run'}",
        )


def _check_not_trained(run_dir: RunDir) -> None:
    """Raise `InputError` for what a run writes after its `config.json`, without one."""
    files = [run_dir.metrics, run_dir.times, run_dir.report, run_dir.path / "result.json"]
    folders = [run_dir.checkpoints, run_dir.events, run_dir.profile, run_dir.figures]
    with explain_write_errors(run_dir.path):
        left = [path.name for path in files if path.exists()]
        left += [path.name for path in folders if path.is_dir() and any(path.iterdir())]
    if left:
        raise error(
            f"run directory {run_dir.path}",
            expected="an empty or new directory, or that of a run, with its config.json",
            got=f"{', '.join(sorted(left))} without config.json",
            fix="restore config.json from a backup, or choose a new directory, such as "
            f"{run_dir.path / 'run'}",
        )


def _foreign_names(run_dir: RunDir) -> list[str]:
    paths = [value for value in vars(run_dir).values() if isinstance(value, Path)]
    own = {path.name for path in paths if path.parent == run_dir.path} | RESULT_NAMES
    own |= {f".{name}.new" for name in own}  # `write_bytes` was interrupted
    with explain_write_errors(run_dir.path):
        return names_in(run_dir.path, own)
