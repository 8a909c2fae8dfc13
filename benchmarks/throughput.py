"""How many steps of how many small networks a second, once everything is compiled.

`python -m benchmarks.throughput WAY` prints one line of JSON. The networks are those of `many`;
"one after another" trains fewer of them. What comes before the first step is counted apart.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import many
from benchmarks.commanded import commanded
from benchmarks.race import median_ratio, spread
from benchmarks.workloads import MODEL_BATCH, MODEL_STEPS, digits

ROOT = Path(__file__).parents[1]
POINTS = 64
"""Learning rates in the sweep."""

JDL = {"jdl, ensemble of 32": 32, "jdl, sweep of 64": POINTS, "jdl, one after another": 1}
TORCH = "torch, one after another"
SWEEP = "jdl sweep, 64 points"


def measured(way: str, environment: Mapping[str, str]) -> dict[str, float]:
    """Models, seconds before the first step, and seconds of all steps, from a new process."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.throughput", way],
        cwd=ROOT,
        env={**environment, "TF_CPP_MIN_LOG_LEVEL": "2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def sweep_seconds(_: str, environment: Mapping[str, str]) -> float:
    """The whole process of `jdl sweep` over 64 learning rates on the digits."""
    rates = ",".join(f"{rate:.4g}" for rate in np.geomspace(1e-4, 1e-1, POINTS))
    fields = ["--features", "32", "--dropout", "0", "--epochs", "26"]  # 512 steps of 64
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "jdl.cli", "sweep", "experiments/digits_mlp.py", *fields]
        command += ["--sweep.learning-rate", rates, "--run.dir", f"{folder}/run"]
        began = time.perf_counter()
        subprocess.run(command, cwd=ROOT, env=dict(environment), capture_output=True, check=True)
        return time.perf_counter() - began


def by_jdl(members: int) -> dict[str, float]:
    """Train an ensemble, a sweep, or a single network."""
    began = time.perf_counter()
    with commanded():
        import optax

        import jdl
        from benchmarks.stepping import stepping

        x, y = digits()
    model = jdl.from_linen(jdl.models.MLP((32,), outputs=10))

    def build(learning_rate: Any) -> jdl.Learner:
        return jdl.learner(jdl.classification(model), optax.adam(learning_rate))

    rates = np.geomspace(1e-4, 1e-2, POINTS).tolist()
    learner = build(1e-3) if members == 1 else jdl.ensemble(build(1e-3), members)
    if members == POINTS:
        learner = jdl.sweep(build, {"learning_rate": rates})
    run = stepping(learner, {"x": x, "y": y}, MODEL_BATCH, "auto")
    run(MODEL_STEPS)
    ready = time.perf_counter()
    for _ in range(3):
        run(MODEL_STEPS)
    seconds = (time.perf_counter() - ready) / 3
    return {"models": members, "before": ready - began - seconds, "seconds": seconds}


def by_torch() -> dict[str, float]:
    """Train one network, then a second one, whose time counts."""
    began = time.perf_counter()
    many.by_torch(models=1)
    ready = time.perf_counter()
    many.by_torch(models=1)
    seconds = time.perf_counter() - ready
    return {"models": 1, "before": ready - began - seconds, "seconds": seconds}


def table(found: Mapping[str, list[dict[str, float]]]) -> str:
    """A Markdown table: throughput, its ratio to PyTorch's, and what comes before."""
    speeds = {
        way: [row["models"] * MODEL_STEPS / row["seconds"] / 1e3 for row in rows]
        for way, rows in found.items()
    }
    lines = [
        f"**MLPs 64-32-10, batch {MODEL_BATCH}, {MODEL_STEPS} steps**",
        "",
        "| way | thousand steps of a model a second | / torch | s before the first step |",
        "|---|---|---|---|",
    ]
    for way, rows in found.items():
        ratio = f"{median_ratio(speeds[way], speeds[TORCH]):.3g}" if TORCH in speeds else ""
        before = spread([row["before"] for row in rows])
        lines.append(f"| {way} | {spread(speeds[way])} | {ratio} | {before} |")
    return "\n".join(lines)


if __name__ == "__main__":
    way = sys.argv[1]
    print(json.dumps(by_torch() if way == TORCH else by_jdl(JDL[way])))
