"""Errors that say what was expected, what came, and how to mend it."""

import difflib
import math
from collections.abc import Iterable
from typing import Any


class InputError(ValueError):
    """Something the caller gave cannot be used. The command line ends with exit code 2."""


class Diverged(RuntimeError):
    """Training produced non-finite numbers too often in a row. Exit code 3."""


def error(what: str, *, expected: str, got: str, fix: str) -> InputError:
    """An `InputError` in the one form that all of jdl uses.

    >>> print(error("batch_size", expected="at most 10 examples", got="64", fix="lower it"))
    batch_size
      expected: at most 10 examples
      got:      64
      fix:      lower it
    """
    return InputError(f"{what}\n  expected: {expected}\n  got:      {got}\n  fix:      {fix}")


def nearest(name: str, valid: Iterable[str]) -> str:
    """A sentence that offers the closest valid name, or all of them.

    >>> nearest("acuracy", ["accuracy", "loss"])
    'did you mean "accuracy"?'
    """
    valid = list(valid)
    close = difflib.get_close_matches(name, valid, n=1)
    return f'did you mean "{close[0]}"?' if close else f"choose one of {', '.join(valid)}"


def within(name: str, value: Any, low: float, high: float = math.inf) -> None:
    """Raise unless a plain number lies in [low, high]; traced numbers pass, for sweeps.

    >>> within("dropout", 1.5, 0, 1)
    Traceback (most recent call last):
    jdl.core.check.InputError: dropout
      expected: a number from 0 to 1
      got:      1.5
      fix:      choose a value in that range
    """
    if isinstance(value, int | float) and not low <= value <= high:
        span = f"from {low:g} to {high:g}" if high < math.inf else f"of at least {low:g}"
        raise error(
            name, expected=f"a number {span}", got=f"{value}", fix="choose a value in that range"
        )
