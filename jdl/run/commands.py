"""What each command of the command line does."""

import contextlib
import csv
import dataclasses
import json
import logging
import math
import os
import shlex
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, TextIO

import numpy as np

from jdl.core.check import Diverged, InputError, error, nearest
from jdl.run.apply import Result, evaluate, predict
from jdl.run.experiment import Experiment, from_file, opened, restored, source_of
from jdl.run.folder import RunFolder, cannot_write, next_run, write_json
from jdl.run.inputs import read_inputs
from jdl.run.signals import Interrupted


@dataclasses.dataclass(frozen=True)
class Run:
    """Options of a run, beside the fields of its experiment."""

    dir: str | None = None
    """Folder of the run; an existing run goes on there. Default: runs/NAME/N."""
    seed: int = 0
    """Seed of the weights, the order and every mask."""
    seeds: int = 1
    """Repeat with this many seeds and print mean and standard deviation."""
    start: str | None = None
    """A run whose weights to begin from."""
    mesh: str | None = None
    """Devices by axis: data=8, or data=4,model=2."""
    rule: str = "replicated"
    """How the state is placed on the mesh: replicated or fsdp."""
    cache: bool = True
    """Keep compiled programs on disk for the next run."""
    report: bool = True
    """Write figures and report.html."""


def train_command(given: list[str]) -> int | None:
    """`jdl train FILE.py ...`."""
    file, rest = _first(given, "jdl train FILE.py", "the file of an experiment")
    _quiet_backend()
    module = from_file(file)
    return train(module.Config, module.experiment, rest, prog=f"jdl train {shlex.quote(file)}")


def train(
    config_type: type, experiment: Callable[[Any], Experiment], given: list[str], prog: str | None = None
) -> int | None:
    """Train an experiment once, or once for each seed."""
    prog = prog or f"python {shlex.quote(sys.argv[0])}"
    config, run = _parse(config_type, given, prog)
    _set_up(run.cache)
    made, command = experiment(config), f"{prog} {shlex.join(given)}".rstrip()
    if run.seeds < 1:
        raise error("--run.seeds", expected="1 or more", got=str(run.seeds), fix="leave it out")
    if run.seeds == 1:
        _train_once(made, config, run, experiment, command)
        return None
    results = []
    with _folder(run, made.name, command) as (path, resume):
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
    return None


def _train_once(
    made: Experiment, config: Any, run: Run, experiment: Callable[..., Any], command: str
) -> dict[str, Any]:
    learner = _on_mesh(made.learner, run)
    start = None if run.start is None else restored(*opened(run.start)).train
    place = {"seed": run.seed, "mesh": run.mesh, "rule": run.rule, "start": run.start}
    with _folder(run, made.name, command) as (path, resume):
        folder = RunFolder(path, _recorded(config, made) | {"run": place}, source_of(experiment))
        with _explained(path, resume):
            result = made.fit(seed=run.seed, dir=folder, start=start, learner=learner)
    numbers = _test(made, result, folder)
    if made.remark:
        print(made.remark(result))
    if run.report:
        _report(made, result, folder)
    print(f"run    {path}")
    return numbers


@contextlib.contextmanager
def _folder(run: Run, name: str, command: str) -> Iterator[tuple[Path, str]]:
    """The folder of a run and the command that goes on in it; gone again if nothing was written."""
    if run.dir is not None:
        yield Path(run.dir), command
        return
    path = next_run(Path("runs"), name)
    try:
        yield path, f"{command} --run.dir {shlex.quote(str(path))}"
    except InputError:
        with contextlib.suppress(OSError):  # only an empty folder can be removed
            path.rmdir()
        raise


@contextlib.contextmanager
def _explained(path: Path, resume: str) -> Iterator[None]:
    """Say where a run is that did not come to its end, and how to go on with it."""
    try:
        yield
    except Interrupted as stop:
        print(f"\n{stop}; everything is saved. To go on:\n  {resume}", file=sys.stderr)
        raise
    except Diverged as stop:
        raise Diverged(f"{stop}\n  run:            {path}") from None


def _recorded(config: Any, made: Experiment) -> dict[str, Any]:
    """The fields of the configuration; epochs that it left open by the number they came to."""
    values = dataclasses.asdict(config)
    if values.get("epochs", made.epochs) is None:
        values["epochs"] = made.epochs
    return values


def _test(made: Experiment, result: Result, folder: RunFolder) -> dict[str, Any]:
    """The one look at the test set, at the end."""
    from jdl.run.report import result_line

    test = getattr(made.data, "test", None)
    if test is None:
        rows = [row for row in result.history if row["split"] == "valid"] or result.history
        numbers = {k: v for k, v in rows[-1].items() if isinstance(v, float)} if rows else {}
        print(f"step {int(result.train.step)}: " + ", ".join(f"{k} {v:.4g}" for k, v in numbers.items()))
        return numbers
    data = test()
    numbers = evaluate(result, data)
    examples = len(next(iter(data.values())))
    write_json(folder.path / "result.json", {"split": "test", "n": examples, **numbers})
    print(result_line(numbers, examples))
    return numbers


def _report(made: Experiment, result: Result, folder: RunFolder) -> None:
    from jdl.run.report import evaluation_of, write_report

    pictures = made.pictures(result) if made.pictures else {}
    try:
        page = write_report(folder, evaluation=evaluation_of(made.data, result), pictures=pictures)
    except InputError as missing:
        print(f"no report: {missing}", file=sys.stderr)
        return
    print(f"report {page}")


def evaluate_command(given: list[str]) -> int | None:
    """`jdl evaluate RUN [--json]`."""
    from jdl.run.report import result_line

    run, rest = _first(given, "jdl evaluate RUN [--json]", "the folder of a run")
    options = _flags(rest, {"--json": False, "--experiment": None})
    _set_up(True)
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
    run, rest = _first(given, "jdl predict RUN INPUT", "the folder of a run")
    source, rest = _first(rest, "jdl predict RUN INPUT", "a file of inputs")
    options = _flags(rest, {"--out": None, "--experiment": None})
    _set_up(True)
    folder, made = opened(run, experiment=options["--experiment"])
    info = getattr(made.data, "info", {})
    result = restored(folder, made)
    outputs = np.asarray(predict(result, read_inputs(Path(source), info)))
    if result.train.key.ndim:  # one row for an example; of several members the mean
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
    run, rest = _first(given, "jdl report RUN", "the folder of a run")
    options = _flags(rest, {"--experiment": None})
    _set_up(True)
    folder, made = opened(run, experiment=options["--experiment"])
    _report(made, restored(folder, made), folder)
    return None


def list_command(given: list[str]) -> int | None:
    """`jdl list [FOLDER]`."""
    from jdl.run.log import read

    root = Path(given[0]) if given else Path("runs")
    found = sorted(root.glob("**/config.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        print(f"no runs in {root}")
    for path in found:
        folder = RunFolder(path.parent)
        rows = read(folder.metrics) if folder.metrics.is_file() else []
        result = folder.path / "result.json"
        numbers = json.loads(result.read_text()) if result.is_file() else {}
        shown = "  ".join(f"{k} {v:.4g}" for k, v in numbers.items() if isinstance(v, float))
        print(f"{folder.path}  step {rows[-1]['step'] if rows else 0}  {shown}")
    return None


def sweep_command(given: list[str]) -> int | None:
    """`jdl sweep FILE.py --sweep.learning-rate 1e-4,1e-3 ...`."""
    from jdl.learn.sweep import sweep

    file, rest = _first(given, "jdl sweep FILE.py --sweep.field 1,2", "the file of an experiment")
    _quiet_backend()
    module = from_file(file)
    command = f"jdl sweep {shlex.quote(file)} {shlex.join(rest)}"
    texts, rest = _sweep_flags(rest)
    config, run = _parse(module.Config, rest, f"jdl sweep {file}")
    grid = {name: _values(config, name, text, rest) for name, text in texts.items()}
    if run.start is not None:
        raise error(
            "--run.start", expected="members that begin from their own seeds", got=run.start,
            fix="leave it out, or train the points one by one with jdl train",
        )
    _set_up(run.cache)
    first = module.experiment(config)
    for name, values in grid.items():
        for value in values:
            point = module.experiment(dataclasses.replace(config, **{name: value}))
            if (point.batch_size, point.epochs) != (first.batch_size, first.epochs):
                raise error(
                    f"--sweep.{name.replace('_', '-')}",
                    expected="a field that leaves batch size and epochs as they are",
                    got=", ".join(texts[name].split(",")),
                    fix="train once for each value: all members of a sweep see the same batches",
                )

    def build(**point: Any) -> Any:
        return module.experiment(dataclasses.replace(config, **point)).learner

    many = sweep(build, grid, run.seeds)
    learner = _on_mesh(many, run)
    place = {"seed": run.seed, "seeds": run.seeds, "mesh": run.mesh, "rule": run.rule}
    with _folder(run, f"{first.name}-sweep", command) as (path, resume):
        recorded = _recorded(config, first) | {"sweep": grid, "run": place}
        folder = RunFolder(path, recorded, Path(file))
        with _explained(path, resume):
            result = first.fit(seed=run.seed, dir=folder, learner=learner)
    valid = (first.valid if first.valid is not None else getattr(first.data, "valid", None)) or None
    numbers = evaluate(result, valid if valid is not None else _training(first))
    name = "accuracy" if "accuracy" in numbers else "loss"
    rows = many.table(numbers[name])
    sign = -1 if name == "accuracy" else 1
    rows.sort(key=lambda row: math.inf if math.isnan(row["mean"]) else sign * row["mean"])
    write_json(folder.path / "sweep.json", {"metric": name, "rows": rows})
    print(f"{'valid' if valid is not None else 'training'} {name}, best first (n {run.seeds} seeds)")
    for row in rows:
        point = "  ".join(f"{k} {row[k]}" for k in grid)
        spread = f" ± {row['std']:.4f}  95 % {row['low']:.4f}–{row['high']:.4f}" if row["n"] > 1 else ""
        print(f"  {point}  {row['mean']:.4f}{spread}")
    print(f"run    {path}")
    return None


def _training(made: Experiment) -> Any:
    data = getattr(made.data, "train", made.data)
    return getattr(data, "data", data)


def _test_data(made: Experiment) -> Any:
    test = getattr(made.data, "test", None)
    if test is None:
        raise error(
            "jdl evaluate", expected="an experiment whose data has a test set", got="none",
            fix="return a jdl.Data from jdl.data.load or from_arrays",
        )
    return test()


def _on_mesh(learner: Any, run: Run) -> Any:
    from jdl.parallel import rules
    from jdl.parallel.mesh import mesh
    from jdl.parallel.shard import shard

    known = {"replicated": rules.replicated, "fsdp": rules.fsdp}
    if run.rule not in known:
        raise error("--run.rule", expected=" or ".join(known), got=run.rule, fix=nearest(run.rule, known))
    if run.mesh is None:
        return learner
    axes = {}
    for part in run.mesh.split(","):
        name, _, size = part.partition("=")
        if not name.isidentifier() or not size.isdecimal():
            raise error("--run.mesh", expected="name=size,...", got=run.mesh, fix="say data=8")
        axes[name] = int(size)
    return shard(learner, mesh(**axes), known[run.rule]())


def _parse(config_type: type, given: list[str], prog: str) -> tuple[Any, Run]:
    import tyro

    arguments = dataclasses.make_dataclass(
        "Arguments",
        [
            ("config", Annotated[config_type, tyro.conf.arg(name="")], dataclasses.field(default_factory=config_type)),
            ("run", Run, dataclasses.field(default=Run())),
        ],
    )
    parsed: Any = tyro.cli(arguments, prog=prog, args=given, description=config_type.__doc__)
    return parsed.config, parsed.run


def _first(given: list[str], usage: str, what: str) -> tuple[str, list[str]]:
    if not given or given[0].startswith("-"):
        raise error(usage, expected=what, got=given[0] if given else "nothing", fix=f"say {usage}")
    return given[0], given[1:]


def _flags(given: list[str], known: dict[str, Any]) -> dict[str, Any]:
    """The few flags of the small commands; `False` marks a switch, `None` one with a value."""
    values, rest = dict(known), list(given)
    while rest:
        flag = rest.pop(0)
        if flag not in known:
            raise error(flag, expected=", ".join(known), got=flag, fix=nearest(flag, known))
        if known[flag] is None and not rest:
            raise error(flag, expected="a value", got="nothing", fix=f"say {flag} VALUE")
        values[flag] = True if known[flag] is False else rest.pop(0)
    return values


def _sweep_flags(given: list[str]) -> tuple[dict[str, str], list[str]]:
    texts, rest, left = {}, [], list(given)
    while left:
        word = left.pop(0)
        if not word.startswith("--sweep."):
            rest.append(word)
            continue
        flag, _, value = word.partition("=")
        if not value and not left:
            raise error(flag, expected="values with commas between", got="nothing", fix=f"{flag} 1,2")
        texts[flag.removeprefix("--sweep.").replace("-", "_")] = value or left.pop(0)
    if not texts and not {"-h", "--help"} & set(rest):
        raise error(
            "jdl sweep", expected="a field to sweep", got="none",
            fix="say --sweep.learning-rate 1e-4,1e-3",
        )
    return texts, rest


def _values(config: Any, name: str, text: str, given: list[str]) -> list[Any]:
    """The values of a swept field, read as its own flag would be."""
    fields = {field.name for field in dataclasses.fields(config)}
    flag = f"--sweep.{name.replace('_', '-')}"
    if name not in fields:
        raise error(
            flag, expected="a field of the experiment", got=name, fix=nearest(name, fields)
        )
    words = text.split(",")
    if isinstance(getattr(config, name), bool):
        known = {"true": True, "false": False}
        if not {word.lower() for word in words} <= set(known):
            raise error(flag, expected="true,false", got=text, fix="write it like that")
        return [known[word.lower()] for word in words]
    own = f"--{name.replace('_', '-')}"
    return [
        getattr(_parse(type(config), [*given, own, word], "jdl sweep")[0], name) for word in words
    ]


def _quiet_backend() -> None:
    """Before jax is imported: its backend would print what no user of a command line can use."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def _set_up(cache: bool) -> None:
    """Messages on the screen, and compiled programs kept for the next process."""
    import jax

    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("jdl").setLevel(logging.INFO)
    logging.getLogger("absl").setLevel(logging.WARNING)
    if cache and getattr(jax.config, "jax_compilation_cache_dir", None) is None:
        home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(home / "jdl" / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
