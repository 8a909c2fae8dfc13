"""The records that transforms keep in `TrainState.extra`.

A record is a frozen dataclass whose field `inner` holds the record of the transform inside, as
optax's wrappers hold their `inner_state`. So every transform nests with every transform, itself
included, and a record is found by its type. A transform that evaluates with its own weights (`ema`,
`keep_best`) stores them in a field `weights`, so that a transform around it can replace them.
"""

from typing import Any, TypeVar

import jax

from jdl.core.groups import Groups
from jdl.core.types import Axis, Batch, GradsAndAux, Learner, Metrics, PyTree, TrainState

Record = TypeVar("Record")


def inner_state(state: TrainState) -> TrainState:
    """The state without the record of the outermost transform."""
    return state.replace(extra=state.extra.inner)


def find_records(extra: PyTree, kind: type[Record]) -> list[Record]:
    """All records of a type, outer ones first, including those in the groups of a sweep."""
    leaves = jax.tree.leaves(extra, is_leaf=lambda x: isinstance(x, kind))
    records: list[Any] = [x for x in leaves if isinstance(x, kind)]
    return [*records, *(r for outer in records for r in find_records(outer.inner, kind))]


def drop_records(extra: PyTree, kind: type) -> PyTree:
    """The records without those of a type."""

    def drop(x: Any) -> Any:
        return drop_records(x.inner, kind) if isinstance(x, kind) else x

    return jax.tree.map(drop, extra, is_leaf=lambda x: isinstance(x, kind))


def evaluation_weights(state: TrainState) -> PyTree:
    """The weights that evaluation uses: those of the outermost record with a field `weights`.

    Without such a record they are `(params, model_state)`. A sweep has one of these per group.
    """
    return _get(state.extra, state.params, state.model_state)


def with_evaluation_weights(state: TrainState, weights: PyTree) -> TrainState:
    """A state that evaluates with `weights`, a tree like that of `evaluation_weights`."""
    extra, params, model_state = _set(state.extra, state.params, state.model_state, weights)
    return state.replace(extra=extra, params=params, model_state=model_state)


def _get(extra: PyTree, params: PyTree, model_state: PyTree) -> PyTree:
    if isinstance(extra, Groups):
        return extra.map(_get, params, model_state)
    if hasattr(extra, "weights"):
        return extra.weights
    if hasattr(extra, "inner"):
        return _get(extra.inner, params, model_state)
    return params, model_state


def _set(extra: PyTree, params: PyTree, model_state: PyTree, weights: PyTree) -> Any:
    if isinstance(extra, Groups):
        sets = extra.map(_set, params, model_state, weights)
        return tuple(sets.map(lambda triple, i=i: triple[i]) for i in range(3))
    if hasattr(extra, "weights"):
        return extra.replace(weights=weights), params, model_state
    if hasattr(extra, "inner"):
        inner, params, model_state = _set(extra.inner, params, model_state, weights)
        return extra.replace(inner=inner), params, model_state
    return extra, *weights


def below(inner: Learner) -> Learner:
    """`inner` for states with one more record, for a transform to replace `init` and `step`."""

    def evaluate(state: TrainState, batch: Batch) -> Metrics:
        return inner.evaluate(inner_state(state), batch)

    def predict(state: TrainState, batch: Batch) -> PyTree:
        return inner.predict(inner_state(state), batch)

    def gradient(state: TrainState, batch: Batch, *, axis: Axis = None) -> GradsAndAux:
        return inner.gradient(inner_state(state), batch, axis=axis)  # type: ignore

    return inner._replace(evaluate=evaluate, predict=predict, gradient=inner.gradient and gradient)


def evaluate_with_own_weights(inner: Learner) -> Learner:
    """`below(inner)`, evaluating and predicting with `state.extra.weights`.

    These may be wider than those inside, as the average of bfloat16 weights is, and are cast.
    """

    def inside(state: TrainState) -> TrainState:
        below = inner_state(state)
        weights = jax.tree.map(_as_type_of, state.extra.weights, evaluation_weights(below))
        return with_evaluation_weights(below, weights)

    def evaluate(state: TrainState, batch: Batch) -> Metrics:
        return inner.evaluate(inside(state), batch)

    def predict(state: TrainState, batch: Batch) -> PyTree:
        return inner.predict(inside(state), batch)

    return below(inner)._replace(evaluate=evaluate, predict=predict)


def _as_type_of(own: jax.Array, other: jax.Array) -> jax.Array:
    return own if own.dtype == other.dtype else own.astype(other.dtype)
