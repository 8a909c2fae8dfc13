"""`jdl list`: list the runs in a directory."""

from pathlib import Path

from jdl.core.paths import user_path
from jdl.run.storage.files import read_json
from jdl.run.storage.run_dir import RunDir


def command(given: list[str]) -> int | None:
    """`jdl list [DIRECTORY]`."""
    from jdl.run.storage.metrics_log import read_metrics

    root = user_path(given[0]) if given else Path("runs")
    found = sorted(root.glob("**/config.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        print(f"no runs in {root}")
    for path in found:
        folder = RunDir(path.parent)
        rows = read_metrics(folder.metrics) if folder.metrics.is_file() else []
        result = folder.path / "result.json"
        metrics = read_json(result) if result.is_file() else {}
        text = "  ".join(f"{k} {v:.4g}" for k, v in metrics.items() if isinstance(v, float))
        print(f"{folder.path}  step {rows[-1]['step'] if rows else 0}  {text}{_origin(folder)}")
    return None


def _origin(folder: RunDir) -> str:
    """Of a fork: the checkpoint that it began from, and what was changed."""
    from jdl.run.fork import read_parent

    parent = read_parent(folder)
    if parent is None:
        return ""
    changes = "; ".join(map(str, parent.get("changes", [])))
    return f"  fork of {parent['run']}@{parent['step']}" + (f" ({changes})" if changes else "")
