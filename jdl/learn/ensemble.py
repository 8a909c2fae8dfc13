"""Many members as one program: vmap over keys."""

from typing import Any

import jax
import jax.numpy as jnp

from jdl.core.types import Batch, Key, Learner, Metrics, PyTree, TrainState

MEMBERS: Any = TrainState(step=None, key=0, params=0, state=0, opt_state=0, extra=0)  # type: ignore
"""Which axis of each part of the state counts members; `step` is shared by all of them."""


def ensemble(inner: Learner, members: int) -> Learner:
    """Train `members` copies that differ in their key only, with one compiled program.

    All see the same batches; member i is the lone run with key `fold_in(key, i)`, whatever their
    number. Metrics, evaluations and predictions have the members on a new leading axis.
    """

    def init(key: Key, batch: Batch) -> TrainState:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(members))
        return jax.vmap(inner.init, (0, None), MEMBERS)(keys, batch)

    def step(train: TrainState, batch: Batch, *, axis: Any = None) -> tuple[TrainState, Metrics]:
        def member(train: TrainState) -> tuple[TrainState, Metrics]:
            return inner.step(train, batch, axis=axis)

        return jax.vmap(member, (MEMBERS,), (MEMBERS, 0))(train)

    def evaluate(train: TrainState, batch: Batch) -> Metrics:
        return jax.vmap(inner.evaluate, (MEMBERS, None))(train, batch)

    def predict(train: TrainState, batch: Batch) -> PyTree:
        return jax.vmap(inner.predict, (MEMBERS, None))(train, batch)

    return Learner(init, step, evaluate, predict)
