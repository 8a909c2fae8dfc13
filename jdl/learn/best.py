"""Learner -> Learner: early stopping inside the program."""

from typing import Any

import jax
import jax.numpy as jnp

from jdl.core import tree
from jdl.core.types import Batch, Key, Learner, Metrics, PyTree, TrainState
from jdl.learn.transforms import put, take


def keep_best(inner: Learner, valid: Batch, every: int) -> Learner:
    """Evaluate and predict with the weights that had the lowest validation loss so far.

    The whole of `valid` is evaluated after every `every`-th step, inside the compiled program, so
    members of an ensemble or a sweep each keep their own best (Prechelt 1998). Until the first
    evaluation the weights are those drawn at the start. `fit(..., best="min loss")` does the
    same for one learner from outside, and stops early with `patience`.
    """

    def init(key: Key, batch: Batch) -> TrainState:
        state = inner.init(key, batch)
        weights = jax.tree.map(jnp.copy, (state.params, state.model_state))
        loss = jnp.full(state.key.shape, jnp.inf, jnp.float32)
        return put(state, "best", {"loss": loss, "weights": weights})

    def step(state: TrainState, batch: Batch, *, axis: Any = None) -> tuple[TrainState, Metrics]:
        state, best = take(state, "best")
        state, metrics = inner.step(state, batch, axis=axis)
        loss = jax.lax.cond(
            state.step % every == 0,
            lambda: inner.evaluate(state, valid)["loss"].value.astype(jnp.float32),
            lambda: jnp.full_like(best["loss"], jnp.inf),
        )
        seen = {"loss": loss, "weights": (state.params, state.model_state)}
        return put(state, "best", tree.where(loss < best["loss"], seen, best)), metrics

    def at_best(state: TrainState) -> TrainState:
        state, best = take(state, "best")
        params, model_state = best["weights"]
        return state.replace(params=params, model_state=model_state)

    def evaluate(state: TrainState, batch: Batch) -> Metrics:
        return inner.evaluate(at_best(state), batch)

    def predict(state: TrainState, batch: Batch) -> PyTree:
        return inner.predict(at_best(state), batch)

    return Learner(init, step, evaluate, predict)
