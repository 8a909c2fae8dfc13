"""`python -m benchmarks [PART ...]`: the tables of these parts, or all of them.

With `--out FOLDER` they are also written there, `results.json` and a bar chart with them.
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

from benchmarks import (
    families,
    feeding,
    gpu,
    growth,
    many,
    overhead,
    processes,
    race,
    start,
    throughput,
)
from benchmarks.workloads import WORKLOADS

PARTS = ("peers", "many", "start", "families", "growth", "feeding", "overhead")


def main() -> None:
    if sys.argv[1:2] == ["gpu"]:
        sys.exit(gpu.main(sys.argv[2:]))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"which of {', '.join(PARTS)}; all if none")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds")
    parser.add_argument("--seconds", type=float, default=4.0, help="seconds a round and peer")
    parser.add_argument("--workloads", nargs="+", default=list(WORKLOADS), choices=list(WORKLOADS))
    parser.add_argument("--out", type=Path, help="folder for results.json, tables and chart")
    options = parser.parse_args()
    for unknown in set(options.parts) - set(PARTS):
        parser.error(f"no part is called {unknown}; there are {', '.join(PARTS)}")
    parts = options.parts or PARTS
    # As pip does for what it installs: a start must not measure Python's parser.
    for package in ("jdl", "benchmarks"):
        compileall.compile_dir(race.ROOT / package, quiet=1)
    results: dict[str, Any] = {"machine": machine()}
    lines = [results["machine"]]
    print(lines[0], flush=True)

    def say(text: str) -> None:
        lines.append(text)
        print(f"\n{text}", flush=True)

    if "peers" in parts:
        say(f"{options.rounds} interleaved rounds of {options.seconds:g} s; medians")
        for name in options.workloads:
            found = race.race(name, peers_of(name), options.rounds, options.seconds)
            results[name] = {peer: run._asdict() for peer, run in found.items()}
            say(race.table(WORKLOADS[name].title, found))
    if "many" in parts:
        results["many"] = processes.measured(
            many.seconds, race.installed(many.PEERS), options.rounds
        )
        say(seconds_table(f"{many.MODELS} small models, whole process", results["many"]))
        ways = [*throughput.JDL, *([throughput.TORCH] if race.installed(["torch"]) else [])]
        results["throughput"] = processes.measured(
            throughput.measured, ways, options.rounds, cached=throughput.JDL
        )
        say(throughput.table(results["throughput"]))
        results["sweep"] = processes.measured(
            throughput.sweep_seconds, [throughput.SWEEP], options.rounds, [throughput.SWEEP]
        )
        say(seconds_table("64 points of 512 steps on digits, whole process", results["sweep"]))
    if "start" in parts:
        results["start"] = processes.measured(start.seconds, peers_of("cnn"), options.rounds)
        say(seconds_table("start of the process to the end of the first step", results["start"]))
    if "families" in parts:
        results["families"] = families.measured(options.rounds, options.seconds)
        say(families.table(results["families"]))
    if "growth" in parts:
        grown = growth.measured()
        results["growth"] = {axis: [row._asdict() for row in rows] for axis, rows in grown.items()}
        say(growth.table(grown))
        if options.out:
            options.out.mkdir(parents=True, exist_ok=True)
            growth.figure(grown, options.out / "growth.png")
    if "feeding" in parts:
        waits = feeding.measured(options.seconds)
        results["feeding"] = {name: row._asdict() for name, row in waits.items()}
        say(feeding.table(waits))
    if "overhead" in parts:
        for table in overhead.tables(options.rounds, options.seconds):
            say(table)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "results.json").write_text(json.dumps(results, indent=1))
        (options.out / "tables.md").write_text("\n\n".join(lines) + "\n")
        race.chart(results, options.out / "chart.png")


def peers_of(workload: str) -> list[str]:
    """The peers that are installed; another layout of the images is for the CNN only."""
    names = [name for name in race.PEERS if workload == "cnn" or name != "torch_last"]
    return race.installed(names)


def seconds_table(title: str, found: dict[str, list[float]]) -> str:
    """A Markdown table of seconds, with ratios to PyTorch where it is here."""
    head = ["peer", "seconds", *(["time / torch"] if "torch" in found else [])]
    lines = [f"**{title}**", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for peer, values in found.items():
        cells = [peer, race.spread(values)]
        if "torch" in found:
            cells.append(f"{race.median_ratio(values, found['torch']):.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def machine() -> str:
    """Processor, cores and versions."""
    names = ("jax", "flax", "optax", "keras", "torch")
    found = []
    for name in names:
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
