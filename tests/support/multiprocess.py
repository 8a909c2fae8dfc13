"""Real processes for tests: started on a free port, never left behind."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.runs import ROOT

FAULTY = ROOT / "tests" / "support" / "faulty_experiment.py"


class Ended(NamedTuple):
    """One process of a run: its exit code, what it wrote, and when it ended."""

    code: int
    out: str
    err: str
    time: float


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def command(*given: Any) -> list[str]:
    """`jdl train` of the faulty experiment."""
    words = [str(word) for word in ("train", FAULTY, "--run.no-report", *given)]
    return [sys.executable, "-m", "jdl.cli", *words]


def members(count: int) -> list[list[Any]]:
    """The flags that make each of several processes one of them."""
    place = ("--run.coordinator", f"localhost:{free_port()}", "--run.processes", count)
    return [[*place, "--run.process", index] for index in range(count)]


@contextmanager
def started(commands: list[list[str]], devices: int = 2, **environment: Any):
    """The processes, each in a group of its own, which is killed at the end of the block."""
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=1"
    more = {name: str(value) for name, value in environment.items()}
    own = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags, **more}
    running: list[subprocess.Popen[str]] = []
    try:
        for words in commands:
            running.append(
                subprocess.Popen(
                    words,
                    env={**os.environ, **own},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
            )
        yield running
    finally:
        for member in running:
            for number in (signal.SIGKILL, signal.SIGCONT):
                try:
                    os.killpg(member.pid, number)
                except ProcessLookupError:
                    break
            member.wait()


def ended(running: list[subprocess.Popen[str]], timeout: float = 150) -> list[Ended]:
    """What became of them; each is read by a thread of its own, so that no pipe fills up."""
    results: dict[int, Ended] = {}

    def read(index: int, member: subprocess.Popen[str]) -> None:
        out, err = member.communicate()
        results[index] = Ended(member.returncode, out, err, time.time())

    threads = [threading.Thread(target=read, args=item) for item in enumerate(running)]
    for thread in threads:
        thread.daemon = True
        thread.start()
    until = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    late = [index for index in range(len(running)) if index not in results]
    assert not late, f"processes {late} still run after {timeout} s; others: {results}"
    return [results[index] for index in range(len(running))]


def train(
    folder: Path, *given: Any, count: int = 2, devices: int = 2, **environment: Any
) -> list[Ended]:
    """One run in several processes, to its end."""
    commands = [command("--run.dir", folder, *member, *given) for member in members(count)]
    with started(commands, devices, **environment) as running:
        return ended(running)


def struck(all_of_them: list[Ended]) -> float:
    """When the fault came, in seconds since 1970."""
    found = re.search(r"fault at ([\d.]+)", "".join(one.err for one in all_of_them))
    assert found, [one.err[-2000:] for one in all_of_them]
    return float(found[1])
