"""`jdl check-sharding`: a few steps of an experiment under every layout, beside one device's."""

import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jdl.core import tree
from jdl.core.check import InputError
from jdl.core.types import Learner, TrainState
from jdl.data.feed import Feed
from jdl.learn.instead import Gradients, kept, optimizer_instead
from jdl.parallel import rules
from jdl.parallel.mesh import mesh
from jdl.parallel.rules import Rule
from jdl.parallel.shard import shard
from jdl.run import flags
from jdl.run.experiment import Experiment, from_file
from jdl.run.layout import share
from jdl.run.plan import feeds

DEVICES = 8
STEPS = 3
TOLERANCE = 1e-3
"""Largest relative difference that rounding may make in so few steps."""
RATE = 1e-2
"""Of SGD: small, so that a difference is one of gradients and not of where they lead."""
SMALL = 1e-3
"""What counts as zero, beside a loss of one or the length of the whole gradient."""
_COUNT = "--xla_force_host_platform_device_count"


class Layout(NamedTuple):
    """A way to place a learner on devices."""

    name: str
    change: Callable[[Learner], Learner]
    may_be_skipped: bool = False
    """Whether it is for certain models only."""


class Trace(NamedTuple):
    """What a few steps were like, step by step."""

    losses: list[Any]
    norms: list[Any]
    gradients: list[dict[str, np.ndarray]]
    """By leaf; empty where the optimizer did not keep them."""
    evaluated: Any
    held: float
    """The share of the state that one device holds."""


class Row(NamedTuple):
    """A line of the table."""

    layout: str
    optimizer: str
    loss: float
    gradient: float
    evaluation: float
    held: float
    worst: str = ""
    """The leaf whose gradient differs most."""

    @property
    def is_right(self) -> bool:
        """Whether all differences are those of rounding."""
        return max(self.loss, self.gradient, self.evaluation) <= TOLERANCE


def check_sharding_command(given: list[str]) -> int | None:
    """`jdl check-sharding FILE.py ...`: 0 where every layout agrees with one device, else 1."""
    file, rest = flags.first(given, "jdl check-sharding FILE.py", "the file of an experiment")
    flags.quiet_backend()
    code = _elsewhere(given)
    if code is not None:
        return code
    module = from_file(file)
    config, run = flags.parse(module.Config, rest, f"jdl check-sharding {file}")
    flags.set_up(run.cache, run.host_memory)
    made = module.experiment(config)
    tried = layouts()
    if run.mesh is not None:
        name = f"{run.mesh} {run.rule}"
        tried.append(Layout(name, lambda inner: flags.on_mesh(inner, run)))
    feed = whole_batches(made)
    tried, why = possible(made.learner, feed, tried)
    print(
        f"{STEPS} steps of {feed.batch_size} examples on {DEVICES} devices "
        f"({jax.devices()[0].device_kind}) and on one: largest relative differences"
    )
    width = max(len(layout.name) for layout in tried)
    print(_line(width, "layout", "optimizer", "loss", "gradient", "evaluation", "held", ""))
    rows = []
    again = lambda: module.experiment(config).learner
    for row in compared(made.learner, again, feed, tried, run.seed):
        rows.append(row)
        numbers = (f"{apart:.1e}" for apart in (row.loss, row.gradient, row.evaluation))
        right = "ok" if row.is_right else "FAIL"
        print(_line(width, row.layout, row.optimizer, *numbers, f"{row.held:.0%}", right))
    for name, reason in why.items():
        print(f"skipped {name}: {reason}")
    return _verdict(rows)


def _line(width: int, layout: str, optimizer: str, *cells: str) -> str:
    """A line of the table, which is printed while it is being found."""
    return f"{layout:<{width}}  {optimizer:<9}  {'  '.join(f'{cell:>10}' for cell in cells)}"


def _verdict(rows: list[Row]) -> int | None:
    """Print what the table comes to; 1 for a failure."""
    wrong = [row for row in rows if not row.is_right]
    for row in wrong:
        where = f"; the gradient of {row.worst} differs most" if row.worst else ""
        print(f"FAIL: {row.layout} with {row.optimizer}: more than {TOLERANCE:g}{where}")
    if not wrong:
        print(f"every layout agrees with one device within {TOLERANCE:g}")
    return 1 if wrong else None


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


def whole_batches(made: Experiment) -> Feed:
    """The experiment's feed, with batches that eight devices and accumulated parts divide."""
    feed, _ = feeds(made.data, None, made.batch_size, 0)
    size = math.lcm(feed.batch_size, DEVICES)
    if size > feed.size:
        size = max(DEVICES, feed.batch_size // DEVICES * DEVICES)
    return Feed(feed.data, size, feed.seed)


def possible(
    learner: Learner, feed: Feed, tried: list[Layout]
) -> tuple[list[Layout], dict[str, str]]:
    """The layouts that a learner can have, and why it cannot have the others, by name."""
    able, why = [], {}
    for layout in tried:
        try:
            jax.eval_shape(layout.change(learner).init, tree.any_key(), feed.batch(0))
            able.append(layout)
        except InputError as bad:
            if not layout.may_be_skipped:
                raise
            subject, expected, *_ = str(bad).splitlines()
            why[layout.name] = f"{subject} wants {expected.removeprefix('  expected: ')}"
    return able, why


def compared(
    own: Learner, again: Callable[[], Learner], feed: Feed, tried: list[Layout], seed: int = 0
) -> Iterator[Row]:
    """A row for each layout and optimizer; `again` makes the learner anew, to train it with SGD.

    With SGD the gradients themselves are compared, leaf by leaf: an optimizer that divides by
    their size, as Adam does, would hide a wrong factor. With the experiment's own optimizer it is
    their norms, and the losses that it leads to.
    """
    sgd = optax.chain(kept(), optax.sgd(RATE))
    with optimizer_instead(sgd):
        learner = again()
        one = traced(learner, feed, seed)
    # One that neither jdl.learner nor jdl.game made keeps its own optimizer, and no gradients.
    for layout in tried if one.gradients[0] else ():
        with optimizer_instead(sgd):  # a sweep makes its learners while it is traced
            other = traced(layout.change(learner), feed, seed)
        yield _row(layout, "SGD", one, other)
    one = traced(own, feed, seed)
    for layout in tried:
        yield _row(layout, "its own", one, traced(layout.change(own), feed, seed))


def traced(learner: Learner, feed: Feed, seed: int) -> Trace:
    """Train a few steps and write down what can be compared."""
    state = jax.jit(learner.init)(jax.random.key(seed), feed.batch(0))
    step, found = jax.jit(learner.step), Trace([], [], [], None, share(state))
    for number in range(STEPS):
        state, metrics = step(state, feed.batch(number))
        found.losses.append(metrics["loss"].value)
        found.norms.append(metrics["gradient_norm"].value)
        found.gradients.append(_gradients(state))
    evaluated = jax.jit(learner.evaluate)(state, feed.batch(STEPS))
    return found._replace(evaluated=evaluated["loss"].value)


def _gradients(state: TrainState) -> dict[str, np.ndarray]:
    """The gradients that `kept` holds, by the path of their parameter."""

    def is_kept(value: Any) -> bool:
        return isinstance(value, Gradients)

    held = [x for x in jax.tree.leaves(state.opt_state, is_leaf=is_kept) if is_kept(x)]
    named = [tree.flatten(each.last) for each in held]
    return {
        f"{index}/{path}" if len(named) > 1 else path: np.asarray(leaf, np.float64)
        for index, leaves in enumerate(named)
        for path, leaf in leaves.items()
    }


def _row(layout: Layout, optimizer: str, one: Trace, other: Trace) -> Row:
    leaves: dict[str, float] = {}
    for mine, theirs in zip(one.gradients, other.gradients, strict=True):
        for leaf, apart in _leafwise(mine, theirs).items():
            leaves[leaf] = max(apart, leaves.get(leaf, 0.0))
    return Row(
        layout.name,
        optimizer,
        _relative(one.losses, other.losses),
        max(_relative(one.norms, other.norms), *leaves.values(), 0.0),
        _relative(one.evaluated, other.evaluated),
        other.held,
        max(leaves, key=lambda leaf: leaves[leaf]) if leaves else "",
    )


def _relative(one: Any, other: Any) -> float:
    """The largest difference, relative to the one; what is not finite differs infinitely."""
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    apart = np.abs(one - other) / np.maximum(np.abs(one), SMALL)
    return float(np.where(np.isfinite(apart), apart, np.inf).max())


def _leafwise(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> dict[str, float]:
    """By leaf the length of the difference of two gradients, relative to the leaf's own.

    A leaf whose gradient is zero but for rounding (a bias before BatchNorm) is measured by the
    whole gradient's length.
    """
    whole = math.sqrt(sum(float((leaf**2).sum()) for leaf in one.values()))
    found = {}
    for path, leaf in one.items():
        apart = np.linalg.norm(leaf - other[path]) / (np.linalg.norm(leaf) + SMALL * whole + 1e-30)
        found[path] = float(apart) if np.isfinite(apart) else math.inf
    return found


def _elsewhere(given: list[str]) -> int | None:
    """The exit code of the command in a process with eight fake devices, where this has fewer.

    The flag must be set before JAX starts, and counts for CPU only: real devices are taken where
    there are eight.
    """
    flags = re.sub(rf"{_COUNT}=\S+", "", given_flags := os.environ.get("XLA_FLAGS", ""))
    if _COUNT not in given_flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_COUNT}={DEVICES}".strip()
    if len(jax.devices()) >= DEVICES:
        return None
    fake = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{flags} {_COUNT}={DEVICES}".strip()}
    words = [sys.executable, "-m", "jdl.cli", "check-sharding", *given]
    return subprocess.run(words, env={**os.environ, **fake}).returncode
