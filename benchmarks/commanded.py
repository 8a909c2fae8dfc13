"""A process as the command line makes it, for a peer that is no command."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def commanded() -> Iterator[None]:
    """Set up what `jdl train` sets up; what is imported and loaded within is as in a command."""
    from jdl.run import flags
    from jdl.run.collecting import uncollected

    flags.quiet_backend()
    with uncollected():
        flags.set_up()
        yield
