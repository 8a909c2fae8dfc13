"""A grid of hyper-parameters, trained as one learner."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import Parameter, signature
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jdl.core.errors import did_you_mean, error
from jdl.core.groups import Groups
from jdl.core.nouns import check_callable, describe
from jdl.core.types import (
    Axis,
    Batch,
    GradsAndAux,
    Info,
    Key,
    Learner,
    Metrics,
    Point,
    PyTree,
    TrainState,
)
from jdl.learn.ensemble import vmapped
from jdl.learn.grid_values import alike, as_key
from jdl.learn.guard import guard

log = logging.getLogger("jdl")


@struct.dataclass
class SweepState:
    """The traced values of the members, and the records of the groups' own transforms."""

    values: Groups
    inner: Groups


def sweep(
    build: Callable[..., Learner], grid: Mapping[str, Sequence[Any]], seeds: int = 1
) -> Learner:
    """Train `build(**point)` for every point of a grid, with `seeds` keys each, in one program.

    The members, one per point and seed, all see the same batches, and each skips its own non-finite
    updates as under `guard`. A member of seed s trains like a single run with key
    `fold_in(key, s)`. Metrics and predictions have a new leading axis, (members, ...).

    Floats are traced, so members that differ in floats only share a program. Integers, strings and
    booleans select the program: each combination of them is a group with its own. So is each value
    of a float that a library refuses to trace, such as a dropout rate or the peak of a warm-up; the
    log names these. The learner and its transforms list the members in `points`, for `sweep_table`
    and `group_by`.

    Raises `InputError` for an empty grid value, a value that stands there twice, a name that
    `build` does not take, `seed` in the grid, and `seeds` below 1.

    >>> import jdl, optax
    >>> def build(learning_rate):
    ...     model = jdl.from_linen(jdl.models.MLP(features=(), outputs=1))
    ...     return jdl.learner(jdl.regression(model), optax.sgd(learning_rate))
    >>> many = sweep(build, {"learning_rate": [0.1, 0.01]}, seeds=3)
    >>> batch = {"x": jnp.ones((4, 1)), "y": jnp.ones((4, 1))}
    >>> compiled = jdl.jit(many)
    >>> state, metrics = compiled.step(compiled.init(jax.random.key(0), batch), batch)
    >>> metrics["loss"].value.shape, compiled.points[-1]
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
        traced = _traced(build, points, floats, key, batch)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.array([p["seed"] for p in points]))
        rows = _rows(points, traced)
        values = Groups(
            {
                k: {n: jnp.array([points[i][n] for i in own]) for n in traced}
                for k, own in rows.items()
            },
            rows,
        )
        states = values.map(
            lambda part, keys, first: _group(build, points[first], part).init(keys, batch),
            values.split(keys),
            _first(values),
        )
        return _join(states, values)

    def each(state: TrainState, call: Callable[[Learner, TrainState], Any]) -> Groups:
        """Apply `call(learner, state)` to every group."""
        values: Groups = state.extra.values
        return values.map(
            lambda part, own, first: call(_group(build, points[first], part), own),
            _split(state),
            _first(values),
        )

    def step(state: TrainState, batch: Batch, *, axis: Axis = None) -> tuple[TrainState, Metrics]:
        results = each(state, lambda group, part: group.step(part, batch, axis=axis))
        after = _join(results.map(lambda pair: pair[0]), state.extra.values)
        return after, results.map(lambda pair: pair[1]).members()

    def evaluate(state: TrainState, batch: Batch) -> Metrics:
        return each(state, lambda group, part: group.evaluate(part, batch)).members()

    def predict(state: TrainState, batch: Batch) -> PyTree:
        return each(state, lambda group, part: group.predict(part, batch)).members()

    def gradient(state: TrainState, batch: Batch, *, axis: Axis = None) -> GradsAndAux:
        results = each(state, lambda group, part: group.gradient(part, batch, axis=axis))  # type: ignore
        grads, model_state, metrics = (
            results.map(pick) for pick in (lambda r: r[0], lambda r: r[1][0], lambda r: r[1][1])
        )
        return grads, (model_state, metrics.members())

    return Learner(init, step, evaluate, predict, gradient, Info(points=tuple(points)))


def sweep_table(points: Sequence[Point], values: Any) -> list[dict[str, Any]]:
    """The mean, standard deviation and 95 % interval (Student's t) over seeds of each point.

    `points` are those of a sweep, and `values` (members,) one of its metrics.

    >>> points = [{"width": 4, "seed": 0}, {"width": 4, "seed": 1}]
    >>> [(row["width"], row["mean"], row["n"]) for row in sweep_table(points, [0.5, 0.75])]
    [(4, 0.625, 2)]
    """
    own = [{k: v for k, v in point.items() if k != "seed"} for point in points]
    found = [value for _, value in zip(points, np.asarray(values, np.float64), strict=True)]
    return [dict(point) | interval([found[i] for i in members]) for point, members in alike(own)]


def group_by(
    points: Sequence[Point], name: str, metrics: Mapping[str, Any]
) -> dict[Any, dict[str, np.ndarray]]:
    """Split the metrics of a sweep by the values of one name of the grid.

    `points` are those of the sweep, and `metrics` arrays (members, ...). The result maps each value
    of `name`, in the order of the grid, to the metrics of its members. A list or an array becomes a
    tuple, so that it can be a key; of values that are equal as keys, such as 1 and True, the later
    ones become text.

    >>> points = [{"width": 4, "seed": 0}, {"width": 8, "seed": 0}]
    >>> group_by(points, "width", {"loss": [0.5, 0.25]})[8]
    {'loss': array([0.25])}
    """
    rows: dict[Any, dict[str, np.ndarray]] = {}
    for value, own in alike([point[name] for point in points]):
        key = as_key(value)
        key = repr(value) if key in rows else key
        rows[key] = {metric: np.array(values)[own] for metric, values in metrics.items()}
    return rows


def interval(values: Sequence[float]) -> dict[str, float]:
    """The number, mean, standard deviation and 95 % interval of the mean (Student's t) of values.

    >>> {k: round(v, 3) for k, v in interval([1.0, 2.0, 3.0]).items()}
    {'n': 3, 'mean': 2.0, 'std': 1.0, 'low': -0.484, 'high': 4.484}
    """
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return {"n": n, "mean": mean} | dict.fromkeys(("std", "low", "high"), float("nan"))
    from scipy.special import stdtrit

    std = float(np.std(values, ddof=1))
    half = float(stdtrit(n - 1, 0.975)) * std / n**0.5
    return {"n": n, "mean": mean, "std": std, "low": mean - half, "high": mean + half}


def _check(build: Callable[..., Learner], grid: Mapping[str, Sequence[Any]], seeds: int) -> None:
    check_callable(
        build,
        "sweep: build",
        "a function of the grid's names that returns a learner",
        "pass a function, such as lambda rate: jdl.learner(task, optax.adam(rate))",
    )
    if not isinstance(grid, Mapping):
        raise error(
            "sweep: grid",
            expected="a dict of lists of values by name",
            got=describe(grid),
            fix='pass {"rate": [1e-3, 1e-2]}',
        )
    if "seed" in grid:
        raise error(
            "grid['seed']",
            expected="a grid of arguments of `build`; seeds are counted for each point",
            got=repr(list(grid["seed"])),
            fix=f"leave it out and pass seeds={max(1, len(grid['seed']))}",
        )
    if seeds < 1:
        raise error("seeds", expected="1 or more", got=str(seeds), fix="set seeds=1")
    for name, values in grid.items():
        if not len(values):
            raise error(
                f"grid[{name!r}]", expected="at least one value", got="none", fix="add a value"
            )
        for value, own in alike(values):
            if len(own) > 1:
                raise error(
                    f"grid[{name!r}]",
                    expected="each value once",
                    got=f"{value!r} {len(own)} times",
                    fix="leave one out; for more runs of each point pass seeds=5",
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
                fix=did_you_mean(name, known) if known else f"add the argument {name} to it",
            )


def _group(build: Callable[..., Learner], point: Point, values: Mapping[str, Any]) -> Learner:
    """The learner of the members that share a program, mapped over their traced `values`.

    The guard is outside: mapped over members it would run both of its checks for each of them.
    """
    static = {k: v for k, v in point.items() if k not in values and k != "seed"}
    return guard(vmapped(partial(build, **static), values))


def _traced(
    build: Callable[..., Learner], points: list[Point], floats: list[str], key: Key, batch: Batch
) -> list[str]:
    """The floats that can be traced; the log names the others."""
    first = [points[own[0]] for own in _rows(points, floats).values()]
    traced = [n for n in floats if all(_is_traceable(build, p, n, key, batch) for p in first)]
    if untraced := [name for name in floats if name not in traced]:
        log.warning("sweep: %s cannot be traced; one program for each value", ", ".join(untraced))
    return traced


def _is_traceable(
    build: Callable[..., Learner], point: Point, name: str, key: Key, batch: Batch
) -> bool:
    """Whether the learner can be built and stepped with a traced value for `name`."""
    static = {k: v for k, v in point.items() if k not in (name, "seed")}

    def run(value: Any) -> Any:
        learner = build(**static | {name: value})
        return learner.step(learner.init(key, batch), batch)

    try:
        jax.eval_shape(run, jnp.asarray(point[name]))
    except (TypeError, ValueError):
        # jax raises TypeError where Python needs the value of a traced number, and a library's own
        # check may raise ValueError. Any other fault appears again when the group is built.
        return False
    return True


def _rows(points: list[Point], traced: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The members that share a program, by the label of their group."""
    static = [{k: v for k, v in p.items() if k not in traced and k != "seed"} for p in points]
    rows: dict[str, tuple[int, ...]] = {}
    for values, own in alike(static):
        label = " ".join(f"{k}={v}" for k, v in values.items()) or "all"
        if label in rows:  # 1 and "1" are written alike
            label += f" ({len(rows)})"
        rows[label] = tuple(own)
    return rows


def _first(groups: Groups) -> Groups:
    """The index of the first member of each group."""
    return Groups({label: own[0] for label, own in groups.rows.items()}, groups.rows)


def _join(states: Groups, values: Groups) -> TrainState:
    parts = {
        name: states.map(lambda state, name=name: getattr(state, name))
        for name in ("params", "model_state", "opt_state", "key", "extra")
    }
    step = next(iter(states.parts.values())).step
    extra = SweepState(values, parts.pop("extra"))
    return TrainState(step=step, key=parts.pop("key").members(), extra=extra, **parts)


def _split(state: TrainState) -> Groups:
    return state.extra.values.split(state.key).map(
        lambda key, params, model_state, opt_state, extra: TrainState(
            state.step, key, params, model_state, opt_state, extra
        ),
        state.params,
        state.model_state,
        state.opt_state,
        state.extra.inner,
    )
