"""Standard output belongs to a command's answer, so that `--json` and `> out.csv` hold it alone."""

import contextlib
import sys
from collections.abc import Iterator
from typing import TextIO


@contextlib.contextmanager
def answer_on_stdout() -> Iterator[TextIO]:
    """Yield standard output; what an experiment prints meanwhile goes to standard error.

    >>> with answer_on_stdout() as answer:
    ...     print("loading the data")
    ...     print("[1, 2]", file=answer)
    [1, 2]
    """
    answer = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        yield answer
