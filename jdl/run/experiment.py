"""An experiment: a file with a frozen `Config` and `experiment(config) -> Experiment`."""

import dataclasses
import importlib.util
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax

from jdl.core import tree
from jdl.core.errors import InputError, error
from jdl.core.types import Learner, TrainState
from jdl.data.feed import Feed
from jdl.data.records import Data
from jdl.learn.sweep import sweep
from jdl.run.checks import resolve_data
from jdl.run.evaluate import Result
from jdl.run.fit import fit
from jdl.run.setup import Options, make_setup
from jdl.run.storage.checkpoint import Checkpoints
from jdl.run.storage.metrics_log import read_metrics
from jdl.run.storage.run_dir import RunDir


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What `fit` is given, under a name, and the figures that belong to it.

    `figures(result)` returns matplotlib figures by name, for the report; `summary_line(result)` a
    line that is printed with the result.
    """

    name: str
    learner: Learner
    data: Data | Mapping[str, Any] | Feed
    valid: Mapping[str, Any] | None = None
    batch_size: int = 128
    epochs: float = 10
    best: str | None = None
    patience: int | None = None
    options: Options = dataclasses.field(default_factory=Options)
    figures: Callable[[Result], dict[str, Any]] | None = None
    summary_line: Callable[[Result], str] | None = None

    def fit(
        self,
        *,
        seed: int = 0,
        run_dir: str | Path | RunDir | None = None,
        start: TrainState | None = None,
        learner: Learner | None = None,
        log: Callable[[dict[str, Any]], Any] | None = None,
    ) -> Result:
        """Train it (`learner` in place of its own: the same one, sharded, say)."""
        return fit(
            learner or self.learner,
            self.data,
            valid=self.valid,
            batch_size=self.batch_size,
            epochs=self.epochs,
            best=self.best,
            patience=self.patience,
            options=self.options,
            seed=seed,
            run_dir=run_dir,
            start=start,
            log=log,
        )


def load(run: str | Path, *, experiment: str | Path | None = None) -> Result:
    """A finished or interrupted run, to evaluate, predict or go on with.

    Its weights are the best ones where the experiment keeps the best, else the newest. The run's
    `experiment.py` is a program and is executed, after its hash was compared with the recorded one;
    treat a stranger's run folder as you would a script, or give your own copy as `experiment`.
    """
    return restore(*open_run(run, experiment=experiment))


def open_run(run: str | Path, *, experiment: str | Path | None = None) -> tuple[RunDir, Experiment]:
    """The folder of a run and its experiment, made again from the recorded configuration."""
    folder = RunDir(run).open()
    module = load_module(folder.check_experiment() if experiment is None else experiment)
    values = folder.config()
    config = config_from_json(module.Config, values)
    made = module.experiment(config)
    if "sweep" in values:
        try:
            many = sweep_experiment(module, config, values["sweep"], values["run"]["seeds"])
        except (KeyError, TypeError, AttributeError) as bad:
            raise _not_a_value("sweep", "values by the name of a field", values["sweep"]) from bad
        made = dataclasses.replace(made, learner=many)
    return folder, made


def sweep_experiment(
    module: ModuleType, config: Any, grid: Mapping[str, Any], seeds: int
) -> Learner:
    """The learners of an experiment at every point of a grid of its fields, as one."""

    def build(**point: Any) -> Learner:
        return module.experiment(dataclasses.replace(config, **point)).learner

    return sweep(build, grid, seeds)


def restore(folder: RunDir, made: Experiment) -> Result:
    """The weights and the log of a run."""
    feed, valid = resolve_data(made.data, made.valid, made.batch_size, 0)
    setup = make_setup(
        made.learner,
        feed,
        valid,
        epochs=made.epochs,
        best=made.best,
        patience=made.patience,
        options=made.options,
    )
    target = jax.eval_shape(setup.learner.init, tree.any_key(), feed.batch(0))
    checkpoints = Checkpoints(folder.checkpoints)
    best = checkpoints.best() if setup.best is not None else None
    state, _ = checkpoints.restore(target, best)
    return Result(
        setup.caller_state(state), made.learner, read_metrics(folder.metrics), folder.path
    )


def load_module(path: str | Path) -> ModuleType:
    """Run an experiment's file; it must define `Config` and `experiment`."""
    path = Path(path)
    if not path.is_file():
        raise error(
            str(path),
            expected="the file of an experiment",
            got="no such file",
            fix="check the path",
        )
    name = f"jdl_experiment_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise error(
            str(path), expected="a Python file", got=path.suffix or "no suffix", fix="name it .py"
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    missing = [part for part in ("Config", "experiment") if not hasattr(module, part)]
    if missing:
        raise error(
            str(path),
            expected="a frozen dataclass Config and experiment(config) -> jdl.Experiment",
            got=f"no {' and no '.join(missing)}",
            fix="define them, as the files in experiments/ do",
        )
    return module


def source_file(experiment: Callable[..., Any]) -> Path | None:
    """The file an experiment function was written in, if it was written in a file."""
    try:
        file = Path(inspect.getsourcefile(experiment) or "")
    except TypeError:
        return None
    return file if file.is_file() else None


def config_from_json(config: type, values: Mapping[str, Any]) -> Any:
    """A Config from its JSON form: lists become tuples and strings paths, where it says so."""
    hints = typing.get_type_hints(config)
    given = {}
    for field in dataclasses.fields(config):
        if field.name in values:
            hint = hints[field.name]
            given[field.name] = value = _typed(hint, values[field.name])
            if not _fits(hint, value):
                raise _not_a_value(field.name, getattr(hint, "__name__", str(hint)), value)
    return config(**given)


def _not_a_value(name: str, expected: str, got: Any) -> InputError:
    return error(
        f"config.json, {name}",
        expected=expected,
        got=repr(got)[:80],
        fix="restore the file from a backup, or start a new run",
    )


def _fits(hint: Any, value: Any) -> bool:
    """Whether a value is of the type that a field asks for; types not known here always fit."""
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return value in parts
    if typing.get_origin(hint) is tuple and isinstance(value, tuple):
        kinds = parts[:1] * len(value) if parts[1:] == (...,) else parts
        return len(kinds) == len(value) and all(map(_fits, kinds, value))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(_fits(part, value) for part in parts)
    plain = {int: (int,), float: (int, float), bool: (bool,), str: (str,), Path: (Path,)}
    plain |= {types.NoneType: (types.NoneType,)}
    kinds = plain.get(hint, (tuple,) if typing.get_origin(hint) is tuple else (object,))
    return isinstance(value, kinds) and not (hint in (int, float) and type(value) is bool)


def _typed(hint: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return config_from_json(typing.cast(type, hint), value)
    options = (hint, *typing.get_args(hint))
    if isinstance(value, list):
        return tuple(value)
    return Path(value) if isinstance(value, str) and Path in options else value
