"""Seconds of whole processes, in turns; with an empty and with a warm compilation cache."""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence

CACHED = "jdl_train"
"""The peer that keeps compiled programs for the next process."""


def measured(
    seconds: Callable[[str, Mapping[str, str]], float], peers: Sequence[str], rounds: int
) -> dict[str, list[float]]:
    """`seconds(peer, environment)` of every peer in every round; of the cached one twice."""
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
