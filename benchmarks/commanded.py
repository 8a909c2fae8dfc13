"""A process as the command line makes it, for a peer that is no command.

`python -m benchmarks.commanded MODULE [ARGUMENT ...]` runs the `main` of a module in one.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def commanded() -> Iterator[None]:
    """Set up what `jdl train` sets up; what is imported and loaded within is as in a command."""
    from jdl.run import flags
    from jdl.run.collecting import stay, uncollected

    flags.quiet_backend()
    with uncollected():
        flags.set_up()
        yield
        stay()


def main() -> None:
    with commanded():
        module = importlib.import_module(sys.argv[1])
    module.main(sys.argv[2:])


if __name__ == "__main__":
    main()
