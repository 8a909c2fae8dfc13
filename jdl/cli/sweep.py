"""`jdl sweep`: train every combination of some fields of an experiment in one run."""

import math
import shlex
from typing import Any

from jdl.cli import flags, process
from jdl.cli.train import config_to_record, explain_interruptions, run_folder, with_run_options
from jdl.core.errors import InputError, error
from jdl.core.paths import user_path
from jdl.learn.sweep import sweep_table
from jdl.run.evaluate import evaluate
from jdl.run.execution.gc_pause import freeze_gc, gc_paused
from jdl.run.experiment import Experiment
from jdl.run.experiment_sweep import ExperimentSweep, with_values
from jdl.run.imports import load_module
from jdl.run.named_sets import has_names, sets_of
from jdl.run.storage.files import to_json, write_results
from jdl.run.storage.run_dir import RunDir
from jdl.run.typed_json import check_settings


def command(given: list[str]) -> int | None:
    """`jdl sweep FILE.py --sweep.learning-rate 1e-4,1e-3 ...`."""
    file, rest = flags.positional(
        given, "jdl sweep FILE.py --sweep.field 1,2", "the file of an experiment"
    )
    process.quiet_backend()
    with gc_paused():
        module = load_module(file)
    call = f"jdl sweep {shlex.quote(file)} {shlex.join(rest)}"
    texts, rest = flags.sweep_fields(rest)
    rest = flags.with_required_fields(module.Config, texts, rest)
    config, run = flags.parse(module.Config, rest, f"jdl sweep {file}")
    grid = {name: flags.sweep_values(config, name, text, rest) for name, text in texts.items()}
    for flag, value, expected in (
        ("--run.start", run.start, "members that start from their own seeds"),
        ("--run.coordinator", run.coordinator, "one process for a sweep"),
    ):
        if value is not None:
            fix = "leave the flag out, or train the points one by one with jdl train"
            raise error(flag, expected=expected, got=value, fix=fix)
    points = ExperimentSweep(module.experiment, config, grid)
    for point in points.points():
        check_settings(with_values(config, point))
    with gc_paused():
        process.configure_process(run.cache, verbose=run.verbose)
        first = with_run_options(points.first, run)
        freeze_gc()
    if (found := points.difference()) is not None:
        raise _not_shared(*found, file, given[1:], texts)
    sweep = points.learner(run.seeds)
    learner = flags.on_mesh(sweep, run)
    options = {"seed": run.seed, "seeds": run.seeds, "mesh": run.mesh, "sharding": run.sharding}
    with run_folder(run, f"{first.name}-sweep", call) as (path, resume):
        recorded = config_to_record(config, first) | {"sweep": grid, "run": options}
        folder = RunDir(path, recorded, user_path(file))
        with explain_interruptions(folder, resume):
            result = first.fit(seed=run.seed, run_dir=folder, learner=learner)
    valid = (first.valid if first.valid is not None else getattr(first.data, "valid", None)) or None
    if has_names(valid):  # the first set decides
        valid = next(iter(sets_of(valid).values()))
    metrics = evaluate(result, valid if valid is not None else _training_set(first))
    name = "accuracy" if "accuracy" in metrics else "loss"
    rows = sweep_table(sweep.points, metrics[name])
    sign = -1 if name == "accuracy" else 1
    rows.sort(key=lambda row: math.inf if math.isnan(row["mean"]) else sign * row["mean"])
    write_results(folder.path / "sweep.json", to_json({"metric": name, "rows": rows}))
    print(
        f"{'valid' if valid is not None else 'training'} {name}, best first (n {run.seeds} seeds)"
    )
    for row in rows:
        point = "  ".join(f"{k} {row[k]}" for k in grid)
        spread = (
            f" ± {row['std']:.4f}  95 % {row['low']:.4f}–{row['high']:.4f}" if row["n"] > 1 else ""
        )
        print(f"  {point}  {row['mean']:.4f}{spread}")
    print(f"run    {path}")
    return None


def _training_set(experiment: Experiment) -> Any:
    data = getattr(experiment.data, "train", experiment.data)
    return getattr(data, "data", data)


def _not_shared(
    name: str, what: str, file: str, given: list[str], texts: dict[str, str]
) -> InputError:
    """The error for a field that changes what all points share, with a command for each value."""
    flag = flags.flag_of(name)
    rest = flags.without(given, "--run.dir", f"--sweep.{flag}")
    program = "train" if len(texts) == 1 else "sweep"
    commands = [
        shlex.join(["jdl", program, file, *words, *rest])
        for words in flags.words_of_values(f"--{flag}", texts[name])
    ]
    return error(
        f"--sweep.{flag}",
        expected="a field that leaves data, valid, batch size, epochs, best, patience and options "
        "alone, as all points are trained on the same batches by the same rules",
        got=f"values that differ in {what}",
        fix="train them one by one:\n" + "\n".join(f"    {command}" for command in commands),
    )
