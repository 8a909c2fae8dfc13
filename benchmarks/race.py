"""Peers side by side: one process each, in turns, rounds in rotating order."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.worker import PEERS

ROOT = Path(__file__).parents[1]
NEEDS = {"keras": "keras", "torch": "torch", "torch_last": "torch", "linen": "flax"}
"""The package that a peer is, where it is not jdl's own."""


class Run(NamedTuple):
    """What a peer did."""

    early: float
    """Mean loss of the first steps."""
    first_step: float
    """Seconds from the start of its process to the end of its first step."""
    rounds: list["Round"]


class Round(NamedTuple):
    """What a peer did in one round."""

    steps: int
    seconds: float
    peak_mb: float

    @property
    def each(self) -> float:
        """Seconds a step."""
        return self.seconds / self.steps


class Racer:
    """A peer's process, which waits while others run."""

    def __init__(self, peer: str, workload: str):
        self.peer = peer
        began = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", peer, workload],
            cwd=ROOT,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._wait("first")
        self.first_step = time.perf_counter() - began
        self.early = float(self._wait("ready"))

    def round(self, seconds: float) -> Round:
        """Train for some seconds."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        return Round(**json.loads(self._line()))

    def end(self) -> None:
        """Close the process."""
        self.process.kill()
        self.process.wait()

    def _wait(self, word: str) -> str:
        """The rest of the line that begins with a word."""
        while not (line := self._line()).startswith(word):
            pass
        return line.removeprefix(word)

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of {self.peer} ended, see above")
        return line


def race(
    workload: str, peers: Sequence[str], rounds: int, seconds: float
) -> dict[str, Run]:
    """Every peer's rounds; the order of the peers moves on by one each time."""
    racers: list[Racer] = []
    try:
        for peer in peers:
            racers.append(Racer(peer, workload))
        found = {racer.peer: Run(racer.early, racer.first_step, []) for racer in racers}
        for number in range(rounds):
            turn = number % len(racers)
            for racer in racers[turn:] + racers[:turn]:
                found[racer.peer].rounds.append(racer.round(seconds))
    finally:
        for racer in racers:
            racer.end()
    return found


def ratios(found: dict[str, Run], of: str, to: str) -> list[float]:
    """Time of one peer over that of another, round by round."""
    return [a.each / b.each for a, b in zip(found[of].rounds, found[to].rounds, strict=True)]


def installed(peers: Sequence[str] = tuple(PEERS)) -> list[str]:
    """The peers whose packages are here."""
    import importlib.util

    return [p for p in peers if p not in NEEDS or importlib.util.find_spec(NEEDS[p])]


def table(title: str, found: dict[str, Run]) -> str:
    """A Markdown table: medians, and ratios to each peer's rounds."""
    others = [name for name in ("linen", "torch", "torch_last", "keras") if name in found]
    head = ["peer", "ms a step", *(f"time / {name}" for name in others), "loss", "peak MB"]
    lines = [f"**{title}**", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for peer, run in found.items():
        each = [1e3 * row.each for row in run.rounds]
        cells = [peer, f"{statistics.median(each):.3g} ({min(each):.3g}–{max(each):.3g})"]
        for other in others:
            values = ratios(found, peer, other)
            cells.append(f"{statistics.median(values):.2f}")
        cells += [f"{run.early:.3f}", f"{max(row.peak_mb for row in run.rounds):.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
