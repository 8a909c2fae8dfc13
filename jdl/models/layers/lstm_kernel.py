"""An LSTM over time with a custom derivative: the gradient of its kernel is one product.

JAX's own backward scan multiplies inputs by gradients at every step and accumulates the kernel's
gradient. Here the derivatives of all steps with respect to the kernel and the inputs are a single
product outside the scan, and the scan carries the hidden state alone. The rule is for the tangent,
linear and written in JAX, so forward mode, reverse mode and higher derivatives follow from it.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.custom_derivatives import SymbolicZero

from jdl.models.layers.scan_time import State, carry_and_output, scan_time, scan_unrolled


class Gates(NamedTuple):
    """Intermediate values of a step: [x, h], the gates, the candidate g and tanh of the new c."""

    joined: jax.Array
    i: jax.Array
    f: jax.Array
    g: jax.Array
    o: jax.Array
    tanh_c: jax.Array


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def lstm(
    reverse: bool, kernel: jax.Array, bias: jax.Array, state: State, x: jax.Array, real: Any
) -> tuple[State, jax.Array]:
    """Run `step` over time with `scan_time`, and the derivative rule below.

    `kernel` (n + m, 4 m) multiplies the concatenated input and hidden state; `bias` is (1, 4 m).
    """
    return scan_time(partial(step, kernel, bias), state, x, real, reverse)


def step(kernel: jax.Array, bias: jax.Array, state: State, x: jax.Array) -> State:
    """The new (h, c) after one step. The kernel's blocks are i, f, g, o."""
    return _step(kernel, bias, state, x)[0]


def _step(kernel: jax.Array, bias: jax.Array, state: State, x: jax.Array) -> tuple[State, Gates]:
    h, c = state
    joined = jnp.concatenate([x, h], axis=-1)
    i, f, g, o = jnp.split(joined @ kernel + bias, 4, axis=-1)
    i, f, g, o = nn.sigmoid(i), nn.sigmoid(f), jnp.tanh(g), nn.sigmoid(o)
    c = f * c + i * g
    tanh_c = jnp.tanh(c)
    return (o * tanh_c, c), Gates(joined, i, f, g, o, tanh_c)


@partial(lstm.defjvp, symbolic_zeros=True)
def _tangent(reverse: bool, primals: Any, tangents: Any) -> Any:
    kernel, bias, state, x, real = primals
    kernel_dot, bias_dot, state_dot, x_dot, _ = tangents
    last, (outputs, joined, *factors) = _with_factors(reverse, kernel, bias, state, x, real)
    inputs = x.shape[-1]
    # Tangents of the gates' inputs from weights and inputs, for all steps at once.
    gates_dot = jnp.zeros_like(factors[0])
    for rows, weights in ((joined, kernel_dot), (x_dot, kernel[:inputs])):
        if not (_is_zero(rows) or _is_zero(weights)):
            gates_dot += _product(rows, weights)
    if not _is_zero(bias_dot):
        gates_dot += bias_dot[None]
    recurrent = kernel[inputs:]

    def advance(dot: State, now: Any) -> tuple[State, jax.Array]:
        gates_dot, by_gates, by_cell, f, real = now
        parts = jnp.split((gates_dot + dot[0] @ recurrent) * by_gates, 4, axis=-1)
        c = f * dot[1] + (parts[0] + parts[1] + parts[2])
        return carry_and_output(real, (parts[3] + by_cell * c, c), dot)

    start = tuple(
        jnp.zeros_like(leaf) if _is_zero(dot) else dot
        for leaf, dot in zip(state, state_dot, strict=True)
    )
    dots = scan_unrolled(advance, start, (gates_dot, *factors, real), reverse)
    return (last, outputs), dots


def _with_factors(
    reverse: bool, kernel: jax.Array, bias: jax.Array, state: State, x: jax.Array, real: Any
) -> Any:
    """The last state; and over time the outputs, the [x, h] and the factors of the tangent.

    These factors are the derivatives of c by the inputs of i, f and g, and of h by the input of o;
    of h by c; and of c by the previous c.
    """

    def advance(state: State, now: tuple[jax.Array, Any]) -> tuple[State, Any]:
        x, real = now
        after, (joined, i, f, g, o, tanh_c) = _step(kernel, bias, state, x)
        by_gates = [
            g * (i * (1 - i)),
            state[1] * (f * (1 - f)),
            i * (1 - g * g),
            tanh_c * (o * (1 - o)),
        ]
        factors = jnp.concatenate(by_gates, axis=-1), o * (1 - tanh_c * tanh_c), f
        after, output = carry_and_output(real, after, state)
        return after, (output, joined, *factors)

    return scan_unrolled(advance, state, (x, real), reverse)


def _product(rows: jax.Array, weights: jax.Array) -> jax.Array:
    """Multiply the rows of all steps by the weights, as one product of two matrices."""
    return (rows.reshape(-1, rows.shape[-1]) @ weights).reshape(*rows.shape[:-1], -1)


def _is_zero(tangent: Any) -> bool:
    return isinstance(tangent, SymbolicZero)
