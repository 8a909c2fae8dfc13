"""Pausing Python's garbage collector while a run starts."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

FREEZE_UP_TO_OBJECTS = 10_000
"""Frozen objects below which `freeze_gc` has not been called: Python 3.12 starts with hundreds, and
a command freezes 10^5."""


@contextmanager
def gc_paused() -> Iterator[None]:
    """Turn off garbage collection in the block.

    Importing, tracing and lowering create a million objects that stay. Scanning them several times
    would take a sixth of the start-up time.

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
    """Exclude all objects that exist now from garbage collection; the first call counts.

    For a program's main, after its imports: these objects stay, and scanning them twice more would
    take a twentieth of the start-up time.
    """
    if gc.get_freeze_count() < FREEZE_UP_TO_OBJECTS:
        gc.freeze()
