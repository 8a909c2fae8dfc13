"""The best evaluation so far, and early stopping."""

import math

import numpy as np

from jdl.core.errors import did_you_mean, error
from jdl.core.types import Row
from jdl.run.storage.metrics_log import scalars_of


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
        self.step: int | None = None
        self._seen: list[tuple[int, float]] = []

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
        value = self.sign * scalars[self.name]
        better = not math.isnan(value) and all(value < old for _, old in self._seen)
        self._seen.append((row["step"], value if not math.isnan(value) else math.inf))
        self.step = row["step"] if better else self.step
        return better

    def is_over(self, step: int) -> bool:
        """Whether the last `patience` evaluations before `step` brought no improvement."""
        known = [value for at, value in self._seen if at < step]
        if self.patience is None or not known:
            return False
        return len(known) - 1 - int(np.argmin(known)) >= self.patience
