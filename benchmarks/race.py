"""Peers side by side: one process each, in turns, rounds in rotating order."""

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.worker import PEERS
from benchmarks.workloads import WORKLOADS

ROOT = Path(__file__).parents[1]
NEEDS = {
    "keras": "keras",
    **dict.fromkeys(("torch", "torch_last"), "torch"),
}
"""The package that a peer needs, where jdl does not need it too."""

COMPARED = ("linen", "torch", "torch_last", "keras", "torch_compile", "torch_graphs")
"""Peers that the others are compared with in a table."""


class Run(NamedTuple):
    """What a peer did."""

    early: float
    """Mean loss of the first steps."""
    first_step: float
    """Seconds from the start of its process to the end of its first step."""
    rounds: list["Round"]

    @property
    def times(self) -> list[float]:
        """Seconds a step, of every round."""
        return [row.seconds / row.steps for row in self.rounds]


class Round(NamedTuple):
    """What a peer did in one round."""

    steps: int
    seconds: float
    peak_mb: float


class Racer:
    """A peer's process, which waits while others run."""

    def __init__(
        self,
        peer: str,
        workload: str,
        environment: Mapping[str, str] = os.environ,
        once: bool = False,
    ):
        self.peer = peer
        began = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", peer, workload, *(["once"] * once)],
            cwd=ROOT,
            env={**environment, "TF_CPP_MIN_LOG_LEVEL": "2"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._wait("first")
        self.first_step = time.perf_counter() - began
        self.early = 0.0 if once else float(self._wait("ready"))

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


def race(workload: str, peers: Sequence[str], rounds: int, seconds: float) -> dict[str, Run]:
    """Every peer's rounds, each peer started when the one before is ready."""
    racers: list[Racer] = []
    try:
        for peer in peers:
            racers.append(Racer(peer, workload))
        return in_turns(racers, rounds, seconds)
    finally:
        for racer in racers:
            racer.end()


def in_turns(racers: list["Racer"], rounds: int, seconds: float) -> dict[str, Run]:
    """Rounds of peers that are ready; their order moves on by one each time."""
    found = {racer.peer: Run(racer.early, racer.first_step, []) for racer in racers}
    for number in range(rounds):
        turn = number % max(1, len(racers))
        for racer in racers[turn:] + racers[:turn]:
            found[racer.peer].rounds.append(racer.round(seconds))
    return found


def median_ratio(times: Sequence[float], to: Sequence[float]) -> float:
    """The median over rounds of the ratio of two peers' times."""
    return statistics.median(a / b for a, b in zip(times, to, strict=True))


def spread(values: Sequence[float]) -> str:
    """Median, least and greatest."""
    return f"{statistics.median(values):.3g} ({min(values):.3g}–{max(values):.3g})"


def installed(peers: Sequence[str] = tuple(PEERS)) -> list[str]:
    """The peers whose packages are here."""
    return [p for p in peers if p not in NEEDS or importlib.util.find_spec(NEEDS[p])]


def table(title: str, found: dict[str, Run]) -> str:
    """A Markdown table: medians, and ratios to each peer's rounds."""
    others = [name for name in COMPARED if name in found]
    head = ["peer", "ms a step", *(f"time / {name}" for name in others), "loss", "peak MB"]
    lines = [f"**{title}**", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for peer, run in found.items():
        cells = [peer, spread([1e3 * each for each in run.times])]
        for other in others:
            cells.append(f"{median_ratio(run.times, found[other].times):.2f}")
        cells += [f"{run.early:.3f}", f"{max(row.peak_mb for row in run.rounds):.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def chart(results: Mapping[str, Any], path: Path) -> None:
    """Bars of the time of a step relative to Flax, one group for each workload."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    groups = {name: results[name] for name in WORKLOADS if name in results}
    if not groups:
        return
    peers = [peer for peer in PEERS if any(peer in found for found in groups.values())]
    figure, axes = plt.subplots(figsize=(9, 4), layout="constrained")
    width = 0.8 / len(peers)
    for index, peer in enumerate(peers):
        bars = []
        for found in groups.values():
            runs = {name: Run(**run) for name, run in found.items()}
            known = peer in runs
            bars.append(median_ratio(runs[peer].times, runs["linen"].times) if known else 0)
        places = [group + (index - len(peers) / 2 + 0.5) * width for group in range(len(groups))]
        label = axes.bar(places, bars, 0.9 * width, label=peer, color=plt.cm.tab10(index))
        axes.bar_label(label, [f"{bar:.2f}" if bar else "" for bar in bars], fontsize=6)
    axes.axhline(1, color="0.6", lw=0.8)
    axes.set_xticks(range(len(groups)), list(groups))
    axes.set_ylabel("time of a step / Flax Linen's")
    axes.set_title(results["machine"], fontsize=7)
    figure.legend(loc="outside lower center", ncols=len(peers), fontsize=7, frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
