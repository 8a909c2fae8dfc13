"""`python -m benchmarks.gpu_check`: every capability once on the device at hand, then its speed.

- every learner transform, every family of models, several devices or one, bfloat16,
  rematerialisation, flash attention, generation, checkpoints, evaluation, streams: does it run,
  and is the result finite and right?
- the three headline figures: steps of GPT-2 small, of the CNN and of the LSTM, in bfloat16.

A part that fails, crashes or takes too long does not stop the others; each has its time in the
table. Exit code 1 if any failed. It ends within eight minutes; `--small` takes one row of each
family and small networks, on any device in under a minute.
"""

import argparse
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import gpu, step_time
from benchmarks.gpu_parts import Call
from benchmarks.tables import ROOT, markdown_table

HEADLINES = ("GPT-2 small", "CNN", "LSTM")
HEADLINE_SECONDS = 60.0
"""For each headline figure; the other parts have what is left."""
PART_SECONDS = 90.0
"""For one part of the others."""
SMALL_FLAGS = "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true"
"""Small programs on a CPU: their time goes into compiling."""


class Outcome(NamedTuple):
    """What became of a part."""

    name: str
    seconds: float
    note: str
    failed: bool


class Worker:
    """A process that runs parts by name; it is started again where one has ended it."""

    def __init__(self, small: bool, cache: str):
        self.small = small
        self.cache = cache
        self.names: list[str] = []
        self._process: subprocess.Popen[str] | None = None

    def start(self, seconds: float) -> None:
        """Start the process and learn the names of the parts."""
        flags = os.environ.get("XLA_FLAGS", "")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu_check_parts", *["--small"] * self.small],
            cwd=ROOT,
            env={
                **os.environ,
                "TF_CPP_MIN_LOG_LEVEL": "2",
                "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
                # Parts share what they compile, as their networks are the same in places.
                "JAX_COMPILATION_CACHE_DIR": self.cache,
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
                "XLA_FLAGS": f"{flags} {SMALL_FLAGS}".strip() if self.small else flags,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.names = json.loads(self._answer(seconds))["parts"]

    def run(self, name: str, seconds: float) -> Outcome:
        """Run a part; one that takes longer, or ends the process, has failed."""
        began = time.monotonic()
        try:
            if self._process is None:
                self.start(seconds)
            told = json.loads(self._ask(name, seconds))
        except (ChildProcessError, OSError) as failure:
            self.end()
            told = {"failed": str(failure)}
        failed = "failed" in told
        note = told["failed"] if failed else told["note"]
        return Outcome(name, time.monotonic() - began, note, failed)

    def end(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _ask(self, name: str, seconds: float) -> str:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(f"{name}\n")
        self._process.stdin.flush()
        return self._answer(seconds)

    def _answer(self, seconds: float) -> str:
        process = self._process
        assert process is not None and process.stdout is not None
        late = threading.Timer(max(0.0, seconds), process.kill)
        late.start()
        line = process.stdout.readline()
        over = not late.is_alive()
        late.cancel()
        if not line:
            code = process.wait()
            raise ChildProcessError(
                f"stopped after {seconds:.0f} s" if over else f"the process ended with code {code}"
            )
        return line


def capabilities(small: bool, workers: int, end: float, cache: str) -> Iterator[Outcome]:
    """Every part, by several workers; what cannot begin before `end` has failed."""
    first = Worker(small, cache)
    began = time.monotonic()
    try:
        first.start(end - began)
    except ChildProcessError as failure:
        first.end()
        yield Outcome("start", time.monotonic() - began, str(failure), True)
        return
    wanted: queue.SimpleQueue[str] = queue.SimpleQueue()
    done: queue.SimpleQueue[Outcome | None] = queue.SimpleQueue()
    for name in first.names:
        wanted.put(name)

    def work(worker: Worker) -> None:
        try:
            while True:
                name, left = wanted.get_nowait(), end - time.monotonic()
                if left > 1:
                    done.put(worker.run(name, min(PART_SECONDS, left)))
                else:
                    done.put(Outcome(name, 0.0, "not run: the time is over", True))
        except queue.Empty:
            worker.end()
            done.put(None)

    every = [first, *(Worker(small, cache) for _ in range(workers - 1))]
    for worker in every:
        threading.Thread(target=work, args=(worker,), daemon=True).start()
    for _ in every:
        while (outcome := done.get()) is not None:
            yield outcome


def headline(name: str, small: bool, seconds: float) -> Outcome:
    """One of the three figures; with `small`, of a small network in its place."""
    began = time.monotonic()
    try:
        if name == HEADLINES[0]:
            note = _gpt2(small, seconds)
        else:
            note = _step("mlp" if small else name.lower(), 0.3 if small else 1.0, seconds)
        return Outcome(name, time.monotonic() - began, note, False)
    except (RuntimeError, ValueError, OSError) as failure:
        return Outcome(name, time.monotonic() - began, str(failure), True)


def _gpt2(small: bool, seconds: float) -> str:
    found: list[dict[str, Any]] = []
    failed = gpu.run("gpt2", Call(time.time(), seconds, small, None), found.append)
    if failed or not found:
        raise RuntimeError(failed or "it reported nothing")
    return f"{1e3 * found[-1]['results']['seconds']:.4g} ms a step"


def _step(workload: str, round_seconds: float, seconds: float) -> str:
    code = f"from benchmarks import gpu_check; gpu_check.time_step({workload!r}, {round_seconds})"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        printed, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"stopped after {seconds:.0f} s") from None
    finally:
        gpu.end_group(process)
    if process.returncode:
        raise RuntimeError(f"ended with code {process.returncode}")
    return f"{1e3 * float(printed.splitlines()[-1]):.4g} ms a step"


def time_step(workload: str, round_seconds: float) -> None:
    """Print the median seconds of a step in bfloat16, over three rounds."""
    found = step_time.measure(workload, ["jdl_bf16"], 3, round_seconds)["jdl_bf16"]
    print(sorted(found.times)[1])


def main(given: list[str] | None = None) -> int:
    """Run everything; 0, or 1 where something failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--small", action="store_true", help="small sizes, on any device")
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything together")
    parser.add_argument("--workers", type=int, help="processes that share the device")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu-check"), help="results' folder")
    options = parser.parse_args(given)
    workers = options.workers or max(1, min(4, os.cpu_count() or 1))
    began = time.monotonic()
    end = began + 60 * options.minutes
    device = gpu.device_name()
    print(device, flush=True)
    outcomes = []

    def note(outcome: Outcome) -> None:
        outcomes.append(outcome)
        state = "FAILED" if outcome.failed else "ok"
        print(f"{outcome.seconds:6.1f} s  {state:6}  {outcome.name}: {outcome.note}", flush=True)

    reserved = HEADLINE_SECONDS * len(HEADLINES)
    last = end - min(reserved, (end - began) / 2)
    with tempfile.TemporaryDirectory() as cache:
        for outcome in capabilities(options.small, workers, last, cache):
            note(outcome)
    for place, name in enumerate(HEADLINES):
        left = (end - time.monotonic()) / (len(HEADLINES) - place)
        note(headline(name, options.small, max(1.0, left)))
    failed = [outcome.name for outcome in outcomes if outcome.failed]
    rows = [
        [each.name, f"{each.seconds:.1f}", "failed" if each.failed else "ok", each.note]
        for each in outcomes
    ]
    options.out.mkdir(parents=True, exist_ok=True)
    table = markdown_table(device, ["part", "seconds", "result", "note"], rows)
    (options.out / "gpu-check.md").write_text(f"{table}\n")
    (options.out / "gpu-check.json").write_text(
        json.dumps({"device": device, "parts": [each._asdict() for each in outcomes]}, indent=1)
    )
    print(f"\n{device}; {time.monotonic() - began:.0f} s, {workers} workers")
    for outcome in outcomes:
        if outcome.name in HEADLINES:
            print(f"{outcome.name}, bfloat16: {outcome.note}")
    count = f"{len(outcomes) - len(failed)} parts passed, {len(failed)} failed"
    print(f"{count}{': ' + ', '.join(failed) if failed else ''}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
