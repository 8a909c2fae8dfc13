"""Seconds of whole processes, in turns; with an empty and with a warm compilation cache."""

import os
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

CACHED = ("jdl_train",)
"""The peers that keep compiled programs for the next process."""

Found = TypeVar("Found")


def measured(
    seconds: Callable[[str, Mapping[str, str]], Found],
    peers: Sequence[str],
    rounds: int,
    cached: Collection[str] = CACHED,
) -> dict[str, list[Found]]:
    """`seconds(peer, environment)` of every peer in every round; of the cached ones twice."""
    found: dict[str, list[Found]] = {}
    for _ in range(rounds):
        for peer in peers:
            if peer not in cached:
                found.setdefault(peer, []).append(seconds(peer, os.environ))
                continue
            with tempfile.TemporaryDirectory() as cache:
                for state in ("empty", "warm"):
                    spent = seconds(peer, {**os.environ, "XDG_CACHE_HOME": cache})
                    found.setdefault(f"{peer}, {state} cache", []).append(spent)
    return found
