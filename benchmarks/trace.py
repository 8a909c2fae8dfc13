"""What a device spent its time on: a few steps under jax's profiler, and the sums of its events."""

import collections
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple


class Profile(NamedTuple):
    """Time of a device by the name of a kernel, longest first, in microseconds."""

    kernels: dict[str, float]
    busy: float
    """All kernels together."""
    span: float
    """From the start of the first to the end of the last, or what they take without a profiler."""

    def text(self, steps: int, top: int = 5) -> str:
        """The kernels that take most, in Markdown, and which is the first thing to fix."""
        if not self.kernels:
            return "The trace holds no event of a device."
        lines = [
            f"{self.busy / steps / 1e3:.3g} ms of kernels a step of {self.span / steps / 1e3:.3g} "
            f"ms; the device is idle for {self.idle:.0%} of them.",
            "",
            "| kernel | share | ms a step |",
            "|---|---|---|",
        ]
        for name, spent in list(self.kernels.items())[:top]:
            lines.append(f"| `{name}` | {spent / self.busy:.1%} | {spent / steps / 1e3:.3g} |")
        return "\n".join([*lines, "", f"The first thing to fix: {self.first}."])

    @property
    def idle(self) -> float:
        """The share of the span in which no kernel runs, were they all one after the other."""
        return max(0.0, 1 - self.busy / self.span)

    @property
    def first(self) -> str:
        """Where most of the time goes: waiting, or the longest kernel."""
        name, spent = next(iter(self.kernels.items()))
        if self.idle * self.span > spent:
            return "the gaps between kernels (more steps a dispatch, or larger ones)"
        return f"`{name}`, {spent / self.busy:.0%} of the kernels' time"


def traced(run: Callable[[], Any], folder: Path) -> Profile:
    """Call `run`, which ends when its work on the device has, under the profiler."""
    import jax

    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # else Python's own calls fill the trace
    with jax.profiler.trace(folder, profiler_options=options):
        run()
    newest = max(folder.rglob("*.trace.json.gz"), key=lambda path: path.stat().st_mtime)
    with gzip.open(newest, "rt") as file:
        return of_events(json.load(file)["traceEvents"])


def of_events(events: list[dict[str, Any]]) -> Profile:
    """The sums over the device's own events."""
    sums: collections.Counter[str] = collections.Counter()
    start, end = float("inf"), 0.0
    for event in _kernels(events):
        sums[event["name"]] += event["dur"]
        start, end = min(start, event["ts"]), max(end, event["ts"] + event["dur"])
    return Profile(dict(sums.most_common()), float(sum(sums.values())), end - start)


def _kernels(events: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Kernels on a GPU's streams; on CPU, where there are none, the operations of XLA's programs.

    Other lines of a GPU tell the same time again, by operation, module and step.
    """
    names: dict[Any, str] = {}
    for event in events:
        if event.get("ph") == "M" and event.get("name") in ("process_name", "thread_name"):
            of_process = event["name"] == "process_name"
            names[event["pid"] if of_process else (event["pid"], event["tid"])] = event["args"][
                "name"
            ]
    gpu = {pid for pid, name in names.items() if not isinstance(pid, tuple) and "GPU" in name}
    for event in events:
        if event.get("ph") != "X" or "dur" not in event:
            continue
        if gpu:
            stream = names.get((event["pid"], event["tid"]), "").startswith("Stream")
            if event["pid"] in gpu and stream:
                yield event
        elif "hlo_op" in event.get("args", {}):
            yield event
