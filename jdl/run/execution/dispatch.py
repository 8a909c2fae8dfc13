"""How many steps go into one dispatch: a rule over the traced step, the same on every machine.

Nothing is measured. A busy machine cannot change the answer, a resumed run gets the one it began
with, and only one program is compiled.
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
"""Steps of one dispatch, at most."""

MAX_SECONDS = 0.4
"""About as long as a dispatch lasts, at most: only between two can a run stop or show its log."""

FLOPS_PER_SECOND = {"cpu": 1e11, "gpu": 2e13, "tpu": 2e13}
"""Operations a second in the products of a training step, on an ordinary device of a platform."""

SECONDS_PER_PRIMITIVE = 1e-6
"""What a primitive costs besides its products; a scan has those of each of its turns."""


class DispatchMode(NamedTuple):
    """How the steps of a run are dispatched."""

    kind: Literal["step", "loop"]
    """A program of one step, or one with a loop around it."""
    steps: int
    """Steps before Python looks at signals and the log again, at most."""


def dispatch_mode(step: core.ClosedJaxpr, device: str) -> DispatchMode:
    """Choose how a run dispatches a step that has been traced, for such a kind of `device`.

    A loop around the step saves the way from Python to the device and keeps buffers between steps,
    so it is the rule. The exception is XLA's own convolution on the CPU: within a loop XLA computes
    its gradients on one core, up to 30 times slower. What `jdl.models` computes by products there
    is no such convolution. A step is given as `jax.make_jaxpr(step)(state, batch)`; trace it as
    the loop would.

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


def choose_dispatch(step: Any, state: Any, batch: Any, wanted: str = "auto") -> DispatchMode:
    """The mode of a run whose steps are `step(state, batch)`; `wanted` may be its kind.

    State and batch may be shapes. What is wrong with the step shows here.
    """
    mode = dispatch_mode(jax.make_jaxpr(step)(state, batch), platform())
    if wanted in ("step", "loop"):
        mode = mode._replace(kind=wanted)
    log.debug("dispatch: %s, up to %d steps at a time", *mode)
    return mode


def holds(program: core.ClosedJaxpr, primitive: str, platform: str) -> bool:
    """Whether a traced program computes this primitive on devices of `platform`.

    Of a choice by `jax.lax.platform_dependent` only the branch for that platform counts.
    """
    return _walk(program.jaxpr, primitive, platform, {})[0].holds


class _Work(NamedTuple):
    """Whether the primitive is there, and how many primitives are carried out."""

    holds: bool
    equations: int


def _walk(
    jaxpr: Any, primitive: str, platform: str, branches: dict[Any, int]
) -> tuple[_Work, list[int | None]]:
    """The work of a program, and which branch each of its results chooses, where it does.

    `branches` has the same of its arguments. A choice that is open counts as all of its branches,
    a loop of unknown length as one turn.
    """
    branches, found, equations = dict(branches), False, 0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        chosen = [_looked_up(variable, branches) for variable in equation.invars]
        inner, results = list(_programs(params)), []
        if name == "platform_index":
            results = [_branch(params["platforms"], platform)]
        elif name == "cond":
            if chosen[0] is not None:
                inner = [inner[chosen[0]]]
            chosen = chosen[1:]
        turns = params["length"] if name == "scan" else 1
        for program in inner:
            work, results = _walk(program, primitive, platform, _known(program.invars, chosen))
            found, equations = found or work.holds, equations + turns * work.equations
        found, equations = found or name == primitive, equations + 1
        if len(inner) <= 1:
            branches |= _known(equation.outvars, results)
    return _Work(found, equations), [_looked_up(variable, branches) for variable in jaxpr.outvars]


def _known(variables: Sequence[Any], chosen: Sequence[int | None]) -> dict[Any, int]:
    pairs = zip(variables, chosen, strict=False)
    return {variable: branch for variable, branch in pairs if branch is not None}


def _looked_up(variable: Any, branches: dict[Any, int]) -> int | None:
    return None if isinstance(variable, core.Literal) else branches.get(variable)


def _branch(platforms: Sequence[Any], platform: str) -> int:
    """The index of the branch: each has the platforms it is for, None for all that are left."""
    names = {platform, "cuda", "rocm"} if platform == "gpu" else {platform}
    for index, branch in enumerate(platforms):
        if branch is None or names & set([branch] if isinstance(branch, str) else branch):
            return index
    return len(platforms) - 1


def _programs(params: Any) -> Iterator[Any]:
    """The programs within an equation: a call's, a loop's, a derivative's, branches."""
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, core.ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, core.Jaxpr):
                yield part
