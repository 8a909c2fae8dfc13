"""An LSTM over time, differentiated by hand: the gradient of its kernel is one product.

Left to itself, the backward scan multiplies inputs by gradients at every step and adds up a kernel
each time. Here the derivative of all steps by the kernel, and by the inputs, is a single product
outside the scan, and the scan carries the hidden state alone. It is a rule for the tangent, linear
and written in jax, so forward mode, reverse mode and higher derivatives all follow from it.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.custom_derivatives import SymbolicZero

from jdl.models.layers.scan_time import State, carry_and_output, scan_time, scan_unrolled


class Gates(NamedTuple):
    """What a step computes on its way: input beside h, the four gates, tanh of the new c."""

    joined: jax.Array
    enter: jax.Array
    forget: jax.Array
    new: jax.Array
    leave: jax.Array
    bent: jax.Array


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def lstm(
    reverse: bool, kernel: jax.Array, bias: jax.Array, state: State, x: jax.Array, real: Any
) -> tuple[State, jax.Array]:
    """`scan_time` of `step`, with the rule below.

    `kernel` (n + m, 4 m) acts on the joined input and hidden state; `bias` is (1, 4 m).
    """
    return scan_time(partial(step, kernel, bias), state, x, real, reverse)


def step(kernel: jax.Array, bias: jax.Array, state: State, x: jax.Array) -> State:
    """One step: blocks i, f, g, o of the kernel, and the new (h, c)."""
    return _step(kernel, bias, state, x)[0]


def _step(kernel: jax.Array, bias: jax.Array, state: State, x: jax.Array) -> tuple[State, Gates]:
    h, c = state
    joined = jnp.concatenate([x, h], axis=-1)
    enter, forget, new, leave = jnp.split(joined @ kernel + bias, 4, axis=-1)
    enter, forget, leave = nn.sigmoid(enter), nn.sigmoid(forget), nn.sigmoid(leave)
    new = jnp.tanh(new)
    c = forget * c + enter * new
    bent = jnp.tanh(c)
    return (leave * bent, c), Gates(joined, enter, forget, new, leave, bent)


@partial(lstm.defjvp, symbolic_zeros=True)
def _tangent(reverse: bool, primals: Any, tangents: Any) -> Any:
    kernel, bias, state, x, real = primals
    kernel_dot, bias_dot, state_dot, x_dot, _ = tangents
    last, (outputs, joined, *slopes) = _with_slopes(reverse, kernel, bias, state, x, real)
    inputs = x.shape[-1]
    # What the weights and the inputs add before the gates, for all steps at once.
    pushed = jnp.zeros_like(slopes[0])
    for rows, weights in ((joined, kernel_dot), (x_dot, kernel[:inputs])):
        if not (_is_zero(rows) or _is_zero(weights)):
            pushed += _product(rows, weights)
    if not _is_zero(bias_dot):
        pushed += bias_dot[None]
    recurrent = kernel[inputs:]

    def advance(dot: State, now: Any) -> tuple[State, jax.Array]:
        pushed, by_gates, by_cell, forget, real = now
        parts = jnp.split((pushed + dot[0] @ recurrent) * by_gates, 4, axis=-1)
        c = forget * dot[1] + (parts[0] + parts[1] + parts[2])
        return carry_and_output(real, (parts[3] + by_cell * c, c), dot)

    start = tuple(
        jnp.zeros_like(leaf) if _is_zero(dot) else dot
        for leaf, dot in zip(state, state_dot, strict=True)
    )
    dots = scan_unrolled(advance, start, (pushed, *slopes, real), reverse)
    return (last, outputs), dots


def _with_slopes(
    reverse: bool, kernel: jax.Array, bias: jax.Array, state: State, x: jax.Array, real: Any
) -> Any:
    """The last state; and over time outputs, joined inputs, and what the tangent multiplies by.

    These are the slopes of c by what goes into i, f and g, and of h by what goes into o; of h by c;
    and of c by the c before.
    """

    def advance(state: State, now: tuple[jax.Array, Any]) -> tuple[State, Any]:
        x, real = now
        after, (joined, enter, forget, new, leave, bent) = _step(kernel, bias, state, x)
        by_gates = [
            new * (enter * (1 - enter)),
            state[1] * (forget * (1 - forget)),
            enter * (1 - new * new),
            bent * (leave * (1 - leave)),
        ]
        slopes = jnp.concatenate(by_gates, axis=-1), leave * (1 - bent * bent), forget
        after, output = carry_and_output(real, after, state)
        return after, (output, joined, *slopes)

    return scan_unrolled(advance, state, (x, real), reverse)


def _product(rows: jax.Array, weights: jax.Array) -> jax.Array:
    """All steps' rows times the weights, on two-dimensional operands."""
    return (rows.reshape(-1, rows.shape[-1]) @ weights).reshape(*rows.shape[:-1], -1)


def _is_zero(tangent: Any) -> bool:
    return isinstance(tangent, SymbolicZero)
