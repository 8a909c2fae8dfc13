"""What a run will do, worked out and checked before anything is trained or written."""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple

import jax
import numpy as np

from jdl.core import tree
from jdl.core.errors import error
from jdl.core.lowering import platform
from jdl.core.types import Learner, PyTree, TrainState
from jdl.data.arrays import as_arrays, check_arrays
from jdl.data.feed import Feed, evaluation_batches
from jdl.data.records import Data
from jdl.learn.extra import find_records
from jdl.learn.guard import GuardState
from jdl.learn.transforms import loop
from jdl.learn.window import WindowState
from jdl.parallel.describe import describe_layout
from jdl.run.early_stopping import Best
from jdl.run.evaluate import check_classes
from jdl.run.execution.block_guard import guard_in_blocks
from jdl.run.execution.host_memory import return_freed_pages
from jdl.run.execution.training_form import cache_trace, trained_learner

log = logging.getLogger("jdl")

Arrays = Mapping[str, Any]

MAX_STEPS = 2**31
"""Where the numbers of steps end."""


@dataclass(frozen=True)
class Options:
    """How a run is carried out and watched."""

    log_every: int = 50
    """Steps that one row of the log sums up."""
    evaluate_every: int | None = None
    """Steps between evaluations; about one epoch when left out."""
    save_seconds: float = 60.0
    """Seconds between checkpoints, where the run has a folder."""
    dispatch: str = "auto"
    """"step", "loop", or "auto": measure both before the first step."""
    guard: int = 10
    """End the run after this many skipped steps in a row; 0 leaves the learner unguarded."""
    bar: bool = True
    """Show progress."""
    profile: int = 0
    """Leave a trace of so many steps, after the first ones, in the run's folder `profile`."""


def resolve_data(
    data: Arrays | Data | Feed, valid: Arrays | None, batch_size: int, seed: int
) -> tuple[Feed, Arrays | None]:
    """The training feed and the validation set, both checked for numbers that are not finite."""
    if isinstance(data, Data):
        data, valid = data.train, (data.valid or None) if valid is None else valid
    if not isinstance(data, Feed):
        data = Feed(data, batch_size, seed)
    if isinstance(data.data, dict):
        check_arrays(data.data, name="training data")
        _notice_pixels(data.data)
    if valid is not None:
        valid = as_arrays(valid, name="validation data")
        check_arrays(valid, name="validation data")
    return data, valid


def _notice_pixels(data: Arrays) -> None:
    """Raw 8-bit pictures train badly, and without an error: say so."""
    for name, value in data.items():
        if value.dtype == np.uint8 and value.ndim == 4:
            log.warning(
                'training data["%s"]: 8-bit pictures with values up to %d; most networks train '
                "better on x.astype(np.float32) / 255",
                name,
                value.max(),
            )


class TrainingSetup(NamedTuple):
    """What a run will do, worked out before anything is trained or written."""

    inner: Learner
    """The caller's learner, traced once."""
    guard: int
    """The limit of the run's own guard; 0 where it has none, or the learner brings its own."""
    learner: Learner
    """The same as it trains: with the run's sums and its guard."""
    feed: Feed
    best: Best | None
    epochs: float
    total: int
    log_every: int
    evaluate_every: int | None
    options: Options

    def looped(self, feed_into: Callable[[Learner], Learner]) -> Learner:
        """The learner of many steps in one program: `step(state, data, n)`."""
        if not self.guard:
            return loop(feed_into(self.learner))
        return guard_in_blocks(feed_into(self.inner), self.guard, self.log_every)

    @property
    def per_epoch(self) -> float:
        """Steps in an epoch; batches may cross its end."""
        return self.feed.size / self.feed.batch_size

    def boundary_after(self, step: int) -> int:
        """The next step at which something is noted; the same however a run is cut."""
        periods = [self.log_every] + ([self.evaluate_every] if self.evaluate_every else [])
        return min([self.total] + [(step // every + 1) * every for every in periods])

    def logs(self, step: int) -> bool:
        """Whether a row of training numbers ends at this step."""
        return step % self.log_every == 0 or step == self.total

    def evaluates(self, step: int) -> bool:
        """Whether the validation set is evaluated at this step."""
        return self.evaluate_every is not None and (
            step % self.evaluate_every == 0 or step == self.total
        )

    def is_over(self, step: int) -> bool:
        """Whether patience has run out; asked at boundaries only, so that every cut agrees."""
        at_boundary = step > 0 and self.boundary_after(step - 1) == step
        return self.best is not None and at_boundary and self.best.is_over(step)


def prepare(
    learner: Learner,
    feed: Feed,
    valid: Mapping[str, Any] | None,
    epochs: float,
    best: str | None,
    patience: int | None,
    options: Options,
) -> TrainingSetup:
    """Check what `fit` was given, and put the learner into the form that it trains."""
    per_epoch = feed.size / feed.batch_size
    numbers = {
        "epochs": epochs,
        "log_every": options.log_every,
        "evaluate_every": options.evaluate_every or 1,
        "patience": 1 if patience is None else patience,
    }
    for name, value in numbers.items():
        if not (value > 0 and math.isfinite(value)):
            raise error(
                name, expected="a number above 0", got=str(value), fix=f"set {name}=1 or more"
            )
        if name != "epochs" and not (isinstance(value, Integral) and value < MAX_STEPS):
            raise error(
                name,
                expected=f"a whole number from 1 to {MAX_STEPS - 1}",
                got=repr(value),
                fix="round it to one of these",
            )
    if options.dispatch not in ("auto", "step", "loop"):
        raise error(
            "dispatch",
            expected='"auto", "step" or "loop"',
            got=repr(options.dispatch),
            fix='leave it at "auto"',
        )
    if (best or patience) and valid is None:
        raise error(
            "best" if best else "patience",
            expected="a validation set to choose by",
            got="none",
            fix="give valid=...",
        )
    rule = Best(best or "min loss", patience) if best or patience else None
    inner = cache_trace(learner)
    shapes = jax.eval_shape(inner.init, tree.any_key(), feed.batch(0))
    if find_records(shapes.extra, WindowState):
        log.warning("the learner sums its metrics itself (window): each row averages running sums")
    # A guard of its own keeps its own limit.
    guard = 0 if find_records(shapes.extra, GuardState) else options.guard
    every = None if valid is None else options.evaluate_every or max(1, round(per_epoch))
    total = max(1, math.ceil(epochs * per_epoch - 1e-9))
    if total >= MAX_STEPS:
        raise error(
            "epochs",
            expected=f"at most {MAX_STEPS - 1} steps, of which an epoch has {per_epoch:g}",
            got=f"{epochs:g} epochs",
            fix="train for fewer",
        )
    return TrainingSetup(
        inner,
        guard,
        trained_learner(inner, guard, options.log_every),
        feed,
        rule,
        epochs,
        total,
        options.log_every,
        every,
        options,
    )


def initial_state(
    plan: TrainingSetup, valid: Mapping[str, Any] | None, seed: int, start: TrainState | None
) -> TrainState:
    """The state before step 1. Whatever is wrong with model, data or task shows here."""
    sample = plan.feed.batch(0)
    state = init_state(plan.learner, plan.feed, seed)
    if start is not None:
        state = state.replace(
            params=_taken("params", start.params, state.params),
            model_state=_taken("model_state", start.model_state, state.model_state),
        )
    if valid is not None:
        padded = next(evaluation_batches(valid, plan.feed.batch_size))
        jax.eval_shape(plan.learner.evaluate, state, padded)
    if isinstance(plan.feed.data, dict):
        for name, data in (("training data", plan.feed.data), ("validation data", valid or {})):
            check_classes(plan.learner, state, sample, data, name)
    where = describe_layout(state)
    if where is not None:
        log.info(where)
    return state


def check_extreme_examples(learner: Learner, data: Any, batch_size: int) -> None:
    """Let the task look at the examples that hold the smallest and the largest of all numbers.

    Tasks compare values (of tokens, pixels, labels) with what their model takes at `init`; in a
    compiled `init` they see none, and a feed's first batch may lack the wrong one.
    """
    if not isinstance(data, Mapping):
        return
    ends = {
        int(find(value)) // max(1, value[0].size)
        for value in data.values()
        for find in (np.argmin, np.argmax)
        if value.size
    }
    rows = np.resize(sorted(ends), -(-len(ends) // batch_size) * batch_size)
    for index in rows.reshape(-1, batch_size):
        batch = {name: value[index] for name, value in data.items()}
        jax.eval_shape(lambda key, batch=batch: learner.init(key, batch), tree.any_key())


RUN_ONCE_OPTIONS = {"xla_backend_optimization_level": "1"}
"""How a program that runs once is compiled on CPU: random numbers take LLVM 2 s at its best."""


def init_state(learner: Learner, feed: Feed, seed: int) -> TrainState:
    """The state before step 1, made by one compiled program."""

    def init(seed: Any, batch: Any) -> TrainState:
        return learner.init(jax.random.key(seed), batch)

    if not (isinstance(seed, Integral) and -(2**63) <= seed < 2**63):
        raise error(
            "seed",
            expected="an integer of at most 64 bits",
            got=repr(seed),
            fix="give a whole number, such as 0",
        )
    made = jax.jit(init, compiler_options=RUN_ONCE_OPTIONS if platform() == "cpu" else None)
    # As `key` would take it; in 32 bits JAX keeps the lower ones.
    state = made(np.int64(seed), feed.batch(0))
    return_freed_pages()
    return state


def fingerprint(plan: TrainingSetup, seed: int) -> dict[str, Any]:
    """What must be the same for a run to be gone on with, as far as `fit` knows it."""
    best = plan.best
    return {
        "examples": plan.feed.size,
        "batch_size": plan.feed.batch_size,
        "feed_seed": plan.feed.seed,
        # 4 and 4.0 are the same run.
        "epochs": int(plan.epochs) if plan.epochs == int(plan.epochs) else plan.epochs,
        "seed": seed,
        "best": None if best is None else best.rule,
        "patience": None if best is None else best.patience,
        "log_every": plan.log_every,
        "evaluate_every": plan.evaluate_every,
    }


def _taken(name: str, given: PyTree, like: PyTree) -> PyTree:
    """A copy of `given`, which must have the leaves of `like`."""
    mine, wanted = tree.flatten(given), tree.flatten(like)
    for leaf in dict.fromkeys([*wanted, *mine]):
        got = mine[leaf].shape if leaf in mine else "no such leaf"
        want = wanted[leaf].shape if leaf in wanted else "no such leaf"
        if got != want:
            raise error(
                f"start: {name}/{leaf}",
                expected=str(want),
                got=str(got),
                fix="start from a run of the same model",
            )
    return jax.tree.map(_copied_to, given, like)


def _copied_to(value: Any, like: jax.Array) -> jax.Array:
    """A copy in the type of `like` and on its devices, whichever devices the value is on."""
    where = like.sharding if like.committed else None
    return jax.device_put(np.array(value, like.dtype, copy=True), where)
