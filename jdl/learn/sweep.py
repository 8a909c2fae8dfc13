"""Every combination of hyper-parameters, trained as one learner."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import Parameter, signature
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdl.core.check import error, nearest
from jdl.core.types import Batch, Key, Learner, Metrics, PyTree, TrainState
from jdl.learn.ensemble import mapped
from jdl.learn.guard import guard

Point = dict[str, Any]
log = logging.getLogger("jdl")


class Sweep(Learner):
    """A learner whose members are `points`: one dictionary of values (and `seed`) for each."""

    points: list[Point]

    # A tuple's fields are fixed when it is made, so this is where `points` joins the four.
    def __new__(cls, four: Learner, points: list[Point]) -> "Sweep":
        """The four functions of a learner, with the points they train."""
        self = super().__new__(cls, *four)
        self.points = points
        return self

    def by(self, name: str, metrics: Mapping[str, Any]) -> dict[Any, dict[str, np.ndarray]]:
        """Members' numbers by a field of the grid, in its order, then by metric: (seeds, ...).

        `metrics` holds one number or array for each member, as `evaluate` returns them.
        """
        members = [point[name] for point in self.points]
        rows: dict[Any, dict[str, np.ndarray]] = {}
        for value in dict.fromkeys(members):
            own = [place for place, other in enumerate(members) if other == value]
            rows[value] = {metric: np.array(found)[own] for metric, found in metrics.items()}
        return rows

    def table(self, values: Any) -> list[dict[str, Any]]:
        """Mean, standard deviation and 95 % interval (Student's t) over seeds, for each point.

        `values` holds one number per member, as in `evaluate(...)["accuracy"]`.
        """
        rows: dict[tuple[Any, ...], list[float]] = {}
        for point, value in zip(self.points, np.asarray(values, np.float64), strict=True):
            rows.setdefault(tuple((k, v) for k, v in point.items() if k != "seed"), []).append(
                value
            )
        return [dict(point) | interval(numbers) for point, numbers in rows.items()]


def sweep(
    build: Callable[..., Learner], grid: Mapping[str, Sequence[Any]], seeds: int = 1
) -> Sweep:
    """Train `build(**point)` for every point of the grid and `seeds` keys each, in one program.

    Floats become traced numbers, one for each member; integers, strings and booleans change the
    program, so each of their combinations is a group compiled for itself, and so is a float that a
    library insists on knowing (a dropout rate, the peak of a warm-up): the log says which. Members
    are guarded one by one and see the same batches; the member of seed s is the lone run with key
    `fold_in(key, s)`.

    >>> import jdl, optax
    >>> def build(learning_rate):
    ...     model = jdl.from_linen(jdl.models.MLP(features=(), outputs=1))
    ...     return jdl.learner(jdl.regression(model), optax.sgd(learning_rate))
    >>> many = sweep(build, {"learning_rate": [0.1, 0.01]}, seeds=3)
    >>> batch = {"x": jnp.ones((4, 1)), "y": jnp.ones((4, 1))}
    >>> compiled = jdl.jit(many)
    >>> state, metrics = compiled.step(compiled.init(jax.random.key(0), batch), batch)
    >>> metrics["loss"].value.shape, many.points[-1]
    ((6,), {'learning_rate': 0.01, 'seed': 2})
    """
    _check(build, grid, seeds)
    names = list(grid)
    points: list[Point] = [
        dict(zip(names, values, strict=True)) | {"seed": seed}
        for values in product(*grid.values())
        for seed in range(seeds)
    ]
    floats = [n for n in names if all(isinstance(v, float | np.floating) for v in grid[n])]

    def init(key: Key, batch: Batch) -> TrainState:
        programs = [points[rows[0]] for _, rows in _groups(points, floats).values()]
        traced = [
            name for name in floats if all(_traceable(build, p, name, key, batch) for p in programs)
        ]
        if refused := [name for name in floats if name not in traced]:
            log.warning(
                "sweep: %s cannot be traced; one program for each value", ", ".join(refused)
            )
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.array([p["seed"] for p in points]))
        states, given = {}, {}
        for label, (static, rows) in _groups(points, traced).items():
            given[label] = {name: jnp.array([points[i][name] for i in rows]) for name in traced}
            states[label] = _group(build, static, given[label]).init(keys[np.array(rows)], batch)
        return _join(states, given, points)

    def each(state: TrainState, call: Callable[[Learner, TrainState], Any]) -> Any:
        """What `call` makes of every group, and where its members' results stand."""
        given = {label: entry["given"] for label, entry in state.extra["sweep"].items()}
        traced = list(next(iter(given.values())))
        results = {
            label: call(_group(build, static, given[label]), _part(state, label, rows))
            for label, (static, rows) in _groups(points, traced).items()
        }
        return results, _positions(points, traced)

    def step(state: TrainState, batch: Batch, *, axis: Any = None) -> tuple[TrainState, Metrics]:
        results, where = each(state, lambda group, part: group.step(part, batch, axis=axis))
        given = {label: entry["given"] for label, entry in state.extra["sweep"].items()}
        after = _join({label: t for label, (t, _) in results.items()}, given, points)
        return after, _ordered([metrics for _, metrics in results.values()], where)

    def evaluate(state: TrainState, batch: Batch) -> Metrics:
        results, where = each(state, lambda group, part: group.evaluate(part, batch))
        return _ordered(list(results.values()), where)

    def predict(state: TrainState, batch: Batch) -> PyTree:
        results, where = each(state, lambda group, part: group.predict(part, batch))
        return _ordered(list(results.values()), where)

    return Sweep(Learner(init, step, evaluate, predict), points)


def interval(numbers: Sequence[float]) -> dict[str, float]:
    """n, mean, standard deviation and the 95 % interval of the mean (Student's t).

    >>> {k: round(v, 3) for k, v in interval([1.0, 2.0, 3.0]).items()}
    {'n': 3, 'mean': 2.0, 'std': 1.0, 'low': -0.484, 'high': 4.484}
    """
    n, mean = len(numbers), float(np.mean(numbers))
    if n < 2:
        return {
            "n": n,
            "mean": mean,
            "std": float("nan"),
            "low": float("nan"),
            "high": float("nan"),
        }
    from scipy.special import stdtrit

    std = float(np.std(numbers, ddof=1))
    half = float(stdtrit(n - 1, 0.975)) * std / n**0.5
    return {"n": n, "mean": mean, "std": std, "low": mean - half, "high": mean + half}


def _check(build: Callable[..., Learner], grid: Mapping[str, Sequence[Any]], seeds: int) -> None:
    if "seed" in grid:
        raise error(
            "grid['seed']",
            expected="values of `build`; seeds are counted for each point",
            got=repr(list(grid["seed"])),
            fix=f"leave it out and say seeds={max(1, len(grid['seed']))}",
        )
    if seeds < 1:
        raise error("seeds", expected="1 or more", got=str(seeds), fix="set seeds=1")
    for name, values in grid.items():
        if not len(values):
            raise error(
                f"grid[{name!r}]", expected="one value or more", got="none", fix="add a value"
            )
    parameters = signature(build).parameters.values()
    if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [parameter.name for parameter in parameters]
    for name in grid:
        if name not in known:
            raise error(
                f"grid[{name!r}]",
                expected="the name of an argument of `build`",
                got="a name that it does not take",
                fix=nearest(name, known) if known else f"let it take {name}",
            )


def _group(build: Callable[..., Learner], static: Point, given: Point) -> Learner:
    """The members that share a program, each with its own of the `given` values, and guarded.

    The guard stands around them all: mapped over members it would make both its checks for each.
    """
    return guard(mapped(partial(build, **static), given))


def _traceable(
    build: Callable[..., Learner], point: Point, name: str, key: Key, batch: Batch
) -> bool:
    """Whether the learner can be built and stepped with `name` unknown until it runs."""
    static = {k: v for k, v in point.items() if k not in (name, "seed")}

    def run(value: Any) -> Any:
        learner = build(**static | {name: value})
        return learner.step(learner.init(key, batch), batch)

    try:
        jax.eval_shape(run, jnp.asarray(point[name]))
    except (TypeError, ValueError):
        # TypeError is what jax raises when Python asks a traced number for its value, ValueError
        # what a library's own check of it may. Other faults show again when the group is built.
        return False
    return True


def _groups(points: list[Point], traced: Sequence[str]) -> dict[str, tuple[Point, list[int]]]:
    """Label -> (the values that make a program, the members that share it)."""
    groups: dict[str, tuple[Point, list[int]]] = {}
    for index, point in enumerate(points):
        static = {k: v for k, v in point.items() if k not in traced and k != "seed"}
        label = " ".join(f"{k}={v}" for k, v in static.items()) or "all"
        groups.setdefault(label, (static, []))[1].append(index)
    return groups


def _positions(points: list[Point], traced: Sequence[str]) -> np.ndarray:
    """Where each member's result stands when the groups' results are laid end to end."""
    return np.argsort([i for _, rows in _groups(points, traced).values() for i in rows])


def _ordered(parts: list[PyTree], where: np.ndarray) -> PyTree:
    if len(parts) == 1:  # in order as they are; on many devices each keeps its own
        return parts[0]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[where], *parts)


def _join(
    states: dict[str, TrainState], given: dict[str, Point], points: list[Point]
) -> TrainState:
    first = next(iter(states.values()))
    where = _positions(points, list(next(iter(given.values()))))
    return TrainState(
        step=first.step,
        key=_ordered([t.key for t in states.values()], where),
        params={label: t.params for label, t in states.items()},
        model_state={label: t.model_state for label, t in states.items()},
        opt_state={label: t.opt_state for label, t in states.items()},
        extra={"sweep": {k: {"given": given[k], "extra": t.extra} for k, t in states.items()}},
    )


def _part(state: TrainState, label: str, rows: list[int]) -> TrainState:
    return TrainState(
        step=state.step,
        key=state.key[np.array(rows)],
        params=state.params[label],
        model_state=state.model_state[label],
        opt_state=state.opt_state[label],
        extra=state.extra["sweep"][label]["extra"],
    )
