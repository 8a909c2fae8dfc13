"""Whether a step is traced for a program of its own, for those who choose their form by it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_ALONE = ContextVar("alone", default=False)


@contextmanager
def alone() -> Iterator[None]:
    """What is traced within is one program, and no part of a loop.

    >>> with alone():
    ...     print(is_alone())
    True
    >>> is_alone()
    False
    """
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def is_alone() -> bool:
    """Whether `alone` has been promised; else a loop around what is traced must be expected."""
    return _ALONE.get()
