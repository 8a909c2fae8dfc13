"""Floating-point operations of a function: those of its matrix products and convolutions.

They are counted in the traced program, not in the compiled one: XLA's own count takes the body of
a loop once, however often it runs, and depends on what was fused for the device.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

UNCOUNTED_PRIMITIVES = (
    "cholesky",
    "fft",
    "lu",
    "pallas_call",
    "qr",
    "ragged_dot_general",
    "svd",
    "eigh",
)
"""Primitives with a cost that is not counted, for lack of a formula."""

Branches = Mapping[Any, int]


class Flops(NamedTuple):
    """A number of floating-point operations, and what it leaves out."""

    count: int
    uncounted: tuple[str, ...] = ()
    """`while` for a loop of unknown length, whose body counts once, and `UNCOUNTED_PRIMITIVES`."""

    def __add__(self, other: Any) -> "Flops":
        """The operations of both."""
        return Flops(self.count + other.count, tuple({*self.uncounted, *other.uncounted}))

    def times(self, n: int) -> "Flops":
        """The operations of n repetitions."""
        return self._replace(count=self.count * n)


def flops(function: Callable[..., Any], *arguments: Any) -> Flops:
    r"""Count the operations of matrix products and convolutions in one call of `function`.

    A product of (m, k) and (k, n) counts $2 m n k$. A convolution counts 2 for each pair of an
    output and an input element in its window, without padding and without the zeros of a transposed
    convolution, so each of its two gradients costs as much as the forward pass. The body of a scan
    counts as often as it runs; among branches the most expensive one counts. Additions, activations
    and norms do not count, as is usual. Arguments are arrays or `jax.ShapeDtypeStruct`; nothing
    runs.

    >>> import jax.numpy as jnp
    >>> flops(lambda a, b: jnp.tanh(a @ b), jnp.ones((2, 3)), jnp.ones((3, 5))).count
    60
    """
    return of_jaxpr(jax.make_jaxpr(function)(*arguments))


def of_jaxpr(program: core.ClosedJaxpr) -> Flops:
    """`flops` of a traced program, `jax.jit(f).trace(...).jaxpr`."""
    return _walk(program.jaxpr, {})[0]


def _walk(jaxpr: Any, known: Branches) -> tuple[Flops, list[int | None]]:
    """The operations of a jaxpr, and the branch that each of its results selects, if known.

    `known` maps variables that select a branch by platform to the default branch: the matrix
    products that replace a convolution on CPU would count the padding too.
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
        elif name in UNCOUNTED_PRIMITIVES:
            total += Flops(0, (name,))
        else:
            work, branch = _inner(equation, [_branch(v, known) for v in equation.invars])
            total += work
            known |= {v: b for v, b in zip(equation.outvars, branch, strict=False) if b is not None}
    return total, [_branch(v, known) for v in jaxpr.outvars]


def _branch(variable: Any, known: Branches) -> int | None:
    return None if isinstance(variable, core.Literal) else known.get(variable)


def _inner(equation: Any, branch: list[int | None]) -> tuple[Flops, list[int | None]]:
    """The operations of the programs inside an equation: a call, a loop or branches."""
    name, params = equation.primitive.name, equation.params
    if name == "cond":
        branches = params["branches"]
        if branch[0] is not None:
            return _call(branches[branch[0]], branch[1:])
        works = [_call(program, branch[1:])[0] for program in branches]
        largest = max(work.count for work in works)
        return Flops(largest) + sum((w.times(0) for w in works), Flops(0)), []
    if name == "while":
        works = [_call(params[part], [])[0] for part in ("cond_jaxpr", "body_jaxpr")]
        work = works[0] + works[1]
        return (work + Flops(0, ("while",)) if work.count else work), []
    work, results = Flops(0), []
    for program in _programs(params):
        one, results = _call(program, branch)
        work += one
    if name == "scan":
        return work.times(params["length"]), results
    if name == "shard_map":
        axes = params["newly_manual_axes" if "newly_manual_axes" in params else "manual_axes"]
        return work.times(math.prod(params["mesh"].shape[axis] for axis in axes)), []
    return work, results


def _call(program: Any, branch: Sequence[int | None]) -> tuple[Flops, list[int | None]]:
    jaxpr = getattr(program, "jaxpr", program)
    pairs = zip(jaxpr.invars, branch, strict=False)
    return _walk(jaxpr, {v: b for v, b in pairs if b is not None})


def _programs(params: Mapping[str, Any]) -> Iterator[Any]:
    return (value for value in params.values() if isinstance(value, core.ClosedJaxpr | core.Jaxpr))


def _product(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    return 2 * math.prod(out) * math.prod(left[axis] for axis in contracted)


def _convolution(equation: Any) -> int:
    """Twice the number of pairs of an output and an input in its window, counted axis by axis."""
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
