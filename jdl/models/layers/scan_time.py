"""A recurrent step over time: the scan, and the effect of padding on states and outputs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jdl.core import lowering

STEPS_PER_GPU_ITERATION = 8
"""Steps that a GPU runs per loop iteration; 16 take twice as long to compile."""

State = tuple[jax.Array, ...]
Step = Callable[[State, jax.Array], State]


def scan_time(
    step: Step, state: State, x: jax.Array, real: Any, reverse: bool
) -> tuple[State, jax.Array]:
    """Return the last state and all outputs (time, batch, m) for inputs (time, batch, n).

    Where the mask `real` (time, batch, 1) is false, the state stays and the output is zero.
    """

    def advance(state: State, now: tuple[jax.Array, Any]) -> tuple[State, jax.Array]:
        x, real = now
        return carry_and_output(real, step(state, x), state)

    return scan_unrolled(advance, state, (x, real), reverse)


def scan_unrolled(advance: Callable[..., Any], state: Any, xs: Any, reverse: bool) -> Any:
    """`jax.lax.scan`, unrolled on a GPU, where a loop iteration costs more than a step."""
    unroll = STEPS_PER_GPU_ITERATION if lowering.platform() == "gpu" else 1
    return jax.lax.scan(advance, state, xs, reverse=reverse, unroll=unroll)


def carry_and_output(real: Any, after: State, before: State) -> tuple[State, jax.Array]:
    """The state after a step, and its output."""
    if real is None:
        return after, after[0]
    state = jax.tree.map(lambda new, old: jnp.where(real, new, old), after, before)
    return state, jnp.where(real, after[0], 0)
