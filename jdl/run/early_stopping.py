"""Which evaluation is the best one so far, and when to stop waiting for a better one."""

import math

import numpy as np

from jdl.core.errors import did_you_mean, error
from jdl.core.types import Row
from jdl.run.storage.metrics_log import scalars_of


class Best:
    """Which evaluation is the best one so far: `"min loss"`, `"max accuracy"`, ..."""

    def __init__(self, rule: str, patience: int | None):
        sign, _, name = rule.partition(" ")
        if sign not in ("min", "max") or not name:
            raise error(
                "best", expected='"min NAME" or "max NAME"', got=repr(rule), fix='say "min loss"'
            )
        self.rule, self.sign, self.name = rule, (1 if sign == "min" else -1), name
        self.patience = patience
        self.step: int | None = None
        self._seen: list[tuple[int, float]] = []

    def see(self, row: Row) -> bool:
        """Take an evaluation in; whether it is the best so far."""
        numbers = scalars_of(row)
        if self.name not in numbers:
            raise error(
                "best",
                expected="the name of an evaluation's number",
                got=repr(self.name),
                fix=did_you_mean(
                    self.name, [name for name in numbers if name not in ("step", "epoch")]
                ),
            )
        value = self.sign * numbers[self.name]
        better = not math.isnan(value) and all(value < old for _, old in self._seen)
        self._seen.append((row["step"], value if not math.isnan(value) else math.inf))
        self.step = row["step"] if better else self.step
        return better

    def is_over(self, step: int) -> bool:
        """Whether, at the boundary `step`, `patience` earlier evaluations have brought nothing."""
        known = [value for at, value in self._seen if at < step]
        if self.patience is None or not known:
            return False
        return len(known) - 1 - int(np.argmin(known)) >= self.patience
