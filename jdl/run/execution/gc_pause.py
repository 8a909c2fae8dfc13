"""Python's garbage collector, kept out of the way while a run starts."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

FREEZE_UP_TO_OBJECTS = 10_000
"""Objects that the collector passes over: Python 3.12 begins with hundreds, a command has 10^5."""


@contextmanager
def gc_paused() -> Iterator[None]:
    """Collect no cycles within.

    Importing, tracing and lowering make a million objects, nearly all of which stay; the collector
    would go through all of them several times, for a sixth of the time of a start.

    >>> with gc_paused():
    ...     print(gc.isenabled())
    False
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def freeze_gc() -> None:
    """Let the collector pass over what exists by now, from the first call on in a process.

    For a program's own main, once it has imported and loaded what it needs: nearly all of that
    stays, and the collector's next two rounds would else go through it, for a twentieth of a start.
    """
    if gc.get_freeze_count() < FREEZE_UP_TO_OBJECTS:
        gc.freeze()
