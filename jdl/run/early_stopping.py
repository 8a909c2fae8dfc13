"""The best evaluation so far, and early stopping."""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from jdl.core.errors import did_you_mean, error
from jdl.core.types import Row
from jdl.run.storage.metrics_log import scalars_of

log = logging.getLogger("jdl")


class Best:
    """The best evaluation so far by a rule such as `"min loss"` or `"max accuracy"`."""

    def __init__(self, rule: str, patience: int | None):
        sign, _, name = rule.partition(" ")
        if sign not in ("min", "max") or not name:
            raise error(
                "best",
                expected='"min NAME" or "max NAME", where NAME is a metric',
                got=repr(rule),
                fix='use "min loss", for example',
            )
        self.rule, self.sign, self.name = rule, (1 if sign == "min" else -1), name
        self.patience = patience
        self.seen: dict[int, float] = {}
        """The evaluations by step, so that less is better."""

    @property
    def step(self) -> int | None:
        """The step of the best evaluation; None before the first one that is no NaN."""
        return self.step_before(math.inf)

    @property
    def value(self) -> float | None:
        """The metric of the best evaluation."""
        return None if self.step is None else self.sign * self.seen[self.step]

    def step_before(self, end: float) -> int | None:
        """The step of the best evaluation before the step `end`; the first of equal ones."""
        known = [(value, at) for at, value in self.seen.items() if at < end and value == value]
        return min(known, default=(0.0, None))[1]

    def see(self, row: Row) -> bool:
        """Record an evaluation; return whether it is the best so far."""
        scalars = scalars_of(row)
        if self.name not in scalars:
            raise error(
                "best",
                expected="the name of a metric of the evaluation",
                got=repr(self.name),
                fix=did_you_mean(
                    self.name, [name for name in scalars if name not in ("step", "epoch")]
                ),
            )
        self.seen[row["step"]] = self.sign * scalars[self.name]
        return self.step == row["step"]

    def is_over(self, step: int) -> bool:
        """Whether the last `patience` evaluations before `step` brought no improvement."""
        known = [self.seen[at] for at in sorted(self.seen) if at < step]
        if self.patience is None or not known:
            return False
        known = [math.inf if math.isnan(value) else value for value in known]
        return len(known) - 1 - int(np.argmin(known)) >= self.patience


def recall(
    best: Best,
    rows: Iterable[Row],
    saved: Sequence[Any] | None,
    counts: Callable[[int], bool],
) -> None:
    """Record the evaluations of a log at the steps that count.

    `saved` is the step and the metric of the checkpoint that was saved as the best one. If the log
    has lost this evaluation, it counts all the same, with a warning.
    """
    for row in rows:
        if row.get("split") == "valid" and "step" in row and counts(row["step"]):
            best.see(row)
    if saved is None or not counts(saved[0]) or saved[0] in best.seen:
        return
    step, value = saved
    best.see({"step": step, best.name: best.sign * math.inf if value is None else value})
    log.warning(
        "metrics.jsonl has lost the evaluation at step %d, the best one by best.json: it counts, "
        "but other lost evaluations do not count for patience",
        step,
    )
