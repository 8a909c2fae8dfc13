"""`python -m benchmarks [PART ...]`: the tables of these parts, or of all.

peers: the time of a step · start: from the start of a process to its first step · many: 32 small
models · overhead: what `fit` costs · waiting: how long steps wait for streamed data.
With `--out FOLDER` the tables are also written there, with `results.json`.
`python -m benchmarks gpu` is for a machine with a GPU and has options of its own.
"""

import argparse
import compileall
import datetime
import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from benchmarks import data_waiting, fit_overhead, gpu, many_models, start_time, step_time
from benchmarks.tables import ROOT
from benchmarks.workloads import MODELS, WORKLOADS

PARTS = ("peers", "start", "many", "overhead", "waiting")


def main() -> None:
    if sys.argv[1:2] == ["gpu"]:
        sys.exit(gpu.main(sys.argv[2:]))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"which of {', '.join(PARTS)}; all if none")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds")
    parser.add_argument("--seconds", type=float, default=4.0, help="seconds a round and peer")
    parser.add_argument("--workloads", nargs="+", default=list(WORKLOADS), choices=list(WORKLOADS))
    parser.add_argument("--out", type=Path, help="folder for results.json and tables.md")
    options = parser.parse_args()
    for unknown in set(options.parts) - set(PARTS):
        parser.error(f"no part is called {unknown}; there are {', '.join(PARTS)}")
    parts, rounds, seconds = options.parts or PARTS, options.rounds, options.seconds
    # As pip does for what it installs: a start must not measure Python's parser.
    for package in ("jdl", "benchmarks"):
        compileall.compile_dir(ROOT / package, quiet=1)
    results: dict[str, Any] = {"machine": machine()}
    lines = [results["machine"]]
    print(lines[0], flush=True)

    def show(text: str) -> None:
        lines.append(text)
        print(f"\n{text}", flush=True)

    show(f"{rounds} interleaved rounds of {seconds:g} s; medians")
    if "peers" in parts:
        for workload in options.workloads:
            names = step_time.peers_of(workload)
            found = step_time.measure(workload, names, rounds, seconds)
            results[workload] = {name: run._asdict() for name, run in found.items()}
            show(step_time.table(workload, found))
    if "start" in parts:
        names = step_time.peers_of("cnn")
        found = start_time.cold_and_warm(start_time.first_step, names, rounds)
        results["start"] = found
        show(start_time.table("start of the process to the end of the first step", found))
    if "many" in parts:
        names = step_time.installed(many_models.PEERS)
        found = start_time.cold_and_warm(many_models.process_seconds, names, rounds)
        results["many"] = found
        show(start_time.table(f"{MODELS} small models, whole process", found))
    if "overhead" in parts:
        for network in fit_overhead.networks():
            found = fit_overhead.measure(network, rounds, seconds)
            results[f"overhead, {network.title}"] = found
            show(fit_overhead.table(network.title, found))
    if "waiting" in parts:
        found = data_waiting.measure(seconds)
        results["waiting"] = {name: row._asdict() for name, row in found.items()}
        show(data_waiting.table(found))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "results.json").write_text(json.dumps(results, indent=1))
        (options.out / "tables.md").write_text("\n\n".join(lines) + "\n")


def machine() -> str:
    """Processor, cores and versions."""
    found = []
    for name in ("jax", "flax", "optax", "keras", "torch"):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    day = datetime.date.today().isoformat()
    return f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, " + (
        f"{', '.join(found)}; {day}"
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
