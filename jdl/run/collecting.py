"""Python's garbage collector, kept out of the way while a run starts."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Collect no cycles within.

    Importing, tracing and lowering make a million objects, nearly all of which stay; the collector
    would go through all of them several times, for a sixth of the time of a start.

    >>> with uncollected():
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
