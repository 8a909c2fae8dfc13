"""`jdl list`: list the runs in a directory."""

import os
from pathlib import Path

from jdl.core.errors import InputError
from jdl.core.paths import user_path
from jdl.run.storage.files import read_json
from jdl.run.storage.run_dir import RunDir


def command(given: list[str]) -> int | None:
    """`jdl list [DIRECTORY]`."""
    root = user_path(given[0]) if given else Path("runs")
    found = sorted(filter(os.path.isfile, root.glob("**/config.json")), key=os.path.getmtime)
    if not found:
        print(f"no runs in {root}")
    for path in found:
        try:
            text = _described(RunDir(path.parent))
        except (InputError, OSError) as damage:
            text = f"cannot be read: {_first_lines(damage)}"
        print(f"{path.parent}  {text}")
    return None


def _described(folder: RunDir) -> str:
    """Step, result and origin of a run."""
    from jdl.run.storage.metrics_log import read_metrics

    rows = read_metrics(folder.metrics)
    result = folder.path / "result.json"
    metrics = read_json(result) if result.is_file() else {}
    text = "  ".join(f"{k} {v:.4g}" for k, v in metrics.items() if isinstance(v, float))
    step = max((row.get("step", 0) for row in rows), default=0)
    return f"step {step}  {text}{_origin(folder)}"


def _first_lines(damage: Exception) -> str:
    """The subject of an `InputError` and what was found, in one line."""
    subject, *details = str(damage).splitlines() or [type(damage).__name__]
    got = [line.partition("got:")[2].strip() for line in details if "got:" in line]
    return ": ".join([subject, *got[:1]])


def _origin(folder: RunDir) -> str:
    """Of a fork: the checkpoint that it began from, and what was changed."""
    from jdl.run.fork import read_parent

    parent = read_parent(folder)
    if parent is None:
        return ""
    changes = "; ".join(map(str, parent.get("changes") or []))
    return f"  fork of {parent['run']}@{parent['step']}" + (f" ({changes})" if changes else "")
