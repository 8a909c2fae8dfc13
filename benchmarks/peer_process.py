"""One peer in a process of its own: `python -m benchmarks.peer_process PEER WORKLOAD`.

It prints "first" after its first step, and after `EARLY_STEPS` steps "ready" and their mean loss.
Then each line on its standard input is a number of seconds to train for; the answer is one line of
JSON.
"""

import importlib
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

PEERS = {
    "raw": "raw",
    "linen": "linen",
    "keras": "keras_jax",
    "torch": "torch_eager",
    "torch_last": "torch_eager",
    "jdl": "jdl_fit",
    "jdl_train": "jdl_fit",
}
"""Peers by name, and the module of each in `benchmarks.peers`."""

GPU_PEERS = {
    "jdl_bf16": "jdl_fit",
    "torch_bf16": "torch_gpu",
    "torch_compile": "torch_gpu",
    "torch_graphs": "torch_gpu",
}
"""Those of `python -m benchmarks gpu`."""

EARLY_STEPS = 50
"""Steps whose mean loss is in the table: peers that compute the same learn as fast."""

Train = Callable[[int], float]
"""`train(n) -> loss` runs n steps to their end; the loss is that of the last."""


class Rounds:
    """What the parent asks for: rounds of some seconds each, or the first step only."""

    def __init__(self, first_step_only: bool = False):
        self.first_step_only = first_step_only

    def first(self) -> None:
        """Report that the first step is done."""
        print("first", flush=True)

    def ready(self, early_loss: float) -> Iterator[float]:
        """Report the mean loss of the first steps; yield the seconds of each round."""
        print(f"ready {early_loss}", flush=True)
        for line in sys.stdin:
            yield float(line)

    def done(self, steps: int, seconds: float) -> None:
        """Answer for a round."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"steps": steps, "seconds": seconds, "peak_mb": peak}), flush=True)

    def drive(self, train: Train, at_once: int) -> None:
        """Answer every round by calling `train`, `at_once` steps at a time."""
        losses = [train(1)]
        self.first()
        losses += [train(1) for _ in range(EARLY_STEPS - 1)]
        for seconds in self.ready(sum(losses) / EARLY_STEPS):
            began, steps = time.perf_counter(), 0
            while time.perf_counter() - began < seconds:
                train(at_once)
                steps += at_once
            self.done(steps, time.perf_counter() - began)


def main() -> None:
    peer, workload, *options = sys.argv[1:]
    module: Any = importlib.import_module(f"benchmarks.peers.{(PEERS | GPU_PEERS)[peer]}")
    module.run(peer, workload, Rounds(options == ["first-step-only"]))


if __name__ == "__main__":
    main()
