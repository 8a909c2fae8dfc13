"""From the start of a process to the end of its first step, the CNN of `workloads`."""

from collections.abc import Mapping

from benchmarks.race import Racer


def seconds(peer: str, environment: Mapping[str, str]) -> float:
    """How long one process takes to its first step."""
    racer = Racer(peer, "cnn", environment, once=True)
    racer.end()
    return racer.first_step
