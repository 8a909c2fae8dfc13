"""Seconds of new processes, in turns, with an empty and with a warm compilation cache.

One use is the start: from the start of a process to the end of the first step of the CNN.
"""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence

from benchmarks.step_time import Peer
from benchmarks.tables import markdown_table, median_and_range, median_ratio

CACHED = "jdl_train"
"""The peer that keeps compiled programs for the next process."""


def first_step(peer: str, environment: Mapping[str, str]) -> float:
    """How long one process takes to its first step."""
    process = Peer(peer, "cnn", environment, first_step_only=True)
    process.end()
    return process.first_step


def cold_and_warm(
    seconds: Callable[[str, Mapping[str, str]], float], peers: Sequence[str], rounds: int
) -> dict[str, list[float]]:
    """`seconds(peer, environment)` of every peer in every round; twice where there is a cache."""
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for peer in peers:
            if peer != CACHED:
                found.setdefault(peer, []).append(seconds(peer, os.environ))
                continue
            with tempfile.TemporaryDirectory() as cache:
                for state in ("empty", "warm"):
                    spent = seconds(peer, {**os.environ, "XDG_CACHE_HOME": cache})
                    found.setdefault(f"{peer}, {state} cache", []).append(spent)
    return found


def table(title: str, found: Mapping[str, Sequence[float]]) -> str:
    """Seconds, with ratios to PyTorch where it is installed."""
    head, rows = ["peer", "seconds"], []
    if "torch" in found:
        head.append("time / torch")
    for peer, values in found.items():
        row = [peer, median_and_range(values)]
        if "torch" in found:
            row.append(f"{median_ratio(values, found['torch']):.2f}")
        rows.append(row)
    return markdown_table(title, head, rows)
