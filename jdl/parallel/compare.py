"""A few steps of a learner under every layout of its state, compared with one device."""

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
"""Largest relative difference that rounding may make in so few steps."""
ZERO_BELOW = 1e-3
"""What counts as zero, relative to a loss of one or to the norm of the whole gradient."""


class Layout(NamedTuple):
    """A way to place a learner on devices."""

    name: str
    change: Callable[[Learner], Learner]
    may_be_skipped: bool = False
    """Whether it is for certain models only."""


class Comparison(NamedTuple):
    """How a layout differs from one device: the largest relative differences."""

    layout: str
    loss: float
    gradient: float
    evaluation: float
    held: float
    """The share of the state that one device holds."""
    worst: str = ""
    """The parameter whose gradient differs most."""

    @property
    def is_right(self) -> bool:
        """Whether all differences are those of rounding."""
        return max(self.loss, self.gradient, self.evaluation) <= TOLERANCE


class Trace(NamedTuple):
    """What a few steps were like, step by step."""

    states: list[TrainState]
    """Before each step."""
    losses: list[Any]
    norms: list[Any]
    evaluated: Any


def layouts() -> list[Layout]:
    """Every rule on a mesh of one axis, and on one of two where that is another layout."""

    def on(name: str, rule: Rule, may_be_skipped: bool = False, **axes: int) -> Layout:
        sizes = ",".join(f"{axis}={size}" for axis, size in axes.items())
        change = lambda inner: shard(inner, mesh(**axes), rule)
        return Layout(f"{sizes} {name}", change, may_be_skipped)

    # Even the smallest leaves are split here: what is not split is not checked.
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
    learner: Learner, batch: Batch, wanted: Sequence[Layout]
) -> tuple[list[Layout], dict[str, str]]:
    """The layouts that a learner can have, and why it cannot have the others, by name."""
    possible, why = [], {}
    for layout in wanted:
        try:
            jax.eval_shape(layout.change(learner).init, tree.any_key(), batch)
            possible.append(layout)
        except InputError as bad:
            if not layout.may_be_skipped:
                raise
            subject, expected, *_ = str(bad).splitlines()
            why[layout.name] = f"{subject} wants {expected.removeprefix('  expected: ')}"
    return possible, why


def compare_layouts(
    learner: Learner, layouts: Sequence[Layout], batches: Sequence[Batch], seed: int = 0
) -> Iterator[Comparison]:
    """Train on all batches but the last, evaluate on that one; a comparison for each layout.

    Gradients are compared leaf by leaf, at the states that one device went through: an optimizer
    that divides by their size, as Adam does, would hide a wrong factor. Of a learner without
    `gradient` only the norms are compared.
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
    """Train a few steps and write down what can be compared."""
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
    """By parameter the largest difference of two learners' gradients at the same states."""
    largest: dict[str, float] = {}
    if one.gradient is None or other.gradient is None:
        return largest
    for state, batch in zip(states, batches, strict=False):
        mine, theirs = (tree.flatten(each.gradient(state, batch)[0]) for each in (one, other))  # type: ignore
        for leaf, value in leaf_differences(mine, theirs).items():
            largest[leaf] = max(value, largest.get(leaf, 0.0))
    return largest


def leaf_differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """By leaf the norm of the difference of two gradients, relative to the leaf's own.

    A leaf whose gradient is zero but for rounding (a bias before BatchNorm) is measured by the
    norm of the whole gradient.
    """
    exact = {path: np.asarray(leaf, np.float64) for path, leaf in one.items()}
    whole = math.sqrt(sum(float((leaf**2).sum()) for leaf in exact.values()))
    found = {}
    for path, leaf in exact.items():
        error = np.linalg.norm(leaf - np.asarray(other[path], np.float64))
        relative = error / (np.linalg.norm(leaf) + ZERO_BELOW * whole + 1e-30)
        found[path] = float(relative) if np.isfinite(relative) else math.inf
    return found


def _difference(one: Any, other: Any) -> float:
    """The largest difference, relative to the one; what is not finite differs infinitely."""
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    relative = np.abs(one - other) / np.maximum(np.abs(one), ZERO_BELOW)
    return float(np.where(np.isfinite(relative), relative, np.inf).max())
