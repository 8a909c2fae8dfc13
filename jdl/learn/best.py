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
        train = inner.init(key, batch)
        weights = jax.tree.map(jnp.copy, (train.params, train.state))
        loss = jnp.full(train.key.shape, jnp.inf, jnp.float32)
        return put(train, "best", {"loss": loss, "weights": weights})

    def step(train: TrainState, batch: Batch, *, axis: Any = None) -> tuple[TrainState, Metrics]:
        train, best = take(train, "best")
        train, metrics = inner.step(train, batch, axis=axis)
        loss = jax.lax.cond(
            train.step % every == 0,
            lambda: inner.evaluate(train, valid)["loss"].value.astype(jnp.float32),
            lambda: jnp.full_like(best["loss"], jnp.inf),
        )
        seen = {"loss": loss, "weights": (train.params, train.state)}
        return put(train, "best", tree.where(loss < best["loss"], seen, best)), metrics

    def at_best(train: TrainState) -> TrainState:
        train, best = take(train, "best")
        params, state = best["weights"]
        return train.replace(params=params, state=state)

    def evaluate(train: TrainState, batch: Batch) -> Metrics:
        return inner.evaluate(at_best(train), batch)

    def predict(train: TrainState, batch: Batch) -> PyTree:
        return inner.predict(at_best(train), batch)

    return Learner(init, step, evaluate, predict)
