"""What each command of the command line does."""

import contextlib
import csv
import dataclasses
import json
import shlex
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from jdl.cli import flags
from jdl.cli.inputs import read_inputs
from jdl.core.errors import Diverged, InputError, error
from jdl.run.distributed.collectives import by_first, is_first
from jdl.run.distributed.signals import Interrupted
from jdl.run.evaluate import Result, evaluate, held_here, predict
from jdl.run.execution.gc_pause import stay, uncollected
from jdl.run.experiment import Experiment, from_file, opened, restored, source_of
from jdl.run.storage.metrics_log import without_clocks
from jdl.run.storage.run_dir import RunFolder, cannot_write, next_run, read_json, write_json
from jdl.run.telemetry import sessions


def train_command(given: list[str]) -> int | None:
    """`jdl train FILE.py ...`."""
    file, rest = flags.first(given, "jdl train FILE.py", "the file of an experiment")
    flags.quiet_backend()
    with uncollected():
        module = from_file(file)
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
    with flags.together(run):
        with uncollected():
            flags.set_up(run.cache, run.host_memory)
            made = dispatched(experiment(config), run)
            stay()
        _train_all(made, config, run, experiment, f"{prog} {shlex.join(given)}".rstrip())
    return None


def _train_all(
    made: Experiment, config: Any, run: flags.Run, experiment: Callable[..., Any], command: str
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


def dispatched(made: Experiment, run: flags.Run) -> Experiment:
    """The experiment with the form of dispatch and the trace that the command line asks for."""
    given = {"profile": (run.profile, 0), "dispatch": (run.dispatch, "auto")}
    wanted: Any = {name: value for name, (value, default) in given.items() if value != default}
    return dataclasses.replace(made, options=dataclasses.replace(made.options, **wanted))


def _train_once(
    made: Experiment, config: Any, run: flags.Run, experiment: Callable[..., Any], command: str
) -> dict[str, Any]:
    learner = flags.on_mesh(made.learner, flags.everywhere(run))
    start = None if run.start is None else restored(*opened(run.start)).state
    place = {"seed": run.seed, "mesh": run.mesh, "rule": run.rule, "start": run.start}
    with run_folder(run, made.name, command) as (path, resume):
        folder = RunFolder(
            path, recorded_config(config, made) | {"run": place}, source_of(experiment)
        )
        with explained(folder, resume):
            result = made.fit(seed=run.seed, run_dir=folder, start=start, learner=learner)
    numbers = _test(made, result, folder)
    whole = held_here(result, made.learner)
    if is_first():
        _tell(made, whole, folder, run)
    return numbers


def _tell(made: Experiment, result: Result | None, folder: RunFolder, run: flags.Run) -> None:
    """The last words of a run; `result` is None where one process does not hold all of it."""
    if made.remark and result is not None:
        print(made.remark(result))
    if run.report and result is not None:
        _report(made, result, folder)
    elif run.report:
        print(f"no report yet: say jdl report {shlex.quote(str(folder.path))}", file=sys.stderr)
    recorded = sessions.read(folder.times)
    if recorded:
        print(f"time   {sessions.line(recorded)}")
    if run.profile and folder.profile.is_dir():
        print(f"trace  {folder.profile}")
    print(f"run    {folder.path}")


@contextlib.contextmanager
def run_folder(run: flags.Run, name: str, command: str) -> Iterator[tuple[Path, str]]:
    """The folder of a run and the command that goes on in it; gone again if nothing was written."""
    if run.dir is not None:
        if not run.dir or "\0" in run.dir:
            raise error("--run.dir", expected="a folder", got=repr(run.dir), fix="leave it out")
        yield Path(run.dir), command
        return
    path = Path(by_first(lambda: str(next_run(Path("runs"), name))))
    try:
        yield path, f"{command} --run.dir {shlex.quote(str(path))}"
    finally:
        with contextlib.suppress(OSError):  # only empty folders can be removed
            for empty in (path, *path.parents[:2]):
                empty.rmdir()


@contextlib.contextmanager
def explained(folder: RunFolder, resume: str) -> Iterator[None]:
    """Say where a run is that did not come to its end, and how to go on with it."""
    try:
        yield
    except Interrupted as stop:
        if is_first():
            print(f"\n{stop}; everything is saved. To go on:\n  {resume}", file=sys.stderr)
        raise
    except Diverged as stop:
        from jdl.report.report import write_report

        if is_first():
            with contextlib.suppress(InputError):  # a report needs matplotlib; it only helps here
                print(f"report {write_report(folder, note=str(stop))}")
        raise Diverged(f"{stop}\n  run:            {folder.path}") from None


def recorded_config(config: Any, made: Experiment) -> dict[str, Any]:
    """The fields of the configuration; epochs that it left open by the number they came to."""
    values = dataclasses.asdict(config)
    if values.get("epochs", made.epochs) is None:
        values["epochs"] = made.epochs
    return values


def _test(made: Experiment, result: Result, folder: RunFolder) -> dict[str, Any]:
    """The one look at the test set, at the end."""
    from jdl.report.report import result_line

    test = getattr(made.data, "test", None)
    if test is None:
        rows = [row for row in result.history if row["split"] == "valid"] or result.history
        numbers = without_clocks(rows[-1]) if rows else {}
        for key in ("step", "epoch", "split"):
            numbers.pop(key, None)
        means = {k: np.mean(v) for k, v in numbers.items()}
        print(
            f"step {int(result.state.step)}: " + ", ".join(f"{k} {v:.4g}" for k, v in means.items())
        )
        return numbers
    data = test()
    numbers = evaluate(result, data)
    examples = len(next(iter(data.values())))
    if is_first():
        write_json(folder.path / "result.json", {"split": "test", "n": examples, **numbers})
    print(result_line(numbers, examples))
    return numbers


def _report(made: Experiment, result: Result, folder: RunFolder) -> None:
    from jdl.report.predictions import evaluation_of
    from jdl.report.report import write_report

    pictures = made.pictures(result) if made.pictures else {}
    try:
        page = write_report(folder, evaluation=evaluation_of(made.data, result), pictures=pictures)
    except InputError as missing:
        print(f"no report: {missing}", file=sys.stderr)
        return
    print(f"report {page}")


def evaluate_command(given: list[str]) -> int | None:
    """`jdl evaluate RUN [--json]`."""
    from jdl.report.report import result_line

    run, rest = flags.first(given, "jdl evaluate RUN [--json]", "the folder of a run")
    options = flags.small(rest, {"--json": False, "--experiment": None})
    flags.set_up()
    folder, made = opened(run, experiment=options["--experiment"])
    data = _test_data(made)
    numbers, n = evaluate(restored(folder, made), data), len(next(iter(data.values())))
    if options["--json"]:
        print(json.dumps({"split": "test", "n": n, **numbers}))
        return None
    print(result_line(numbers, n))
    for name, value in numbers.items():
        if isinstance(value, float):
            print(f"  {name} {value:.6g}")
    return None


def predict_command(given: list[str]) -> int | None:
    """`jdl predict RUN INPUT [--out FILE.csv]`."""
    run, rest = flags.first(given, "jdl predict RUN INPUT", "the folder of a run")
    source, rest = flags.first(rest, "jdl predict RUN INPUT", "a file of inputs")
    options = flags.small(rest, {"--out": None, "--experiment": None})
    flags.set_up()
    folder, made = opened(run, experiment=options["--experiment"])
    if "sweep" in folder.config():
        raise error(
            run,
            expected="the run of one learner, or of an ensemble",
            got="a sweep, whose members are different learners",
            fix="train the point you want with jdl train, or use jdl.predict in Python",
        )
    info = getattr(made.data, "info", {})
    result = restored(folder, made)
    outputs = np.asarray(predict(result, read_inputs(Path(source), info)))
    if result.state.key.ndim:  # one row for an example; of several members the mean
        outputs = outputs.mean(0)
    rows = outputs.reshape(len(outputs), -1)
    classes = info.get("classes")
    header = [f"output_{i}" for i in range(rows.shape[1])]
    with _output(options["--out"]) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((["prediction"] if classes else []) + header)
        for row in rows:
            writer.writerow(([int(row.argmax())] if classes else []) + [f"{v:.7g}" for v in row])
    return None


@contextlib.contextmanager
def _output(path: str | None) -> Iterator[TextIO]:
    """A file to write to, or the screen."""
    if path is None:
        yield sys.stdout
        return
    try:
        file = open(path, "w", newline="", encoding="utf-8")  # noqa: SIM115
    except OSError as bad:
        raise cannot_write(Path(path), bad) from bad
    with file:
        yield file


def report_command(given: list[str]) -> int | None:
    """`jdl report RUN`."""
    run, rest = flags.first(given, "jdl report RUN", "the folder of a run")
    options = flags.small(rest, {"--experiment": None})
    flags.set_up()
    folder, made = opened(run, experiment=options["--experiment"])
    _report(made, restored(folder, made), folder)
    return None


def list_command(given: list[str]) -> int | None:
    """`jdl list [FOLDER]`."""
    from jdl.run.storage.metrics_log import read

    root = Path(given[0]) if given else Path("runs")
    found = sorted(root.glob("**/config.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        print(f"no runs in {root}")
    for path in found:
        folder = RunFolder(path.parent)
        rows = read(folder.metrics) if folder.metrics.is_file() else []
        result = folder.path / "result.json"
        numbers = read_json(result) if result.is_file() else {}
        shown = "  ".join(f"{k} {v:.4g}" for k, v in numbers.items() if isinstance(v, float))
        print(f"{folder.path}  step {rows[-1]['step'] if rows else 0}  {shown}")
    return None


def _test_data(made: Experiment) -> Any:
    test = getattr(made.data, "test", None)
    if test is None:
        raise error(
            "jdl evaluate",
            expected="an experiment whose data has a test set",
            got="none",
            fix="return a jdl.Data from jdl.data.load or from_arrays",
        )
    return test()
