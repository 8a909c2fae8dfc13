"""Many members as one program: vmap over keys."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jdl.core.types import Batch, Key, Learner, Metrics, PyTree, TrainState

MEMBERS: Any = TrainState(step=None, key=0, params=0, model_state=0, opt_state=0, extra=0)  # type: ignore
"""Which axis of each part of the state counts members; `step` is shared by all of them."""


def ensemble(inner: Learner, members: int) -> Learner:
    """Train `members` copies that differ in their key only, with one compiled program.

    All see the same batches; member i is the lone run with key `fold_in(key, i)`, whatever their
    number. Metrics, evaluations and predictions have the members on a new leading axis.
    """
    together = mapped(lambda: inner, {})

    def init(key: Key, batch: Batch) -> TrainState:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(members))
        return together.init(keys, batch)

    return together._replace(init=init)


def mapped(build: Callable[..., Learner], values: Mapping[str, jax.Array]) -> Learner:
    """`build(**values)` for each member, on the leading axis of all values; `init` takes keys."""

    def each(state: TrainState, call: Callable[[Learner, TrainState], Any], out_axes: Any) -> Any:
        def one(state: TrainState, own: dict[str, Any]) -> Any:
            return call(build(**own), state)

        return jax.vmap(one, (MEMBERS, 0), out_axes)(state, dict(values))

    def init(keys: Key, batch: Batch) -> TrainState:
        def one(key: Key, own: dict[str, Any]) -> TrainState:
            return build(**own).init(key, batch)

        return jax.vmap(one, (0, 0), MEMBERS)(keys, dict(values))

    def step(state: TrainState, batch: Batch, *, axis: Any = None) -> tuple[TrainState, Metrics]:
        return each(state, lambda member, t: member.step(t, batch, axis=axis), (MEMBERS, 0))

    def evaluate(state: TrainState, batch: Batch) -> Metrics:
        return each(state, lambda member, t: member.evaluate(t, batch), 0)

    def predict(state: TrainState, batch: Batch) -> PyTree:
        return each(state, lambda member, t: member.predict(t, batch), 0)

    return Learner(init, step, evaluate, predict)
