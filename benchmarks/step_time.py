"""The time of a step of each peer: one process each, in turns, rounds in rotating order."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from benchmarks.peer_process import PEERS
from benchmarks.tables import ROOT, markdown_table, median_and_range, median_ratio
from benchmarks.workloads import WORKLOADS

NEEDS = {"keras": "keras", "torch": "torch", "torch_last": "torch"}
"""The package that a peer needs, where jdl does not need it too."""

COMPARED = ("linen", "torch", "torch_last", "keras", "torch_compile", "torch_graphs")
"""Peers that have a column of ratios in the table."""


class Round(NamedTuple):
    """What a peer did in one round."""

    steps: int
    seconds: float
    peak_mb: float


class Run(NamedTuple):
    """What a peer did."""

    early_loss: float
    """Mean loss of the first steps."""
    first_step: float
    """Seconds from the start of its process to the end of its first step."""
    rounds: list[Round]

    @property
    def times(self) -> list[float]:
        """Seconds a step, of every round."""
        return [row.seconds / row.steps for row in self.rounds]


class Peer:
    """A peer's process, which waits while others run."""

    def __init__(
        self,
        name: str,
        workload: str,
        environment: Mapping[str, str] = os.environ,
        first_step_only: bool = False,
    ):
        self.name = name
        options = ["first-step-only"] if first_step_only else []
        began = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peer_process", name, workload, *options],
            cwd=ROOT,
            env={**environment, "TF_CPP_MIN_LOG_LEVEL": "2"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._wait_for("first")
        self.first_step = time.perf_counter() - began
        self.early_loss = 0.0 if first_step_only else float(self._wait_for("ready"))

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

    def _wait_for(self, word: str) -> str:
        """The rest of the line that begins with a word."""
        while not (line := self._line()).startswith(word):
            pass
        return line.removeprefix(word)

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of {self.name} ended, see above")
        return line


def measure(workload: str, names: Sequence[str], rounds: int, seconds: float) -> dict[str, Run]:
    """Every peer's rounds; a peer starts when the one before is ready."""
    peers: list[Peer] = []
    try:
        for name in names:
            peers.append(Peer(name, workload))
        return in_turns(peers, rounds, seconds)
    finally:
        for peer in peers:
            peer.end()


def in_turns(peers: list[Peer], rounds: int, seconds: float) -> dict[str, Run]:
    """Rounds of peers that are ready; each round begins with another peer."""
    found = {peer.name: Run(peer.early_loss, peer.first_step, []) for peer in peers}
    for number in range(rounds):
        turn = number % max(1, len(peers))
        for peer in peers[turn:] + peers[:turn]:
            found[peer.name].rounds.append(peer.round(seconds))
    return found


def installed(names: Sequence[str]) -> list[str]:
    """The peers whose packages are installed."""
    return [name for name in names if name not in NEEDS or importlib.util.find_spec(NEEDS[name])]


def peers_of(workload: str) -> list[str]:
    """The peers of a workload that are installed; channels last is for the CNN only."""
    return installed([name for name in PEERS if workload == "cnn" or name != "torch_last"])


def table(workload: str, found: dict[str, Run]) -> str:
    """Medians over rounds, and ratios within rounds."""
    others = [name for name in COMPARED if name in found]
    head = ["peer", "ms a step", *(f"time / {name}" for name in others), "loss", "peak MB"]
    rows = []
    for name, run in found.items():
        compared = [f"{median_ratio(run.times, found[other].times):.2f}" for other in others]
        peak = max(row.peak_mb for row in run.rounds)
        milliseconds = median_and_range([1e3 * each for each in run.times])
        rows.append([name, milliseconds, *compared, f"{run.early_loss:.3f}", f"{peak:.0f}"])
    return markdown_table(WORKLOADS[workload].title, head, rows)
