"""`jdl check-sharding`: compare steps of an experiment under every layout with one device."""

import math
import os
import re
import subprocess
import sys

import jax

from jdl.cli import flags, process
from jdl.data.feed import Feed
from jdl.parallel.compare import (
    TOLERANCE,
    Comparison,
    Layout,
    compare_layouts,
    layouts,
    possible_layouts,
)
from jdl.run.checks import resolve_data
from jdl.run.experiment import Experiment
from jdl.run.imports import load_module

DEVICES = 8
STEPS = 3
_COUNT = "--xla_force_host_platform_device_count"


def command(given: list[str]) -> int | None:
    """`jdl check-sharding FILE.py ...`: exit code 1 if a layout disagrees with one device."""
    file, rest = flags.positional(given, "jdl check-sharding FILE.py", "the file of an experiment")
    process.quiet_backend()
    code = _run_on_fake_devices(given)
    if code is not None:
        return code
    module = load_module(file)
    config, run = flags.parse(module.Config, rest, f"jdl check-sharding {file}")
    process.configure_process(run.cache, verbose=run.verbose)
    experiment = module.experiment(config)
    candidates = layouts()
    if run.mesh is not None:
        name = f"{run.mesh} {run.sharding}"
        candidates.append(Layout(name, lambda inner: flags.on_mesh(inner, run)))
    feed = divisible_feed(experiment)
    batches = [feed.batch(step) for step in range(STEPS + 1)]
    possible, why = possible_layouts(experiment.learner, batches[0], candidates)
    print(
        f"{STEPS} steps of {feed.batch_size} examples on {DEVICES} devices "
        f"({jax.devices()[0].device_kind}) and on one: largest relative differences, and the share "
        "of the state that each device holds"
    )
    width = max(len(layout.name) for layout in possible)
    print(_line(width, "layout", "loss", "gradient", "evaluation", "state", ""))
    rows = []
    for row in compare_layouts(experiment.learner, possible, batches, run.seed):
        rows.append(row)
        differences = (f"{value:.1e}" for value in (row.loss, row.gradient, row.evaluation))
        status = "ok" if row.is_right else "FAIL"
        print(_line(width, row.layout, *differences, f"{row.held:.0%}", status))
    for name, reason in why.items():
        print(f"skipped {name}: {reason}")
    return _verdict(rows)


def _line(width: int, layout: str, *cells: str) -> str:
    """A line of the table, which is printed row by row."""
    return f"{layout:<{width}}  {'  '.join(f'{cell:>10}' for cell in cells)}".rstrip()


def _verdict(rows: list[Comparison]) -> int | None:
    """Print the conclusion; return 1 for a failure."""
    wrong = [row for row in rows if not row.is_right]
    for row in wrong:
        where = f"; the gradient of {row.worst} differs most" if row.worst else ""
        print(f"FAIL: {row.layout}: differs by more than {TOLERANCE:g}{where}")
    if not wrong:
        print(f"every layout agrees with one device within {TOLERANCE:g}")
    return 1 if wrong else None


def divisible_feed(experiment: Experiment) -> Feed:
    """The experiment's feed, with a batch size that eight devices and micro-batches divide."""
    feed, _ = resolve_data(experiment.data, None, experiment.batch_size, 0)
    size = math.lcm(feed.batch_size, DEVICES)
    if size > feed.size:
        size = max(DEVICES, feed.batch_size // DEVICES * DEVICES)
    return Feed(feed.data, size, feed.seed)


def _run_on_fake_devices(given: list[str]) -> int | None:
    """With fewer than eight devices, run the command in a new process with eight simulated ones.

    Returns its exit code. The flag must be set before JAX starts and affects the CPU only, so
    eight real devices are used if there are.
    """
    flags = re.sub(rf"{_COUNT}=\S+", "", given_flags := os.environ.get("XLA_FLAGS", ""))
    if _COUNT not in given_flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_COUNT}={DEVICES}".strip()
    if len(jax.devices()) >= DEVICES:
        return None
    fake = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{flags} {_COUNT}={DEVICES}".strip()}
    command = [sys.executable, "-m", "jdl.cli", "check-sharding", *given]
    return subprocess.run(command, env={**os.environ, **fake}).returncode
