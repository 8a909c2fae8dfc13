"""What the tests of whole runs share: small learners, quiet options, what a run leaves."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jdl
from jdl.core.text import without_timings
from jdl.core.types import Learner, Mean, TrainState
from jdl.run import setup
from jdl.run.checks import resolve_data
from jdl.run.execution.dispatch import DispatchMode
from jdl.run.setup import make_setup
from jdl.run.storage.checkpoint import Checkpoints
from jdl.run.storage.metrics_log import read_metrics
from tests.support import learners

ROOT = Path(__file__).resolve().parents[2]


def quiet(**given: Any) -> jdl.Options:
    """Options of a short silent run."""
    return jdl.Options(**{"bar": False, "dispatch": "loop", "log_every": 5, **given})


def line(examples: int = 48, seed: int = 0) -> dict[str, np.ndarray]:
    """Three inputs and one number that depends on them by a straight line."""
    x = np.random.default_rng(seed).normal(size=(examples, 3)).astype(np.float32)
    return {"x": x, "y": x @ np.array([[1.0], [-2.0], [0.5]], np.float32) + 0.5}


def classes(examples: int = 60, seed: int = 0) -> dict[str, np.ndarray]:
    """Two classes, on either side of a plane."""
    x = np.random.default_rng(seed).normal(size=(examples, 3)).astype(np.float32)
    return {"x": x, "y": (x.sum(1) > 0).astype(np.int32)}


def net(noise: float = 0.0, rate: Any = 1e-2) -> Learner:
    """A network of plain functions with Adam: quick to compile."""
    return jdl.learner(learners.network(noise=noise), optax.adam(rate))


def dropout_net() -> Learner:
    """A multilayer perceptron with dropout, that tells two classes apart."""
    model = jdl.from_linen(jdl.models.MLP((8,), outputs=2, dropout=0.3))
    return jdl.learner(jdl.classification(model), optax.adam(1e-2))


def counter(goal: float = 20.0, bad: tuple[int, ...] = ()) -> Learner:
    """Counts its steps; its evaluation says how far the count is from `goal` (nan at `bad`)."""

    def init(key: Any, batch: Any) -> TrainState:
        key, _ = jax.random.split(key)
        return TrainState(jnp.int32(0), key, {"w": jnp.zeros(())}, {}, (), {})

    def measured(value: Any) -> Any:
        return Mean(value, jnp.ones_like(value))

    def step(state: TrainState, batch: Any, *, axis: Any = None) -> Any:
        after = state.replace(step=state.step + 1, params={"w": state.params["w"] + 1})
        metrics = {"loss": measured(state.params["w"]), "gradient_norm": measured(jnp.float32(1))}
        return after, metrics

    def evaluate(state: TrainState, batch: Any) -> Any:
        count = state.params["w"]
        spoilt = jnp.isin(count, jnp.array([-1, *bad], jnp.float32))
        distance = jnp.where(spoilt, jnp.nan, jnp.abs(count - goal))
        return {"loss": measured(distance), "score": measured(-distance)}

    return Learner(init, step, evaluate, lambda state, batch: batch["x"][:, :1])


def content(state: TrainState) -> dict[str, Any]:
    """All that a state holds."""
    names = ("step", "key", "params", "model_state", "opt_state", "extra")
    return {name: getattr(state, name) for name in names}


def rows(where: Any) -> list[dict[str, Any]]:
    """The log of a result or of a folder, without clocks; nan becomes text, to be comparable."""
    found = (
        read_metrics(Path(where) / "metrics.jsonl")
        if isinstance(where, str | Path)
        else where.history
    )
    return [{k: str(v) if v != v else v for k, v in without_timings(row).items()} for row in found]


def saved(folder: Path, like: TrainState, step: int | None = None) -> TrainState:
    """The newest checkpoint of a run (or that of a step)."""
    return Checkpoints(folder / "checkpoints").restore(like, step)[0]


def target_of(learner: Learner, data: Any, batch_size: int = 8, **how: Any) -> TrainState:
    """The shapes of a run's checkpoints: of the caller's state and the run's own records."""
    feed, _ = resolve_data(data, None, batch_size, 0)
    made = make_setup(learner, feed, **{"options": quiet(), **how})
    return jax.eval_shape(made.learner.init, jax.random.key(0), feed.batch(0))


def target_of_experiment(made: jdl.Experiment) -> TrainState:
    """The shapes of the checkpoints of an experiment's runs."""
    return target_of(made.learner, made.data, made.batch_size, options=made.options)


def assert_same_run(one: jdl.Result, other: jdl.Result) -> None:
    """Every bit of the two states, and every number of the two logs."""
    learners.assert_same_bits(content(one.state), content(other.state))
    assert rows(one) == rows(other)


def force(monkeypatch: Any, kind: Any, steps: int) -> None:
    """Every run dispatches its steps like this."""
    monkeypatch.setattr(setup, "choose_dispatch", lambda *_: DispatchMode(kind, steps))
