"""A learning rate that falls when evaluations stop improving, and the rate of an optimizer."""

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from jdl.core.errors import check_count, check_range, did_you_mean, error
from jdl.core.groups import Groups, Rows, is_groups
from jdl.core.types import PyTree, Row


@dataclass(frozen=True)
class PlateauRule:
    """When and by how much `reduce_on_plateau` lowers the rate."""

    by: str
    factor: float
    patience: int
    rtol: float
    cooldown: int
    min_scale: float

    @property
    def sign(self) -> int:
        """1 if less is better, -1 if more is."""
        return 1 if self.by.startswith("min ") else -1

    @property
    def name(self) -> str:
        """The metric that decides."""
        return self.by[4:]


@struct.dataclass
class PlateauState:
    """The state of `reduce_on_plateau`; each array is a scalar, or has one entry per member."""

    scale: jax.Array
    """What the updates are multiplied by."""
    best: jax.Array
    """The best value so far, with the sign that makes less better."""
    stale: jax.Array
    """Evaluations since then, or since the scale was lowered."""
    wait: jax.Array
    """Evaluations that still do not count, after the scale was lowered."""
    inner: PyTree
    rule: PlateauRule = struct.field(pytree_node=False)


def reduce_on_plateau(
    tx: optax.GradientTransformation,
    by: str = "min loss",
    *,
    factor: float = 0.1,
    patience: int = 10,
    rtol: float = 1e-4,
    cooldown: int = 0,
    min_scale: float = 0.0,
) -> optax.GradientTransformationExtraArgs:
    r"""Multiply the updates of `tx` by `factor` whenever an evaluation metric stops improving.

    `by` is "min NAME" or "max NAME" of a metric of the evaluations of `jdl.fit`, as its `best`.
    After `patience` evaluations in a row that are not better than the best one by the share `rtol`
    of it, the scale of the updates, 1 at first, falls to `factor` times its value, at least
    `min_scale`; then `cooldown` evaluations do not count. A value that is nan is not better.

    `fit` changes the state after each evaluation, before the next step, so a resumed run goes on as
    if it had not stopped. Members of an ensemble or a sweep fall separately. In a loop of your own
    call `observe_evaluation`; `optax.contrib.reduce_on_plateau` follows the training loss.

    Raises `InputError` for another `by` and for numbers out of range.

    >>> tx = reduce_on_plateau(optax.sgd(1.0), patience=2)
    >>> state = tx.init(jnp.zeros(1))
    >>> for loss in (0.5, 0.5, 0.6):
    ...     state = observe_evaluation(state, {"loss": loss})
    >>> print(tx.update(jnp.ones(1), state)[0])
    [-0.1]
    """
    rule = _rule(by, factor, patience, rtol, cooldown, min_scale)
    inner = optax.with_extra_args_support(tx)

    def init(params: PyTree) -> Any:
        one, none = jnp.ones((), jnp.float32), jnp.zeros((), jnp.int32)
        # Not one array twice: a run donates its state.
        best = jnp.full((), jnp.inf, jnp.float32)
        return PlateauState(one, best, none, none + 0, inner.init(params), rule)

    def update(
        updates: PyTree, state: Any, params: PyTree | None = None, **more: Any
    ) -> tuple[PyTree, Any]:
        updates, after = inner.update(updates, state.inner, params, **more)
        scaled = jax.tree.map(lambda u: (state.scale * u).astype(u.dtype), updates)
        return scaled, state.replace(inner=after)

    return optax.GradientTransformationExtraArgs(init, update)


def observe_evaluation(opt_state: PyTree, metrics: Row) -> PyTree:
    """The optimizer state after an evaluation, for every `reduce_on_plateau` in it.

    `metrics` are values by name, such as those of `jdl.evaluate`: numbers, or lists with one entry
    per member. A state without `reduce_on_plateau` is returned as it is.

    Raises `InputError` if the metric that decides is not among them.

    >>> tx = reduce_on_plateau(optax.sgd(1.0), "max f1", patience=1, factor=0.5)
    >>> state = observe_evaluation(tx.init(jnp.zeros(1)), {"f1": 0.8})
    >>> print(observe_evaluation(state, {"f1": 0.7}).scale)
    0.5
    """
    if is_groups(opt_state):  # of a sweep, which may have several programs
        return opt_state.map(observe_evaluation, _of_groups(metrics, opt_state.rows))

    def observe(node: Any) -> Any:
        return _observed(node, metrics) if isinstance(node, PlateauState) else node

    if not plateaus(opt_state):
        return opt_state
    return jax.tree.map(observe, opt_state, is_leaf=_is_plateau)


def plateaus(opt_state: PyTree) -> list[PlateauState]:
    """The states of every `reduce_on_plateau` in an optimizer state, outer ones first."""
    found = [x for x in jax.tree.leaves(opt_state, is_leaf=_is_plateau) if _is_plateau(x)]
    return [*found, *(below for outer in found for below in plateaus(outer.inner))]


def rate_factors(opt_state: PyTree) -> list[jax.Array]:
    """Arrays whose product is the learning rate of the last step; none where the state lacks it.

    It has one where exactly one `optax.inject_hyperparams` in it holds a "learning_rate"; the
    scales of `reduce_on_plateau` multiply it. Schedules and constants that were passed to an
    optimizer itself are in no state.

    >>> tx = optax.inject_hyperparams(optax.sgd)(learning_rate=0.5)
    >>> [float(x) for x in rate_factors(tx.init(jnp.zeros(1)))]
    [0.5]
    >>> rate_factors(optax.sgd(0.5).init(jnp.zeros(1)))
    []
    """
    nodes = jax.tree.leaves(opt_state, is_leaf=_holds_rate)
    rates = [node.hyperparams["learning_rate"] for node in nodes if _holds_rate(node)]
    return [*rates, *(state.scale for state in plateaus(opt_state))] if len(rates) == 1 else []


def _holds_rate(node: Any) -> bool:
    held = getattr(node, "hyperparams", None)
    return isinstance(held, dict) and "learning_rate" in held


def _is_plateau(node: Any) -> bool:
    return isinstance(node, PlateauState)


def _rule(by: str, factor: Any, patience: Any, rtol: Any, cooldown: Any, low: Any) -> PlateauRule:
    sign, _, name = by.partition(" ") if isinstance(by, str) else ("", "", "")
    if sign not in ("min", "max") or not name:
        raise error(
            "reduce_on_plateau: by",
            expected='"min NAME" or "max NAME", where NAME is a metric of the evaluations',
            got=repr(by),
            fix='pass "min loss", for example',
        )
    check_count("reduce_on_plateau: patience", patience)
    check_count("reduce_on_plateau: cooldown", cooldown, 0)
    numbers = {"factor": factor, "rtol": rtol, "min_scale": low}
    for what, value in numbers.items():
        if not isinstance(value, Real) or math.isnan(value):
            raise error(
                f"reduce_on_plateau: {what}",
                expected="a number",
                got=repr(value),
                fix="pass a Python number; the scale changes on the host",
            )
        check_range(f"reduce_on_plateau: {what}", value, 0, 1)
    if factor in (0, 1):
        raise error(
            "reduce_on_plateau: factor",
            expected="a number between 0 and 1, both excluded",
            got=repr(factor),
            fix="pass 0.1 or 0.5",
        )
    return PlateauRule(by, float(factor), int(patience), float(rtol), int(cooldown), float(low))


def _observed(state: Any, metrics: Row) -> PlateauState:
    """The state after one evaluation, computed on the host and put where its arrays were."""
    rule = state.rule
    if rule.name not in metrics:
        raise error(
            "reduce_on_plateau: by",
            expected="the name of a metric of the evaluation",
            got=repr(rule.name),
            fix=did_you_mean(rule.name, metrics),
        )
    arrays = (state.scale, state.best, state.stale, state.wait)
    scale, best, stale, wait = (np.asarray(array) for array in arrays)
    value = rule.sign * np.asarray(metrics[rule.name], np.float32)
    with np.errstate(invalid="ignore"):
        margin = np.where(np.isfinite(best), rule.rtol * np.abs(best), 0)
        is_better = value < best - margin
    waits = wait > 0
    stale = np.where(is_better | waits, 0, stale + 1)
    falls = stale >= rule.patience
    new = (
        np.where(falls, np.maximum(scale * rule.factor, rule.min_scale), scale),
        np.where(is_better, value, best),
        np.where(falls, 0, stale),
        np.where(falls, rule.cooldown, np.maximum(wait - 1, 0)),
    )
    scale, best, stale, wait = map(_put_like, arrays, new)
    inner = observe_evaluation(state.inner, metrics)
    return state.replace(scale=scale, best=best, stale=stale, wait=wait, inner=inner)


def _put_like(old: jax.Array, new: np.ndarray) -> jax.Array:
    new = np.broadcast_to(new, old.shape).astype(old.dtype)
    return jax.device_put(new, old.sharding if old.committed else None)


def _of_groups(metrics: Row, rows: Rows) -> Groups:
    """The metrics of the members of each group of a sweep."""
    values = {name: np.asarray(value) for name, value in metrics.items()}
    parts = {
        label: {name: x[np.array(own)] for name, x in values.items() if x.ndim}
        for label, own in rows.items()
    }
    return Groups(parts, rows)
