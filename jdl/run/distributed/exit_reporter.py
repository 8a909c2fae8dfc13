"""A message for a process that ends without running Python again.

Gloo calls `std::terminate` when a message of a collective has another length than it expects, which
happens after a peer has failed; SIGKILL gives no time either. So a shell process waits on a pipe,
which closes when the process ends, and then prints the message.
"""

import os
import subprocess
from collections.abc import Callable
from contextlib import suppress

_WAIT = 'read -r dismissed || printf "%s\\n" "$0" >&2'


def exit_message(index: int) -> str:
    """What the exit reporter prints for process `index`."""
    return (
        f"jdl: process {index} was killed, or aborted inside a collective that another process had "
        "left; the message of that other process gives the reason"
    )


def exit_reporter(index: int) -> Callable[[], None]:
    """Start the exit reporter of this process; call the result to dismiss it.

    Does nothing on a system without /bin/sh.
    """
    if not os.access("/bin/sh", os.X_OK):
        return lambda: None
    shell = subprocess.Popen(["/bin/sh", "-c", _WAIT, exit_message(index)], stdin=subprocess.PIPE)

    def dismiss() -> None:
        if shell.stdin is not None and not shell.stdin.closed:
            with suppress(BrokenPipeError):  # Ctrl-C reached the shell too
                shell.stdin.write(b"\n")
                shell.stdin.close()

    return dismiss
