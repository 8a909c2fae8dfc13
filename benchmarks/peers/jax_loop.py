"""The loop around a loss that a user of JAX and optax writes: one jit call for each step."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import optax

from benchmarks.peer_process import Rounds
from benchmarks.workloads import LEARNING_RATE, WORKLOADS, batches

Loss = Callable[[Any, jax.Array, jax.Array], jax.Array]
"""`loss(params, x, y)`."""


def step_of(loss: Loss, tx: optax.GradientTransformation) -> Callable[..., Any]:
    """`step(params, moments, x, y) -> (params, moments, value)`, compiled."""

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, moments: Any, x: jax.Array, y: jax.Array) -> Any:
        value, grads = jax.value_and_grad(loss)(params, x, y)
        updates, moments = tx.update(grads, moments, params)
        return optax.apply_updates(params, updates), moments, value

    return step


def drive(init: Callable[[Any, Any], Any], loss: Loss, workload: str, rounds: Rounds) -> None:
    """Train from `init(key, x)` for as many rounds as are asked for."""
    feed, tx = batches(WORKLOADS[workload]), optax.adam(LEARNING_RATE)
    step = step_of(loss, tx)
    params = jax.jit(init)(jax.random.key(0), next(feed)[0])
    moments = tx.init(params)

    def train(n: int) -> float:
        nonlocal params, moments
        for _ in range(n):
            params, moments, value = step(params, moments, *next(feed))
        return float(value)

    rounds.drive(train, at_once=10)
