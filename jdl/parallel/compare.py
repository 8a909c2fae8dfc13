"""Comparing a few steps of a learner on a mesh, under each sharding rule, with one device."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jdl.core import tree
from jdl.core.errors import InputError
from jdl.core.types import Batch, Learner, TrainState
from jdl.learn.transforms import jit
from jdl.parallel import rules
from jdl.parallel.describe import share_per_device
from jdl.parallel.mesh import mesh
from jdl.parallel.rules import Rule
from jdl.parallel.shard import shard

TOLERANCE = 1e-3
"""Largest relative difference that counts as rounding in a few steps."""
ZERO_BELOW = 1e-3
"""Smallest scale of a relative difference: of a loss, or as a share of the gradient's norm."""


class Layout(NamedTuple):
    """A mesh and a sharding rule to check."""

    name: str
    change: Callable[[Learner], Learner]
    may_be_skipped: bool = False
    """Whether it applies to certain models only."""


class Comparison(NamedTuple):
    """The largest relative differences between a layout and one device."""

    layout: str
    loss: float
    gradient: float
    evaluation: float
    held: float
    """The share of the state on one device, from 0 to 1."""
    worst: str = ""
    """The parameter whose gradient differs most."""

    @property
    def is_right(self) -> bool:
        """Whether all differences are within rounding."""
        return max(self.loss, self.gradient, self.evaluation) <= TOLERANCE


class Trace(NamedTuple):
    """States and metrics of a few steps."""

    states: list[TrainState]
    """The state before each step."""
    losses: list[Any]
    norms: list[Any]
    evaluated: Any


def layouts() -> list[Layout]:
    """Each rule on a mesh of one axis, and on a mesh of two axes if that changes the layout."""

    def on(name: str, rule: Rule, may_be_skipped: bool = False, **axes: int) -> Layout:
        sizes = ",".join(f"{axis}={size}" for axis, size in axes.items())
        change = lambda inner: shard(inner, mesh(**axes), rule)
        return Layout(f"{sizes} {name}", change, may_be_skipped)

    # smallest=1: a leaf that is not split is not checked.
    fsdp, tensor = rules.fsdp(smallest=1), rules.tensor()
    both = rules.fsdp(smallest=1, after=tensor)
    return [
        on("data", rules.replicated(), data=8),
        on("fsdp", fsdp, data=8),
        on("fsdp", fsdp, data=4, model=2),
        on("tensor", tensor, True, data=4, model=2),
        on("tensor+fsdp", both, True, data=4, model=2),
    ]


def possible_layouts(
    learner: Learner, batch: Batch, layouts: Sequence[Layout]
) -> tuple[list[Layout], dict[str, str]]:
    """The layouts that fit a learner, and by name the reason why each other one does not."""
    possible, reasons = [], {}
    for layout in layouts:
        try:
            jax.eval_shape(layout.change(learner).init, tree.any_key(), batch)
            possible.append(layout)
        except InputError as bad:
            if not layout.may_be_skipped:
                raise
            subject, expected, *_ = str(bad).splitlines()
            reasons[layout.name] = f"{subject} needs {expected.removeprefix('  expected: ')}"
    return possible, reasons


def compare_layouts(
    learner: Learner, layouts: Sequence[Layout], batches: Sequence[Batch], seed: int = 0
) -> Iterator[Comparison]:
    """Train on all batches but the last, evaluate on the last; yield a comparison for each layout.

    Gradients are compared leaf by leaf at the states of the run on one device, because an optimizer
    that normalizes gradients, such as Adam, hides a wrong factor. Without `learner.gradient` only
    the norms are compared.
    """
    one = run_steps(jit(learner), batches, seed)
    for layout in layouts:
        changed = jit(layout.change(learner))
        other = run_steps(changed, batches, seed)
        leaves = _gradient_differences(jit(learner), changed, one.states, batches)
        norms = _difference(one.norms, other.norms)
        yield Comparison(
            layout.name,
            _difference(one.losses, other.losses),
            max([norms, *leaves.values()]),
            _difference(one.evaluated, other.evaluated),
            share_per_device(other.states[0]),
            max(leaves, key=lambda leaf: leaves[leaf]) if leaves else "",
        )


def run_steps(learner: Learner, batches: Sequence[Batch], seed: int) -> Trace:
    """Train on all batches but the last, and record what is compared."""
    *training, last = batches
    state = learner.init(jax.random.key(seed), training[0])
    trace = Trace([], [], [], None)
    for batch in training:
        trace.states.append(state)
        state, metrics = learner.step(state, batch)
        trace.losses.append(metrics["loss"].value)
        trace.norms.append(metrics["gradient_norm"].value)
    return trace._replace(evaluated=learner.evaluate(state, last)["loss"].value)


def _gradient_differences(
    one: Learner, other: Learner, states: Sequence[TrainState], batches: Sequence[Batch]
) -> dict[str, float]:
    """The largest difference of two learners' gradients at the same states, by parameter."""
    largest: dict[str, float] = {}
    if one.gradient is None or other.gradient is None:
        return largest
    for state, batch in zip(states, batches, strict=False):
        mine, theirs = (tree.flatten(each.gradient(state, batch)[0]) for each in (one, other))  # type: ignore
        for leaf, value in leaf_differences(mine, theirs).items():
            largest[leaf] = max(value, largest.get(leaf, 0.0))
    return largest


def leaf_differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """The norm of the difference of two gradients by leaf, relative to the leaf's own norm.

    A leaf whose gradient is zero up to rounding (a bias before BatchNorm) is compared relative to
    the norm of the whole gradient.
    """
    leaves = {path: np.asarray(leaf, np.float64) for path, leaf in one.items()}
    norm = math.sqrt(sum(float((leaf**2).sum()) for leaf in leaves.values()))
    differences = {}
    for path, leaf in leaves.items():
        error = np.linalg.norm(leaf - np.asarray(other[path], np.float64))
        relative = error / (np.linalg.norm(leaf) + ZERO_BELOW * norm + 1e-30)
        differences[path] = float(relative) if np.isfinite(relative) else math.inf
    return differences


def _difference(one: Any, other: Any) -> float:
    """The largest difference relative to `one`; infinite for NaN and infinity."""
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    relative = np.abs(one - other) / np.maximum(np.abs(one), ZERO_BELOW)
    return float(np.where(np.isfinite(relative), relative, np.inf).max())
