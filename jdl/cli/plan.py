"""`jdl plan`: estimate whether a step fits on devices, present or not, and suggest changes."""

import dataclasses
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TextIO

import jax

from jdl.cli import flags, plan_changes, process
from jdl.cli.answer import answer_on_stdout
from jdl.core import tree
from jdl.core.errors import InputError, error
from jdl.core.text import align_columns, format_bytes, format_shape
from jdl.parallel import rules, topology
from jdl.parallel.describe import describe_layout
from jdl.parallel.estimate import MemoryEstimate, estimate, local_bytes
from jdl.parallel.shard import shard
from jdl.run.checks import resolve_data
from jdl.run.experiment import Experiment
from jdl.run.imports import load_module
from jdl.run.setup import make_setup
from jdl.run.storage.files import json_text

USAGE = "jdl plan FILE.py [--field value ...] [--topology v5e:16x16]"
FLAGS = {
    "--topology": None,
    "--slices": None,
    "--memory": None,
    "--json": False,
    "--no-suggestions": False,
}
BYTES_PER_UNIT = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
         "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}  # fmt: skip


class Attempt(NamedTuple):
    """A changed setup with its estimate, or the reason why there is none."""

    setup: plan_changes.MemorySetup
    plan: MemoryEstimate | None
    reason: str = ""

    @property
    def fits(self) -> bool:
        """Whether the step fits with this change."""
        return self.plan is not None and self.plan.fits is True


def command(given: list[str]) -> int | None:
    """`jdl plan FILE.py [--topology v5e:16x16 [--slices 2]] [--memory 16GB] [--json] ...`.

    Prints the memory that a step needs on each device and whether it fits. If it does not, it tries
    changes until one fits, unless you pass `--no-suggestions`. The exit code is 1 if the step does
    not fit unchanged.
    """
    with answer_on_stdout() as answer:
        return _plan(given, answer)


def _plan(given: list[str], answer: TextIO) -> int | None:
    file, rest = flags.positional(given, USAGE, "the file of an experiment")
    options, rest = flags.split_flags(rest, FLAGS)
    process.quiet_backend()
    if options["--topology"] is not None:
        jax.config.update("jax_platforms", "cpu")
    module = load_module(file)
    config, run = flags.parse(module.Config, rest, USAGE)
    process.configure_process(cache=False, keep_memory=False)
    target = _target(options)
    axes = None if run.mesh is None else flags.mesh_axes(run.mesh)
    if axes is None and (options["--topology"] or run.sharding != flags.RunFlags.sharding):
        axes = {"data": len(target.devices)}
    first = plan_changes.MemorySetup(config, axes, run.sharding)
    limit = None if options["--memory"] is None else parse_bytes(options["--memory"])

    def build(setup: plan_changes.MemorySetup) -> MemoryEstimate:
        return estimate_experiment(module.experiment(setup.config), setup, target, limit)

    found = build(first)
    suggests = found.fits is False and not options["--no-suggestions"]
    tries = attempts(first, build, len(target.devices)) if suggests else iter(())
    if options["--json"]:
        as_json = [_attempt_to_json(each) for each in tries]
        print(json_text(estimate_to_json(found) | {"tries": as_json}), file=answer)
    else:
        print(format_estimate(found, first.rule), file=answer)
        tried = []
        for each in tries:
            print(_line(each), file=answer, flush=True)
            tried.append(each)
        if suggests:
            print(_conclusion(tried), file=answer)
    return 1 if found.fits is False else None


def _target(options: dict[str, Any]) -> topology.Target:
    name, slices = options["--topology"], options["--slices"]
    if slices is not None and (name is None or not slices.isdecimal()):
        raise error(
            "--slices",
            expected="a number of slices, together with --topology",
            got=slices,
            fix="pass --topology v5e:16x16 --slices 2",
        )
    return topology.at_hand() if name is None else topology.tpu(name, int(slices or 1))


def estimate_experiment(
    experiment: Experiment,
    setup: plan_changes.MemorySetup,
    target: topology.Target,
    limit: int | None = None,
) -> MemoryEstimate:
    """Estimate the memory of an experiment's step as `fit` runs it, with guard and metric sums."""
    mesh = None if setup.axes is None else topology.mesh_on(target, setup.axes)
    rule = rules.parse(setup.rule)
    learner = experiment.learner if mesh is None else shard(experiment.learner, mesh, rule)
    feed, _ = resolve_data(experiment.data, None, experiment.batch_size, 0)
    run = make_setup(learner, feed, epochs=experiment.epochs, options=experiment.options)
    return estimate(
        run.learner,
        feed.batch(0),
        target,
        mesh,
        rule,
        memory=limit,
        data_set=feed.nbytes if feed.is_resident else 0,
        clock=time.perf_counter,
    )


def attempts(
    first: plan_changes.MemorySetup,
    build: Callable[[plan_changes.MemorySetup], MemoryEstimate],
    devices: int,
) -> Iterator[Attempt]:
    """Estimates of one change after the other until one fits, then of all changes together."""
    for setup in plan_changes.single_changes(first, devices):
        each = _attempt(setup, build)
        yield each
        if each.fits:
            return
    yield _attempt(plan_changes.combined_change(first, devices), build)


def _attempt(
    setup: plan_changes.MemorySetup, build: Callable[[plan_changes.MemorySetup], MemoryEstimate]
) -> Attempt:
    try:
        return Attempt(setup, build(setup))
    except InputError as reason:
        return Attempt(setup, None, str(reason).replace("\n", ";"))


def parse_bytes(text: str) -> int:
    """Parse a size such as 16GB or 15.75GiB; raises `InputError` for another format.

    >>> parse_bytes("16GB"), parse_bytes("1.5 KiB")
    (16000000000, 1536)
    """
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*([A-Za-z]+)", text.strip())
    if found is None or found[2] not in BYTES_PER_UNIT:
        raise error(
            "--memory",
            expected=f"a number and one of {', '.join(BYTES_PER_UNIT)}",
            got=repr(text),
            fix="pass --memory 16GB",
        )
    return round(float(found[1]) * BYTES_PER_UNIT[found[2]])


def format_estimate(found: MemoryEstimate, rule: str) -> str:
    """The estimate as text."""
    mesh = ", ".join(f"{name}={size}" for name, size in found.mesh.items())
    where = f"mesh {mesh}, rule {rule}" if mesh else "one device"
    batch = ", ".join(f"{path} {format_shape(size)}" for path, size in found.batch.items())
    work = f"{found.flops.count:.4g} FLOPs in matrix products and convolutions, including what is "
    work += "recomputed"
    if found.flops.uncounted:
        work += f" (not counted: {', '.join(found.flops.uncounted)})"
    lines = [
        f"plan for {found.target}: {where}",
        f"step: {found.parameters:,} parameters, batch {batch}; {work}",
        "memory of one device",
        *(f"  {line}" for line in align_columns(_memory_lines(found))),
        verdict(found),
    ]
    if found.compiled is not None:
        lines += ["communication of one device in a step", *_communication(found)]
    table = describe_layout(found.state)
    lines += [] if table is None else [table]
    seconds = ", ".join(f"{name} {value:.1f} s" for name, value in found.seconds.items())
    lines.append(f"planned in {seconds}. A plan shows what fits, not how fast it runs.")
    return "\n".join(lines)


def _memory_lines(found: MemoryEstimate) -> list[tuple[str, str]]:
    lines = [(name, format_bytes(size)) for name, size in found.held.items() if size]
    if found.compiled is None:
        return lines
    c = found.compiled
    inputs = sum(size for name, size in found.held.items() if name != "data set")
    compiled = {
        "padding of the above to tiles": max(0, c.arguments - inputs),
        "activations and temporaries": c.temporaries,
        "outputs other than the state": c.outputs - c.aliased,
        "program": c.code,
    }
    return lines + [(name, format_bytes(size)) for name, size in compiled.items()]


def verdict(found: MemoryEstimate) -> str:
    """Whether the step fits, and by how much, in one line."""
    needed, limit = found.needed, found.memory
    if found.compiled is None and (needed is None or limit is None):
        return f"does not fit: {found.refusal}"
    if needed is None or limit is None:
        return f"needs {format_bytes(needed or 0)}; pass --memory 16GB to check whether that fits"
    of = f"{format_bytes(needed)} of {format_bytes(limit)}"
    if found.compiled is None:
        temporaries = " for temporaries alone" if "temporaries" in (found.refusal or "") else ""
        of += f"{temporaries}, according to the compiler's error"
    if found.fits:
        return f"fits: {of}, {format_bytes(limit - needed)} to spare"
    return f"does not fit: {of}, {format_bytes(needed - limit)} too much"


def _communication(found: MemoryEstimate) -> list[str]:
    if not found.collectives:
        return ["  none"]
    lines = [
        (each.kind, f"{each.count:,} times", format_bytes(each.bytes)) for each in found.collectives
    ]
    unknown = sum(each.loops for each in found.collectives)
    note = [f"  ({unknown} in loops of unknown length, counted once)"] if unknown else []
    return [*(f"  {line}" for line in align_columns(lines)), *note]


def _line(each: Attempt) -> str:
    result = verdict(each.plan) if each.plan is not None else f"not possible: {each.reason}"
    return f"try {each.setup.flags() or '(no change)'}: {result}"


def _conclusion(tries: list[Attempt]) -> str:
    fitting = [each for each in tries if each.fits]
    if fitting:
        return f"it fits with {fitting[0].setup.flags()}"
    return "none of these changes makes it fit: use more devices or a smaller model"


def estimate_to_json(found: MemoryEstimate) -> dict[str, Any]:
    """The estimate as a dict for JSON."""
    values = {
        field.name: getattr(found, field.name)
        for field in dataclasses.fields(found)
        if field.name != "state"
    }
    values["compiled"] = None if found.compiled is None else found.compiled._asdict()
    values["collectives"] = [each._asdict() for each in found.collectives]
    values["flops"] = found.flops._asdict()
    values |= {"parameters": found.parameters, "needed": found.needed, "fits": found.fits}
    values["leaves"] = [
        {
            "path": path,
            "shape": leaf.shape,
            "dtype": str(leaf.dtype),
            "spec": str(getattr(leaf.sharding, "spec", "one device")),
            "bytes": local_bytes(leaf),
        }
        for path, leaf in tree.flatten(found.state).items()
    ]
    return values


def _attempt_to_json(each: Attempt) -> dict[str, Any]:
    found = each.plan
    return {
        "flags": each.setup.flags(),
        "fits": each.fits,
        "needed": None if found is None else found.needed,
        "reason": each.reason or (found.refusal if found is not None else None),
    }
