"""How many steps one dispatch has: a rule over the traced step.

Nothing is measured, so the answer is the same on a busy machine and after a resume, and only one
program is compiled.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import jax
from jax.extend import core

from jdl.core.flops import of_jaxpr
from jdl.core.lowering import platform

log = logging.getLogger("jdl")

MAX_STEPS_PER_DISPATCH = 1024
"""Largest number of steps in one dispatch."""

MAX_SECONDS = 0.4
"""About the longest that one dispatch may take; a run can stop or log only between dispatches."""

FLOPS_PER_SECOND = {"cpu": 1e11, "gpu": 2e13, "tpu": 2e13}
"""Typical speed of the matrix products of a training step, by platform."""

SECONDS_PER_PRIMITIVE = 1e-6
"""Time of a primitive without its matrix products; those in a scan count in each iteration."""


class DispatchMode(NamedTuple):
    """How the steps of a run are dispatched."""

    kind: Literal["step", "loop"]
    """Whether the compiled program takes one step, or many in a loop."""
    steps: int
    """Most steps between two checks of signals and log."""


def dispatch_mode(step: core.ClosedJaxpr, device: str) -> DispatchMode:
    """Choose how to dispatch a traced step on a `device` of kind "cpu", "gpu" or "tpu".

    A loop saves the overhead of a dispatch for each step and reuses buffers, so it is the default.
    The exception is XLA's convolution on CPU: inside a loop its gradient runs on one core, up to 30
    times slower. Convolutions that `jdl.models` computes as matrix products on CPU are not
    affected. `step` is `jax.make_jaxpr(step)(state, batch)`, traced as inside a loop.

    >>> import jax, jax.numpy as jnp
    >>> step = jax.make_jaxpr(lambda w, x: w - x.T @ (x @ w))(jnp.ones((64, 8)), jnp.ones((32, 64)))
    >>> dispatch_mode(step, "cpu")
    DispatchMode(kind='loop', steps=1024)
    """
    work, _ = _walk(step.jaxpr, "conv_general_dilated", device, {})
    speed = FLOPS_PER_SECOND.get(device, FLOPS_PER_SECOND["gpu"])
    seconds = of_jaxpr(step).count / speed + work.equations * SECONDS_PER_PRIMITIVE
    steps = int(min(MAX_STEPS_PER_DISPATCH, max(1, MAX_SECONDS / max(seconds, 1e-9))))
    return DispatchMode("step" if device == "cpu" and work.holds else "loop", steps)


def choose_dispatch(step: Any, state: Any, batch: Any, kind: str = "auto") -> DispatchMode:
    """The dispatch mode for `step(state, batch)`; `kind` is "auto", "step" or "loop".

    State and batch may be shapes. The step is traced, so its errors show here.
    """
    mode = dispatch_mode(jax.make_jaxpr(step)(state, batch), platform())
    if kind in ("step", "loop"):
        mode = mode._replace(kind=kind)
    log.debug("dispatch: %s, up to %d steps at a time", *mode)
    return mode


def holds(program: core.ClosedJaxpr, primitive: str, platform: str) -> bool:
    """Whether a traced program computes a primitive on `platform`.

    For `jax.lax.platform_dependent` only the branch of that platform counts.
    """
    return _walk(program.jaxpr, primitive, platform, {})[0].holds


class _Work(NamedTuple):
    """Whether a program has the primitive, and how many primitives it executes."""

    holds: bool
    equations: int


def _walk(
    jaxpr: Any, primitive: str, platform: str, branches: dict[Any, int]
) -> tuple[_Work, list[int | None]]:
    """The work of a program, and the branch that each result selects, if that is known.

    `branches` has the known branches of its arguments. A `cond` with an unknown branch counts as
    all branches, a loop of unknown length as one iteration.
    """
    branches, holds, equations = dict(branches), False, 0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        arguments = [_branch_of(variable, branches) for variable in equation.invars]
        inner, results = list(_programs(params)), []
        if name == "platform_index":
            results = [_branch(params["platforms"], platform)]
        elif name == "cond":
            if arguments[0] is not None:
                inner = [inner[arguments[0]]]
            arguments = arguments[1:]
        iterations = params["length"] if name == "scan" else 1
        for program in inner:
            known = _known_branches(program.invars, arguments)
            work, results = _walk(program, primitive, platform, known)
            holds, equations = holds or work.holds, equations + iterations * work.equations
        holds, equations = holds or name == primitive, equations + 1
        if len(inner) <= 1:
            branches |= _known_branches(equation.outvars, results)
    return _Work(holds, equations), [_branch_of(variable, branches) for variable in jaxpr.outvars]


def _known_branches(variables: Sequence[Any], branches: Sequence[int | None]) -> dict[Any, int]:
    pairs = zip(variables, branches, strict=False)
    return {variable: branch for variable, branch in pairs if branch is not None}


def _branch_of(variable: Any, branches: dict[Any, int]) -> int | None:
    return None if isinstance(variable, core.Literal) else branches.get(variable)


def _branch(platforms: Sequence[Any], platform: str) -> int:
    """The index of the branch for a platform; None in `platforms` stands for all others."""
    names = {platform, "cuda", "rocm"} if platform == "gpu" else {platform}
    for index, branch in enumerate(platforms):
        if branch is None or names & set([branch] if isinstance(branch, str) else branch):
            return index
    return len(platforms) - 1


def _programs(params: Any) -> Iterator[Any]:
    """The programs inside an equation: of a call, a loop, a custom derivative, branches."""
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, core.ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, core.Jaxpr):
                yield part
