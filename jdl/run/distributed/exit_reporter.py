"""Somebody to say that a process has ended, where it could not say so itself.

Gloo ends a process by `std::terminate` when a message of a collective has another length than it
expects, which happens where a peer has just failed; a kill gives no time either. No Python runs
then. A shell that waits at a pipe sees it close, and says what became of the process.
"""

import os
import subprocess
from collections.abc import Callable
from contextlib import suppress

_WAIT = 'read -r dismissed || printf "%s\\n" "$0" >&2'


def exit_message(index: int) -> str:
    """What a witness says of process `index`."""
    return (
        f"jdl: process {index} was ended from below Python, by a kill or inside a collective that "
        "another process has left; what that one says is the reason"
    )


def exit_reporter(index: int) -> Callable[[], None]:
    """Start one for this process, which is number `index`; call the result to dismiss it.

    Where there is no shell there is no witness.
    """
    if not os.access("/bin/sh", os.X_OK):
        return lambda: None
    shell = subprocess.Popen(["/bin/sh", "-c", _WAIT, exit_message(index)], stdin=subprocess.PIPE)

    def dismiss() -> None:
        if shell.stdin is not None and not shell.stdin.closed:
            with suppress(BrokenPipeError):  # it was interrupted, with all of its group
                shell.stdin.write(b"\n")
                shell.stdin.close()

    return dismiss
