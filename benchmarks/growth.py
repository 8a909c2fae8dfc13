"""How a step's time and memory grow with one size at a time, beside what arithmetic predicts.

The prediction is the larger of FLOPs over the measured peak of a matrix product and bytes over the
measured speed of a copy, both as the compiler counts them for the program that is timed. On fake
devices all share the processor, so there the best that can be reached is a flat line.

`python -m benchmarks.growth AXIS` prints the points of one axis as JSON.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.commanded import commanded

SECONDS = 1.0
"""Of timing for each point."""


class Point(NamedTuple):
    """A step at one size."""

    size: int
    seconds: float
    predicted: float
    flops: float
    bytes: float
    megabytes: float
    """Arguments, outputs and temporary memory of the program."""


def points(axis: str) -> Iterator[Point]:
    """The points of one axis, each measured."""
    import jax

    flops, bandwidth = peaks()
    for size, learner, batch in AXES[axis]():
        state = jax.jit(learner.init)(jax.random.key(0), batch)
        compiled = jax.jit(learner.step).lower(state, batch).compile()
        found: Any = compiled.cost_analysis()
        cost = found[0] if isinstance(found, list) else found
        memory: Any = compiled.memory_analysis()
        held = memory.argument_size_in_bytes + memory.output_size_in_bytes
        held += memory.temp_size_in_bytes - memory.alias_size_in_bytes
        arithmetic = max(cost["flops"] / flops, cost["bytes accessed"] / bandwidth)
        seconds = timed(lambda: compiled(state, batch))  # noqa: B023
        yield Point(size, seconds, arithmetic, cost["flops"], cost["bytes accessed"], held / 1e6)


def timed(call: Callable[[], Any], seconds: float = SECONDS) -> float:
    """Median seconds of a call."""
    import jax

    jax.block_until_ready(call())
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        began = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def peaks() -> tuple[float, float]:
    """FLOPs a second of a large matrix product, and bytes a second of a large copy."""
    import jax
    import jax.numpy as jnp

    square, line = jnp.ones((2048, 2048)), jnp.ones(2**25)
    product, copy = jax.jit(jnp.matmul), jax.jit(lambda x: x * 1.5)
    flops = 2 * 2048**3 / timed(lambda: product(square, square))
    return flops, 2 * line.nbytes / timed(lambda: copy(line))


def _classifier(network: Any) -> Any:
    import optax

    import jdl

    return jdl.learner(jdl.classification(jdl.from_linen(network)), optax.adam(1e-3))


def _vectors(n: int, width: int = 784) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {"x": draw.random((n, width), np.float32), "y": draw.integers(0, 10, n).astype("int32")}


def batch() -> Iterator[Any]:
    import jdl

    for size in (16, 32, 64, 128, 256):
        data = _vectors(size)
        images = {"x": data["x"].reshape(size, 28, 28, 1), "y": data["y"]}
        yield size, _classifier(jdl.models.CNN()), images


def width() -> Iterator[Any]:
    import jdl

    for size in (64, 128, 256, 512, 1024, 2048):
        yield size, _classifier(jdl.models.MLP((size, size), 10)), _vectors(128)


def depth() -> Iterator[Any]:
    import jdl

    for size in (1, 2, 4, 8, 16):
        yield size, _classifier(jdl.models.MLP((256,) * size, 10)), _vectors(128)


def sequence() -> Iterator[Any]:
    import optax

    import jdl

    for size in (32, 64, 128, 256, 512):
        network = jdl.models.Decoder(65, size, blocks=2, heads=4, width=64)
        task = jdl.tasks.language_model(jdl.from_linen(network))
        tokens = np.random.default_rng(0).integers(0, 65, (8, size + 1)).astype("int32")
        yield size, jdl.learner(task, optax.adam(1e-3)), {"x": tokens}


def members() -> Iterator[Any]:
    import jdl

    for size in (1, 2, 4, 8, 16, 32):
        yield size, jdl.ensemble(_classifier(jdl.models.MLP((128,), 10)), size), _vectors(64)


def devices() -> Iterator[Any]:
    import jdl

    for size in (1, 2, 4, 8):
        learner = _classifier(jdl.models.MLP((512, 512), 10))
        yield size, jdl.shard(learner, jdl.mesh(data=size)), _vectors(1024)


def apart() -> Iterator[Any]:
    import jdl

    for size in (1, 2, 4, 8):
        many = jdl.ensemble(_classifier(jdl.models.MLP((128,), 10)), 32)
        yield size, jdl.spread(many, jdl.mesh(members=size)), _vectors(64)


AXES: dict[str, Callable[[], Iterator[Any]]] = {
    "batch": batch,
    "width": width,
    "depth": depth,
    "sequence": sequence,
    "members": members,
    "devices": devices,
    "apart": apart,
}
FAKE = ("devices", "apart")
"""Those that need eight devices."""

TITLES = {
    "batch": "CNN A, examples in a batch",
    "width": "MLP with two hidden layers, their width",
    "depth": "MLP of width 256, hidden layers",
    "sequence": "decoder, 2 blocks of 64, length of the sequence",
    "members": "ensemble of MLP 784-128-10, members",
    "devices": "MLP 784-512-512-10, fake devices, one processor",
    "apart": "32 MLPs 784-128-10, fake devices they lie on",
}


def measured() -> dict[str, list[Point]]:
    """Every axis in a process of its own; the last two with eight fake devices."""
    found = {}
    for axis in AXES:
        flags = os.environ.get("XLA_FLAGS", "")
        if axis in FAKE:
            flags += " --xla_force_host_platform_device_count=8"
        out = subprocess.run(
            [sys.executable, "-m", "benchmarks.growth", axis],
            cwd=Path(__file__).parents[1],
            env={**os.environ, "XLA_FLAGS": flags, "TF_CPP_MIN_LOG_LEVEL": "2"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
        found[axis] = [Point(*row) for row in json.loads(out.splitlines()[-1])]
    return found


def table(found: dict[str, list[Point]]) -> str:
    """A Markdown table for each axis."""
    parts = []
    for axis, rows in found.items():
        lines = [
            f"**{TITLES[axis]}**",
            "",
            "| size | ms | predicted | ms / predicted | GFLOP | MB |",
        ]
        lines.append("|---" * 6 + "|")
        for row in rows:
            cells = [f"{row.size}", f"{1e3 * row.seconds:.3g}", f"{1e3 * row.predicted:.3g}"]
            cells += [f"{row.seconds / row.predicted:.1f}", f"{row.flops / 1e9:.3g}"]
            lines.append(f"| {' | '.join([*cells, f'{row.megabytes:.3g}'])} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def figure(found: dict[str, list[Point]], path: Path) -> None:
    """Measured and predicted time, and memory, against each size; both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    picture, grid = plt.subplots(2, 4, figsize=(14, 6), layout="constrained")
    for spare in grid.flat[len(found) :]:
        spare.set_axis_off()
    for axes, (axis, rows) in zip(grid.flat, found.items(), strict=False):
        sizes = [row.size for row in rows]
        axes.loglog(sizes, [1e3 * row.seconds for row in rows], "o-", label="measured, ms")
        axes.loglog(sizes, [1e3 * row.predicted for row in rows], "--", label="predicted, ms")
        axes.loglog(sizes, [row.megabytes for row in rows], ":", color="0.5", label="memory, MB")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.set_title(TITLES[axis], fontsize=8)
        axes.grid(alpha=0.3)
    grid.flat[0].legend(fontsize=8, frameon=False)
    picture.savefig(path, dpi=150)
    plt.close(picture)


if __name__ == "__main__":
    # Memory stays mapped: to map a large array anew costs more than its bytes do, and the speed of
    # a copy would be that of mapping.
    with commanded():
        import jdl  # noqa: F401
    print(json.dumps(list(points(sys.argv[1]))))
