"""The arithmetic of a function: multiplications and additions of its matrix products.

Counted from the traced program, not from the compiled one: a compiler counts the body of a loop
once, however often it runs, and what it fused or rewrote differs from device to device.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

UNKNOWN = ("cholesky", "fft", "lu", "pallas_call", "qr", "ragged_dot_general", "svd", "eigh")
"""Primitives that do more than pass numbers on and for which there is no formula here."""

Branches = Mapping[Any, int]


class Flops(NamedTuple):
    """Floating-point operations, and what of the program is not in their number as it should."""

    count: int
    uncounted: tuple[str, ...] = ()
    """`while` for a loop of unknown length, whose body counts once; else names of `UNKNOWN`."""

    def __add__(self, other: Any) -> "Flops":
        """The work of both."""
        return Flops(self.count + other.count, tuple({*self.uncounted, *other.uncounted}))

    def times(self, n: int) -> "Flops":
        """The work done n times."""
        return self._replace(count=self.count * n)


def flops(function: Callable[..., Any], *arguments: Any) -> Flops:
    r"""The operations of matrix products and convolutions in one call of `function`.

    A product of (m, k) and (k, n) is $2 m n k$. A convolution is two for each pair of an output
    and a number of the input that its window really covers: padding and the holes of a transposed
    convolution are not counted, so the two gradients cost what the forward pass does. The body of
    a scan counts as often as it runs, of several branches the dearest one. Additions, activations
    and norms are left out, as is usual. Arguments are arrays or `jax.ShapeDtypeStruct`; nothing is
    computed.

    >>> import jax.numpy as jnp
    >>> flops(lambda a, b: jnp.tanh(a @ b), jnp.ones((2, 3)), jnp.ones((3, 5))).count
    60
    """
    return of_jaxpr(jax.make_jaxpr(function)(*arguments))


def of_jaxpr(program: core.ClosedJaxpr) -> Flops:
    """The same of a program that has been traced: `jax.jit(f).trace(...).jaxpr`."""
    return _walk(program.jaxpr, {})[0]


def _walk(jaxpr: Any, known: Branches) -> tuple[Flops, list[int | None]]:
    """The work of a jaxpr, and which of its results choose a branch by the platform.

    `known` has the variables that do, with the branch of devices not named: the products that
    stand in for a convolution on CPU also multiply the padding.
    """
    total, known = Flops(0), dict(known)
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name == "platform_index":
            known[equation.outvars[0]] = len(equation.params["platforms"]) - 1
        elif name == "dot_general":
            total += Flops(_product(equation))
        elif name == "conv_general_dilated":
            total += Flops(_convolution(equation))
        elif name in UNKNOWN:
            total += Flops(0, (name,))
        else:
            work, chosen = _inner(equation, [_looked_up(v, known) for v in equation.invars])
            total += work
            known |= {v: c for v, c in zip(equation.outvars, chosen, strict=False) if c is not None}
    return total, [_looked_up(v, known) for v in jaxpr.outvars]


def _looked_up(variable: Any, known: Branches) -> int | None:
    return None if isinstance(variable, core.Literal) else known.get(variable)


def _inner(equation: Any, chosen: list[int | None]) -> tuple[Flops, list[int | None]]:
    """The work of the programs within an equation: a call, a loop, branches."""
    name, params = equation.primitive.name, equation.params
    if name == "cond":
        branches = params["branches"]
        if chosen[0] is not None:
            return _called(branches[chosen[0]], chosen[1:])
        works = [_called(branch, chosen[1:])[0] for branch in branches]
        dearest = max(work.count for work in works)
        return Flops(dearest) + sum((w.times(0) for w in works), Flops(0)), []
    if name == "while":
        works = [_called(params[part], [])[0] for part in ("cond_jaxpr", "body_jaxpr")]
        work = works[0] + works[1]
        return (work + Flops(0, ("while",)) if work.count else work), []
    work, results = Flops(0), []
    for program in _programs(params):
        one, results = _called(program, chosen)
        work += one
    if name == "scan":
        return work.times(params["length"]), results
    if name == "shard_map":
        axes = params["newly_manual_axes" if "newly_manual_axes" in params else "manual_axes"]
        return work.times(math.prod(params["mesh"].shape[axis] for axis in axes)), []
    return work, results


def _called(program: Any, chosen: Sequence[int | None]) -> tuple[Flops, list[int | None]]:
    jaxpr = getattr(program, "jaxpr", program)
    pairs = zip(jaxpr.invars, chosen, strict=False)
    return _walk(jaxpr, {v: c for v, c in pairs if c is not None})


def _programs(params: Mapping[str, Any]) -> Iterator[Any]:
    return (value for value in params.values() if isinstance(value, core.ClosedJaxpr | core.Jaxpr))


def _product(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    return 2 * math.prod(out) * math.prod(left[axis] for axis in contracted)


def _convolution(equation: Any) -> int:
    """Twice the pairs of outputs and inputs that meet, of which each axis has its own number."""
    p, (left, right) = equation.params, (v.aval.shape for v in equation.invars)
    numbers = p["dimension_numbers"]
    out = [equation.outvars[0].aval.shape[axis] for axis in numbers.out_spec]
    n, kernel = (
        [s[axis] for axis in spec] for s, spec in ((left, numbers[0]), (right, numbers[1]))
    )
    pairs = 1
    for axis in range(len(out) - 2):
        starts = np.arange(out[2 + axis]) * p["window_strides"][axis] - p["padding"][axis][0]
        at = starts[:, None] + np.arange(kernel[2 + axis]) * p["rhs_dilation"][axis]
        apart = p["lhs_dilation"][axis]
        real = (at >= 0) & (at <= (n[2 + axis] - 1) * apart) & (at % apart == 0)
        pairs *= int(real.sum())
    return 2 * out[0] * out[1] * kernel[1] * pairs
