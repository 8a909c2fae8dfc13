"""The weights that a run begins with, checked before it trains."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdl.core import tree
from jdl.core.errors import error
from jdl.core.nouns import describe, wrong_noun
from jdl.core.types import PyTree, TrainState
from jdl.run.evaluate import Result


def start_from(start: TrainState | PyTree, state: TrainState) -> TrainState:
    """`state` with a copy of the weights of `start`, whose leaves must be the same and finite.

    `start` is a state or, for a model without model state, a tree of parameters.
    """
    if not isinstance(start, TrainState):
        start = _as_state(start, state)
    state = state.replace(
        params=_copy_like("params", start.params, state.params),
        model_state=_copy_like("model_state", start.model_state, state.model_state),
    )
    check_finite_weights("start", state)
    return state


def check_start(start: Any) -> None:
    """Raise `InputError` unless `start` is a state with finite weights, to continue from."""
    if not isinstance(start, TrainState):
        raise wrong_noun(start, "TrainState", "start")
    check_finite_weights("start", start)


def check_finite_weights(where: str, state: TrainState) -> None:
    """Raise `InputError`, with the leaf, unless all parameters and model state are finite."""
    for part in ("params", "model_state"):
        for path, leaf in tree.flatten(getattr(state, part)).items():
            if tree.is_key(leaf) or not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
                continue
            if getattr(leaf, "is_fully_addressable", True) and not bool(jnp.isfinite(leaf).all()):
                bad = int((~jnp.isfinite(leaf)).sum())
                raise error(
                    f"{where}: {part}/{path}",
                    expected="finite values",
                    got=f"{bad} of {leaf.size} not finite",
                    fix="start from an earlier checkpoint, before training diverged",
                )


def _as_state(start: Any, state: TrainState) -> TrainState:
    """A state with the parameters `start`."""
    if isinstance(start, Result):
        fix = "pass result.state"
    elif isinstance(start, str | Path):
        fix = f"pass jdl.load({str(start)!r}).state"
    elif set(tree.flatten(start)) != set(tree.flatten(state.params)):
        fix = "pass the state of a run, result.state"
    elif jax.tree.leaves(state.model_state):
        fix = "the model has state as well: pass state.replace(params=params, model_state=...)"
    else:
        return state.replace(params=start)
    raise error(
        "start",
        expected="a jdl.TrainState, or the parameters of a model without model state",
        got=describe(start),
        fix=fix,
    )


def _copy_like(name: str, given: PyTree, like: PyTree) -> PyTree:
    given_leaves, like_leaves = tree.flatten(given), tree.flatten(like)
    for leaf in dict.fromkeys([*like_leaves, *given_leaves]):
        expected, got = (
            f"shape {leaves[leaf].shape}" if leaf in leaves else "no such leaf"
            for leaves in (like_leaves, given_leaves)
        )
        if got != expected:
            raise error(
                f"start: {name}/{leaf}",
                expected=f"{expected}, as in the learner",
                got=got,
                fix="start from a run of the same model, or change the model to match",
            )
    return jax.tree.map(_copy_to_devices_of, like, given)


def _copy_to_devices_of(like: jax.Array, value: Any) -> jax.Array:
    """A copy of `value` with the type and the devices of `like`."""
    where = like.sharding if like.committed else None
    return jax.device_put(np.array(value, like.dtype, copy=True), where)
