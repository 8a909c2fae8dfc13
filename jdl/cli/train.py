"""`jdl train`: train an experiment or resume its run, then evaluate it and write a report."""

import contextlib
import dataclasses
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jdl.cli import flags, process
from jdl.cli.report import write as write_run_report
from jdl.cli.seeds import Numbers, summary_lines, write_summary
from jdl.core.errors import Diverged, InputError, error
from jdl.core.paths import user_path
from jdl.core.spread import format_spread, mean_and_deviation
from jdl.core.text import metrics_of
from jdl.data.records import read_test_split
from jdl.run.distributed.collectives import is_process_0, on_process_0
from jdl.run.distributed.signals import Interrupted
from jdl.run.evaluate import Result, evaluate, local_result
from jdl.run.execution.gc_pause import freeze_gc, gc_paused
from jdl.run.experiment import (
    Experiment,
    open_run,
    restore,
    source_file,
)
from jdl.run.fork import parse_fork
from jdl.run.imports import load_module
from jdl.run.storage.files import write_results
from jdl.run.storage.run_dir import RunDir, next_run_dir
from jdl.run.telemetry import sessions
from jdl.run.typed_json import check_settings, config_from_json


def command(given: list[str]) -> int | None:
    """`jdl train FILE.py ...`."""
    fork = forked_run(given)
    process.quiet_backend()
    if fork is not None and given[0].startswith("-"):
        with gc_paused():
            module = load_module(fork.open().check_experiment(), fork.check_modules())
        return train(module.Config, module.experiment, given, prog="jdl train")
    file, rest = flags.positional(given, "jdl train FILE.py", "the file of an experiment")
    with gc_paused():
        module = load_module(file)
    return train(module.Config, module.experiment, rest, prog=f"jdl train {shlex.quote(file)}")


def forked_run(given: list[str]) -> RunDir | None:
    """The directory of the run that `--run.fork` names, which has to be known before all flags."""
    found, _ = flags.split_flags(given, {"--run.fork": None})
    fork = found["--run.fork"]
    return None if fork is None else parse_fork(fork)[0]


def train(
    config_type: type,
    build: Callable[[Any], Experiment],
    given: list[str],
    prog: str | None = None,
) -> int | None:
    """Train an experiment once, or once for each of several seeds."""
    prog = prog or f"python {shlex.quote(sys.argv[0])}"
    config, run = flags.parse(config_type, given, prog, *fork_defaults(config_type, given))
    if run.seeds < 1:
        raise error("--run.seeds", expected="1 or more", got=str(run.seeds), fix="pass 1 or more")
    check_settings(config)
    with process.join_processes(run) as watchdog:
        with gc_paused():
            process.configure_process(run.cache, verbose=run.verbose)
            experiment = with_run_options(build(config), run)
            if watchdog is not None:
                options = dataclasses.replace(experiment.options, on_phase=watchdog.at)
                experiment = dataclasses.replace(experiment, options=options)
            freeze_gc()
        _train_all(experiment, config, run, build, f"{prog} {shlex.join(given)}".rstrip())
    return None


def fork_defaults(config_type: type, given: list[str]) -> tuple[Any, flags.RunFlags | None]:
    """The configuration and the seed of the run to fork, where one is named."""
    parent = forked_run(given)
    if parent is None:
        return None, None
    recorded = parent.open().config()
    if "sweep" in recorded:
        raise error(
            f"--run.fork {parent.given}",
            expected="a run of jdl train",
            got="a sweep",
            fix="fork it in Python: jdl.fit(jdl.sweep(...), ..., fork=...)",
        )
    seed = recorded.get("run", {}).get("seed", flags.RunFlags.seed)
    return config_from_json(config_type, recorded), flags.RunFlags(seed=seed)


def _train_all(
    experiment: Experiment,
    config: Any,
    run: flags.RunFlags,
    build: Callable[..., Any],
    command: str,
) -> None:
    if run.seeds == 1:
        _train_once(experiment, config, run, build, command)
        return
    results: dict[int, Numbers] = {}
    diverged: dict[int, Diverged] = {}
    with run_folder(run, experiment.name, command) as (path, resume):
        for seed in range(run.seed, run.seed + run.seeds):
            one = dataclasses.replace(run, seed=seed, dir=str(path / f"seed-{seed}"), seeds=1)
            try:
                results[seed] = _train_once(experiment, config, one, build, resume)
            except Diverged as stop:
                diverged[seed] = stop
        if is_process_0():
            write_summary(path, results, [*diverged])
    for line in summary_lines(results):
        print(line)
    if diverged:
        first = next(iter(diverged.values()))
        seeds = ", ".join(map(str, diverged))
        raise Diverged(f"of {run.seeds} seeds, these diverged: {seeds}. The first: {first}")


def with_run_options(experiment: Experiment, run: flags.RunFlags) -> Experiment:
    """The experiment with `--run.dispatch` and `--run.profile` applied."""
    pairs = {"profile": (run.profile, 0), "dispatch": (run.dispatch, "auto")}
    changes: Any = {name: value for name, (value, default) in pairs.items() if value != default}
    return dataclasses.replace(
        experiment, options=dataclasses.replace(experiment.options, **changes)
    )


def _train_once(
    experiment: Experiment,
    config: Any,
    run: flags.RunFlags,
    build: Callable[..., Any],
    command: str,
) -> Numbers:
    learner = flags.on_mesh(experiment.learner, flags.default_mesh(run))
    start = None if run.start is None else restore(*open_run(run.start)).state
    options = {"seed": run.seed, "mesh": run.mesh, "sharding": run.sharding, "start": run.start}
    with run_folder(run, experiment.name, command) as (path, resume):
        folder = RunDir(
            path, config_to_record(config, experiment) | {"run": options}, source_file(build)
        )
        with explain_interruptions(folder, resume):
            result = experiment.fit(
                seed=run.seed, run_dir=folder, start=start, fork=run.fork, learner=learner
            )
    numbers = _evaluate_on_test_set(experiment, result, folder)
    whole = local_result(result, experiment.learner)
    if is_process_0():
        _print_summary(experiment, whole, folder, run)
    return numbers


def _print_summary(
    experiment: Experiment, result: Result | None, folder: RunDir, run: flags.RunFlags
) -> None:
    """Print the last lines of a run; `result` is None if no process holds all of its state."""
    if experiment.summary_line and result is not None:
        print(experiment.summary_line(result))
    if run.report and result is not None:
        write_run_report(experiment, result, folder)
    elif run.report:
        path = shlex.quote(str(folder.given))
        print(f"no report yet: run jdl report {path} to write it", file=sys.stderr)
    recorded = sessions.read(folder.times)
    if recorded:
        print(f"time   {sessions.summary_line(recorded)}")
    if run.profile and folder.profile.is_dir():
        print(f"trace  {folder.given / folder.profile.name}")
    print(f"run    {folder.given}")


@contextlib.contextmanager
def run_folder(run: flags.RunFlags, name: str, command: str) -> Iterator[tuple[Path, str]]:
    """A run directory and the command that resumes its run; removed again if it stays empty."""
    if run.dir is not None:
        if not run.dir or "\0" in run.dir:
            raise error(
                "--run.dir",
                expected="a directory",
                got=repr(run.dir),
                fix="pass a path, or omit it",
            )
        yield user_path(run.dir), command
        return
    path = Path(on_process_0(lambda: str(next_run_dir(Path("runs"), name))))
    try:
        yield path, f"{command} --run.dir {shlex.quote(str(path))}"
    finally:
        with contextlib.suppress(OSError):  # only empty directories can be removed
            for empty in (path, *path.parents[:2]):
                empty.rmdir()


@contextlib.contextmanager
def explain_interruptions(folder: RunDir, resume: str) -> Iterator[None]:
    """Print how to resume a run that was interrupted, and where to find one that diverged."""
    try:
        yield
    except Interrupted as stop:
        if is_process_0():
            print(f"\n{stop.reason}; the state is saved. To resume:\n  {resume}", file=sys.stderr)
        raise
    except Diverged as stop:
        from jdl.report.report import write_report

        if is_process_0():
            with contextlib.suppress(InputError):  # a report needs matplotlib; it only helps here
                print(f"report {folder.given / write_report(folder, note=str(stop)).name}")
        raise Diverged(f"{stop}\n  run:            {folder.given}") from None


def config_to_record(config: Any, experiment: Experiment) -> dict[str, Any]:
    """The fields of the configuration, with the experiment's epochs if `epochs` is None."""
    values = dataclasses.asdict(config)
    if values.get("epochs", experiment.epochs) is None:
        values["epochs"] = experiment.epochs
    return values


def _evaluate_on_test_set(experiment: Experiment, result: Result, folder: RunDir) -> Numbers:
    """Evaluate on the test set, once, or print the metrics of the step that the result is of."""
    from jdl.report.report import result_line

    data = read_test_split(experiment.data)
    if data is None:
        return _print_kept_row(experiment, result)
    metrics = evaluate(result, data)
    examples = len(next(iter(data.values())))
    if is_process_0():
        write_results(folder.path / "result.json", {"split": "test", "n": examples, **metrics})
    print(result_line(metrics, examples))
    return Numbers("test", metrics)


def _print_kept_row(experiment: Experiment, result: Result) -> Numbers:
    """Print the row of the log at the step of the weights: of the best step, or the last."""
    from jdl.report.report import representative_row

    keeps_best = experiment.best is not None or experiment.patience is not None
    row = representative_row(result.history, int(result.state.step) if keeps_best else None)
    metrics = {} if row is None else metrics_of(row)
    split = "" if row is None else str(row["split"]).replace("train", "training")
    texts = (
        f"{name} {format_spread(*mean_and_deviation(np.atleast_1d(value)))}"
        for name, value in metrics.items()
    )
    print(f"step {int(result.state.step)}: {split} {', '.join(texts)}".rstrip())
    return Numbers(split, metrics)
