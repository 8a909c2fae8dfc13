"""From the start of a process to the end of its first step, the CNN of `workloads`."""

import os
import tempfile

from benchmarks.race import Racer

CACHED = "jdl_train"
"""The peer that keeps compiled programs for the next process."""


def measured(peers: list[str], rounds: int) -> dict[str, list[float]]:
    """Seconds of every peer in every round; twice where there is a cache, empty and warm."""
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for peer in peers:
            if peer != CACHED:
                found.setdefault(peer, []).append(seconds(peer, None))
                continue
            with tempfile.TemporaryDirectory() as cache:
                for state in ("empty", "warm"):
                    name = f"{peer}, {state} cache"
                    found.setdefault(name, []).append(seconds(peer, cache))
    return found


def seconds(peer: str, cache: str | None) -> float:
    """How long one process takes to its first step."""
    home = {"XDG_CACHE_HOME": cache} if cache else {}
    racer = Racer(peer, "cnn", {**os.environ, **home}, once=True)
    racer.end()
    return racer.first_step
