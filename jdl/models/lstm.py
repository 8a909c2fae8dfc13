"""An LSTM over time, differentiated by hand: the gradient of its kernel is one product.

Left to itself, the backward scan multiplies inputs by gradients at every step and adds up a kernel
each time. Here the derivative of all steps by the kernel, and by the inputs, is a single product
outside the scan, and the scan carries the hidden state alone. It is a rule for the tangent, linear
and written in jax, so forward mode, reverse mode and higher derivatives all follow from it.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.custom_derivatives import SymbolicZero

Pair = tuple[jax.Array, jax.Array]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def lstm(
    reverse: bool, kernel: jax.Array, bias: jax.Array, state: Pair, x: jax.Array, real: Any
) -> tuple[Pair, jax.Array]:
    """The last state and all outputs (time, batch, m) over inputs (time, batch, n).

    `kernel` (n + m, 4 m) acts on the joined input and hidden state; `bias` is (1, 4 m); where the
    mask `real` (time, batch, 1) is false the state stays and the output is zero.
    """

    def advance(state: Pair, now: tuple[jax.Array, Any]) -> tuple[Pair, jax.Array]:
        x, real = now
        after = step(kernel, bias, state, x)
        return _kept(real, after, state), after[0] if real is None else jnp.where(real, after[0], 0)

    return jax.lax.scan(advance, state, (x, real), reverse=reverse)


def step(kernel: jax.Array, bias: jax.Array, state: Pair, x: jax.Array) -> Pair:
    """One step: blocks i, f, g, o of the kernel, and the new (h, c)."""
    enter, forget, new, leave = _gates(kernel, bias, jnp.concatenate([x, state[0]], axis=-1))
    c = forget * state[1] + enter * new
    return leave * jnp.tanh(c), c


def _gates(kernel: jax.Array, bias: jax.Array, joined: jax.Array) -> list[jax.Array]:
    enter, forget, new, leave = jnp.split(joined @ kernel + bias, 4, axis=-1)
    return [nn.sigmoid(enter), nn.sigmoid(forget), jnp.tanh(new), nn.sigmoid(leave)]


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

    def advance(dot: Pair, now: Any) -> tuple[Pair, jax.Array]:
        pushed, by_gates, by_cell, forget, real = now
        parts = jnp.split((pushed + dot[0] @ recurrent) * by_gates, 4, axis=-1)
        c = forget * dot[1] + (parts[0] + parts[1] + parts[2])
        after = parts[3] + by_cell * c, c
        return _kept(real, after, dot), after[0] if real is None else jnp.where(real, after[0], 0)

    start = [
        jnp.zeros_like(leaf) if _is_zero(dot) else dot
        for leaf, dot in zip(state, state_dot, strict=True)
    ]
    steps = pushed, *slopes, real
    dots = jax.lax.scan(advance, (start[0], start[1]), steps, reverse=reverse)
    return (last, outputs), dots


def _with_slopes(
    reverse: bool, kernel: jax.Array, bias: jax.Array, state: Pair, x: jax.Array, real: Any
) -> Any:
    """The last state; and over time outputs, joined inputs, and what the tangent multiplies by.

    These are the slopes of c by what goes into i, f and g, and of h by what goes into o; of h by c;
    and of c by the c before.
    """

    def advance(state: Pair, now: tuple[jax.Array, Any]) -> tuple[Pair, Any]:
        x, real = now
        joined = jnp.concatenate([x, state[0]], axis=-1)
        enter, forget, new, leave = _gates(kernel, bias, joined)
        c = forget * state[1] + enter * new
        bent = jnp.tanh(c)
        h = leave * bent
        by_gates = [
            new * (enter * (1 - enter)),
            state[1] * (forget * (1 - forget)),
            enter * (1 - new * new),
            bent * (leave * (1 - leave)),
        ]
        slopes = jnp.concatenate(by_gates, axis=-1), leave * (1 - bent * bent), forget
        output = h if real is None else jnp.where(real, h, 0)
        return _kept(real, (h, c), state), (output, joined, *slopes)

    return jax.lax.scan(advance, state, (x, real), reverse=reverse)


def _kept(real: Any, after: Pair, before: Pair) -> Pair:
    """The new state, or the old one where a step is padding."""
    if real is None:
        return after
    return jnp.where(real, after[0], before[0]), jnp.where(real, after[1], before[1])


def _product(rows: jax.Array, weights: jax.Array) -> jax.Array:
    """All steps' rows times the weights, on two-dimensional operands."""
    return (rows.reshape(-1, rows.shape[-1]) @ weights).reshape(*rows.shape[:-1], -1)


def _is_zero(tangent: Any) -> bool:
    return isinstance(tangent, SymbolicZero)
