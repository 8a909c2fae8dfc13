"""A process set up as `jdl train` sets up its own, for a peer that is no command.

This is the one place in the benchmarks that knows how the command line does it.
"""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def command_process() -> Iterator[None]:
    """Set the process up; import jdl and load the data within."""
    from jdl.cli import process
    from jdl.run.execution.gc_pause import freeze_gc, gc_paused

    process.quiet_backend()
    with gc_paused():
        process.configure_process()
        yield
        freeze_gc()
