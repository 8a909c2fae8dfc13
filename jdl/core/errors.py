"""Errors that say what was expected, what was passed, and how to fix it."""

import difflib
import importlib
import json
import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any, TypeVar

Key = TypeVar("Key")


class InputError(ValueError):
    """An argument, a setting or a file that cannot be used.

    The message names it, then what was expected, what was passed, and how to fix it. The command
    line exits with code 2.

    >>> import jdl
    >>> try:
    ...     jdl.mesh(data=0)
    ... except jdl.InputError as problem:
    ...     print(str(problem).splitlines()[0])
    mesh(data=0)
    """


class Diverged(RuntimeError):
    """Training had to skip too many non-finite steps in a row.

    `fit` raises it when `guard` has reached its limit. The command line exits with code 3.
    """


def error(what: str, *, expected: str, got: str, fix: str) -> InputError:
    """An `InputError` with a message in jdl's format.

    >>> print(error("batch_size", expected="at most 10 examples", got="64", fix="lower it"))
    batch_size
      expected: at most 10 examples
      got:      64
      fix:      lower it
    """
    return InputError(f"{what}\n  expected: {expected}\n  got:      {got}\n  fix:      {fix}")


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """A hint for an unknown name: the closest valid name, or all of them.

    >>> did_you_mean("acuracy", ["accuracy", "loss"])
    'did you mean "accuracy"?'
    """
    valid = list(valid)
    close = difflib.get_close_matches(name, valid, n=1)
    return f'did you mean "{close[0]}"?' if close else f"choose one of {', '.join(valid)}"


def check_one_of(what: str, value: str, valid: Iterable[str]) -> str:
    """Return `value` if it is one of the valid names; raise otherwise.

    >>> check_one_of("activation", "rellu", ["relu", "tanh"])
    Traceback (most recent call last):
    jdl.core.errors.InputError: activation
      expected: one of relu, tanh
      got:      'rellu'
      fix:      did you mean "relu"?
    """
    valid = list(valid)
    if value not in valid:
        raise error(
            what,
            expected=f"one of {', '.join(valid)}",
            got=repr(value),
            fix=did_you_mean(str(value), valid),
        )
    return value


def from_json(text: str | bytes) -> Any:
    """`json.loads` for untrusted files: raises `ValueError` for whatever is wrong with the text."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def require_package(module: str, package: str, what: str, install: str | None = None) -> Any:
    """Import a module of an optional package; raise with the install command if it is missing.

    `what` names the feature that needs it. `install` is the argument of `pip install` if that
    differs from `package`.

    >>> require_package("absent.data", "absent", "the set")
    Traceback (most recent call last):
    jdl.core.errors.InputError: the set
      expected: the package absent
      got:      no module named absent
      fix:      pip install absent
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise error(
            what,
            expected=f"the package {package}",
            got=f"no module named {module.partition('.')[0]}",
            fix=f"pip install {install or package}",
        ) from None


def require_key(key: Key | None, expected: str) -> Key:
    """Return the key; raise if it is None. `expected` tells what the key is needed for."""
    if key is None:
        raise error(
            "key",
            expected=expected,
            got="none",
            fix="pass key=jax.random.key(0)",
        )
    return key


def check_range(name: str, value: Any, low: float, high: float = math.inf) -> None:
    """Raise unless a Python number is finite and in [low, high]; traced values pass, for sweeps.

    >>> check_range("dropout", 1.5, 0, 1)
    Traceback (most recent call last):
    jdl.core.errors.InputError: dropout
      expected: a number from 0 to 1
      got:      1.5
      fix:      choose a value in that range
    """
    if isinstance(value, Real) and not (low <= float(value) <= high and float(value) < math.inf):
        span = f"from {low:g} to {high:g}" if high < math.inf else f"of at least {low:g}"
        raise error(
            name, expected=f"a number {span}", got=f"{value}", fix="choose a value in that range"
        )


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raise unless a value is an integer of at least `least`.

    >>> check_count("keep_best: every", 0)
    Traceback (most recent call last):
    jdl.core.errors.InputError: keep_best: every
      expected: an integer of at least 1
      got:      0
      fix:      choose a value in that range
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise error(
            name,
            expected=f"an integer of at least {least}",
            got=repr(value),
            fix="choose a value in that range",
        )


def check_fields(config: Any, **ranges: float | tuple[float, float]) -> None:
    """Raise `InputError` unless each named field lies in its range: a lower bound, or (low, high).

    Call it in `__post_init__` of an experiment's `Config`. For a tuple every element is checked.
    Fields that are None or traced pass.

    >>> import types
    >>> check_fields(types.SimpleNamespace(epochs=0, dropout=0.5), dropout=(0, 1), epochs=1)
    Traceback (most recent call last):
    jdl.core.errors.InputError: epochs
      expected: a number of at least 1
      got:      0
      fix:      choose a value in that range
    """
    for name, span in ranges.items():
        low, high = span if isinstance(span, tuple) else (span, math.inf)
        value = getattr(config, name)
        for element in value if isinstance(value, tuple) else (value,):
            check_range(name, element, low, high)


def check_lengths(lengths: Any, steps: int, name: str) -> None:
    """Raise unless the lengths of padded sequences are integers from 1 to `steps`.

    >>> check_lengths([3, 9], 5, "lengths")
    Traceback (most recent call last):
    jdl.core.errors.InputError: lengths
      expected: integers from 1 to 5, the length of the time axis
      got:      9 at index 1
      fix:      pass the length of each sequence before padding, or pad to the longest
    """
    import numpy as np  # here, because `import jdl` must load nothing heavy

    lengths = np.asarray(lengths)
    wrong = np.flatnonzero((lengths < 1) | (lengths > steps))
    if lengths.dtype.kind not in "iu" or len(wrong):
        raise error(
            name,
            expected=f"integers from 1 to {steps}, the length of the time axis",
            got=f"{lengths.ravel()[wrong[0]]} at index {wrong[0]}"
            if len(wrong)
            else f"dtype {lengths.dtype}",
            fix="pass the length of each sequence before padding, or pad to the longest",
        )
