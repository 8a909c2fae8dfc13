"""`jdl train`: train an experiment, or resume its run, and report the result."""

import contextlib
import dataclasses
import shlex
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jdl.cli import flags, process
from jdl.cli.report import _report
from jdl.core.errors import Diverged, InputError, error
from jdl.core.text import metrics_of
from jdl.run.distributed.collectives import is_process_0, on_process_0
from jdl.run.distributed.signals import Interrupted
from jdl.run.evaluate import Result, evaluate, local_result
from jdl.run.execution.gc_pause import freeze_gc, gc_paused
from jdl.run.experiment import Experiment, load_module, open_run, restore, source_file
from jdl.run.storage.files import write_json
from jdl.run.storage.run_dir import RunDir, next_run_dir
from jdl.run.telemetry import sessions


def command(given: list[str]) -> int | None:
    """`jdl train FILE.py ...`."""
    file, rest = flags.positional(given, "jdl train FILE.py", "the file of an experiment")
    process.quiet_backend()
    with gc_paused():
        module = load_module(file)
    return train(module.Config, module.experiment, rest, prog=f"jdl train {shlex.quote(file)}")


def train(
    config_type: type,
    experiment: Callable[[Any], Experiment],
    given: list[str],
    prog: str | None = None,
) -> int | None:
    """Train an experiment once, or once for each seed."""
    prog = prog or f"python {shlex.quote(sys.argv[0])}"
    config, run = flags.parse(config_type, given, prog)
    if run.seeds < 1:
        raise error("--run.seeds", expected="1 or more", got=str(run.seeds), fix="leave it out")
    with process.join_processes(run) as watchdog:
        with gc_paused():
            process.configure_process(run.cache, verbose=run.verbose)
            made = with_run_options(experiment(config), run)
            if watchdog is not None:
                options = dataclasses.replace(made.options, on_phase=watchdog.at)
                made = dataclasses.replace(made, options=options)
            freeze_gc()
        _train_all(made, config, run, experiment, f"{prog} {shlex.join(given)}".rstrip())
    return None


def _train_all(
    made: Experiment, config: Any, run: flags.RunFlags, experiment: Callable[..., Any], command: str
) -> None:
    if run.seeds == 1:
        _train_once(made, config, run, experiment, command)
        return
    results = []
    with run_folder(run, made.name, command) as (path, resume):
        for seed in range(run.seed, run.seed + run.seeds):
            one = dataclasses.replace(run, seed=seed, dir=str(path / f"seed-{seed}"), seeds=1)
            results.append(_train_once(made, config, one, experiment, resume))
    for name in results[0]:
        values = [numbers[name] for numbers in results if isinstance(numbers[name], float)]
        if len(values) > 1:
            print(
                f"test {name} {statistics.mean(values):.4f} ± {statistics.stdev(values):.4f} "
                f"(n {len(values)} seeds)"
            )


def with_run_options(made: Experiment, run: flags.RunFlags) -> Experiment:
    """The experiment with the form of dispatch and the trace that the command line asks for."""
    given = {"profile": (run.profile, 0), "dispatch": (run.dispatch, "auto")}
    wanted: Any = {name: value for name, (value, default) in given.items() if value != default}
    return dataclasses.replace(made, options=dataclasses.replace(made.options, **wanted))


def _train_once(
    made: Experiment, config: Any, run: flags.RunFlags, experiment: Callable[..., Any], command: str
) -> dict[str, Any]:
    learner = flags.on_mesh(made.learner, flags.default_mesh(run))
    start = None if run.start is None else restore(*open_run(run.start)).state
    place = {"seed": run.seed, "mesh": run.mesh, "sharding": run.sharding, "start": run.start}
    with run_folder(run, made.name, command) as (path, resume):
        folder = RunDir(
            path, config_to_record(config, made) | {"run": place}, source_file(experiment)
        )
        with explain_interruptions(folder, resume):
            result = made.fit(seed=run.seed, run_dir=folder, start=start, learner=learner)
    numbers = _test(made, result, folder)
    whole = local_result(result, made.learner)
    if is_process_0():
        _tell(made, whole, folder, run)
    return numbers


def _tell(made: Experiment, result: Result | None, folder: RunDir, run: flags.RunFlags) -> None:
    """The last words of a run; `result` is None where one process does not hold all of it."""
    if made.summary_line and result is not None:
        print(made.summary_line(result))
    if run.report and result is not None:
        _report(made, result, folder)
    elif run.report:
        print(f"no report yet: say jdl report {shlex.quote(str(folder.path))}", file=sys.stderr)
    recorded = sessions.read(folder.times)
    if recorded:
        print(f"time   {sessions.summary_line(recorded)}")
    if run.profile and folder.profile.is_dir():
        print(f"trace  {folder.profile}")
    print(f"run    {folder.path}")


@contextlib.contextmanager
def run_folder(run: flags.RunFlags, name: str, command: str) -> Iterator[tuple[Path, str]]:
    """The folder of a run and the command that goes on in it; gone again if nothing was written."""
    if run.dir is not None:
        if not run.dir or "\0" in run.dir:
            raise error("--run.dir", expected="a folder", got=repr(run.dir), fix="leave it out")
        yield Path(run.dir), command
        return
    path = Path(on_process_0(lambda: str(next_run_dir(Path("runs"), name))))
    try:
        yield path, f"{command} --run.dir {shlex.quote(str(path))}"
    finally:
        with contextlib.suppress(OSError):  # only empty folders can be removed
            for empty in (path, *path.parents[:2]):
                empty.rmdir()


@contextlib.contextmanager
def explain_interruptions(folder: RunDir, resume: str) -> Iterator[None]:
    """Say where a run is that did not come to its end, and how to go on with it."""
    try:
        yield
    except Interrupted as stop:
        if is_process_0():
            print(f"\n{stop}; everything is saved. To go on:\n  {resume}", file=sys.stderr)
        raise
    except Diverged as stop:
        from jdl.report.report import write_report

        if is_process_0():
            with contextlib.suppress(InputError):  # a report needs matplotlib; it only helps here
                print(f"report {write_report(folder, note=str(stop))}")
        raise Diverged(f"{stop}\n  run:            {folder.path}") from None


def config_to_record(config: Any, made: Experiment) -> dict[str, Any]:
    """The fields of the configuration; epochs that it left open by the number they came to."""
    values = dataclasses.asdict(config)
    if values.get("epochs", made.epochs) is None:
        values["epochs"] = made.epochs
    return values


def _test(made: Experiment, result: Result, folder: RunDir) -> dict[str, Any]:
    """The one look at the test set, at the end."""
    from jdl.report.report import result_line

    test = getattr(made.data, "test", None)
    if test is None:
        rows = [row for row in result.history if row["split"] == "valid"] or result.history
        numbers = metrics_of(rows[-1]) if rows else {}
        means = ", ".join(f"{k} {np.mean(v):.4g}" for k, v in numbers.items())
        print(f"step {int(result.state.step)}: {means}")
        return numbers
    data = test()
    numbers = evaluate(result, data)
    examples = len(next(iter(data.values())))
    if is_process_0():
        write_json(folder.path / "result.json", {"split": "test", "n": examples, **numbers})
    print(result_line(numbers, examples))
    return numbers
