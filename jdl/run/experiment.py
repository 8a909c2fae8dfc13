"""An experiment: a file with a frozen `Config` and `experiment(config) -> Experiment`."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from jdl.core import tree
from jdl.core.errors import error
from jdl.core.nouns import describe
from jdl.core.types import Learner, Row, TrainState
from jdl.data.feed import Feed
from jdl.data.records import Data
from jdl.run.checks import resolve_data
from jdl.run.early_stopping import recall
from jdl.run.evaluate import Result
from jdl.run.experiment_sweep import ExperimentSweep
from jdl.run.fit import fit
from jdl.run.imports import load_module
from jdl.run.setup import Options, TrainingSetup, make_setup
from jdl.run.storage.checkpoint import Checkpoints
from jdl.run.storage.metrics_log import read_metrics
from jdl.run.storage.run_dir import RunDir
from jdl.run.typed_json import config_from_json, grid_from_json, invalid_config


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A named set of arguments for `fit`: what `experiment(config)` of an experiment file returns.

    The fields have the names, meanings and defaults of `fit`'s arguments. `figures(result)` returns
    matplotlib figures by name for the report; `summary_line(result)` returns a line to print after
    training.

    >>> import jdl, numpy as np, optax
    >>> model = jdl.from_linen(jdl.models.MLP(features=(8,), outputs=1))
    >>> learner = jdl.learner(jdl.regression(model), optax.adam(1e-2))
    >>> x = np.linspace(0, 1, 64, dtype=np.float32)[:, None]
    >>> square = Experiment("square", learner, {"x": x, "y": x**2}, batch_size=16, epochs=100)
    >>> dataclasses.replace(square, batch_size=32).epochs
    100
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
        fork: str | Path | None = None,
        learner: Learner | None = None,
        log: Callable[[dict[str, Any]], Any] | None = None,
    ) -> Result:
        """Call `jdl.fit` with these arguments; `learner` replaces its own, to shard it, say."""
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
            fork=fork,
            log=log,
        )


def load(run: str | Path, *, experiment: str | Path | None = None) -> Result:
    """Load a run that `jdl train` saved, finished or interrupted, to evaluate or predict with.

    The state has the best weights if the experiment sets `best` or `patience`, else the newest
    ones. `experiment` is a Python file to use instead of the run's own `experiment.py`.

    Loading executes the run's `experiment.py`, after its SHA-256 was compared with the recorded
    one. Treat a run directory from a stranger like a script from a stranger.

    Raises `InputError` if there is no run, if one of its files was changed or is damaged, or if no
    checkpoint fits the experiment.

    >>> load("runs/digits/1")
    Traceback (most recent call last):
    jdl.core.errors.InputError: run directory runs/digits/1
      expected: a directory with the config.json of a run
      got:      no such directory
      fix:      pass the path that jdl train printed: runs/<name>/<n>
    """
    return restore(*open_run(run, experiment=experiment))


def open_run(run: str | Path, *, experiment: str | Path | None = None) -> tuple[RunDir, Experiment]:
    """The directory of a run, and its experiment rebuilt from the recorded configuration."""
    if not isinstance(run, str | Path):
        raise error(
            "load: run",
            expected="the path of a run directory",
            got=describe(run),
            fix="pass a path, such as runs/digits/1; a Result needs no loading",
        )
    run_dir = RunDir(run).open()
    if experiment is None:
        module = load_module(run_dir.check_experiment(), run_dir.check_modules())
    else:
        module = load_module(experiment)
    values = run_dir.config()
    config = config_from_json(module.Config, values)
    if "sweep" not in values:
        return run_dir, module.experiment(config)
    grid = grid_from_json(module.Config, values["sweep"])
    try:
        points = ExperimentSweep(module.experiment, config, grid)
        learner = points.learner(values["run"]["seeds"])
    except (KeyError, TypeError, AttributeError) as bad:
        raise invalid_config("sweep", "lists of values by field", values["sweep"]) from bad
    return run_dir, dataclasses.replace(points.first, learner=learner)


def restore(run_dir: RunDir, experiment: Experiment) -> Result:
    """The state and the log of a run."""
    feed, valid = resolve_data(experiment.data, experiment.valid, experiment.batch_size, 0)
    setup = make_setup(
        experiment.learner,
        feed,
        valid,
        epochs=experiment.epochs,
        best=experiment.best,
        patience=experiment.patience,
        options=experiment.options,
    )
    target = jax.eval_shape(setup.learner.init, tree.any_key(), feed.batch(0))
    checkpoints, history = Checkpoints(run_dir.checkpoints), read_metrics(run_dir.metrics)
    state, _ = checkpoints.restore(target, _best_step(setup, checkpoints, history))
    return Result(setup.caller_state(state), experiment.learner, history, run_dir.path)


def _best_step(setup: TrainingSetup, checkpoints: Checkpoints, history: list[Row]) -> int | None:
    """The step of the best weights: by the log, because a kill may have left best.json behind."""
    steps = checkpoints.steps()
    if setup.best is None or not steps:
        return None
    saved = checkpoints.saved_best()
    recall(setup.best, history, saved, lambda at: at <= steps[-1] and setup.evaluates(at))
    return setup.best.step if setup.best.step in steps else checkpoints.best()


def source_file(experiment: Callable[..., Any]) -> Path | None:
    """The file that defines an experiment function; None if there is no file."""
    try:
        file = Path(inspect.getsourcefile(experiment) or "")
    except TypeError:
        return None
    return file if file.is_file() else None
