"""What the tables of this folder share: how many faults of each kind there are, and what holds."""

from collections.abc import Callable, Container, Iterable
from typing import Any

import pytest

COUNTS = {
    "kill -9": 24,
    "damaged checkpoints": 90,
    "wrong targets": 16,
    "exact resumes": 12,
    "controls that differ": 5,
    "full disks": 8,
    "bad batches": 40,
    "bad configurations": 60,
    "hostile files": 40,
    "hostile run folders": 8,
}
"""So many cases has each table; `test_counts.py` compares them, so that none is lost unseen."""

INSIDES = ("Traceback", "jax._src", "XlaRuntimeError", "ConcretizationTypeError", "tensorstore")


def rows(table: Iterable[str], fast: Container[str] = ()) -> list[Any]:
    """The names in a table, to be tested one by one; all that are not in `fast` are slow."""
    return [
        pytest.param(name, id=name, marks=() if name in fast else pytest.mark.slow)
        for name in table
    ]


def refused(call: Callable[[], Any], fragments: Iterable[str] = ()) -> str:
    """The message of the one InputError that the call raises, which holds all the fragments."""
    from jdl.core.errors import InputError

    with pytest.raises(InputError) as info:
        call()
    text = str(info.value)
    check_message(text, fragments)
    return text


def check_message(text: str, fragments: Iterable[str] = ()) -> None:
    """It is one message in jdl's form, without the insides of other packages."""
    assert text.count("\n  expected: ") == text.count("\n  got:      ") == 1, text
    assert text.count("\n  fix:      ") == 1, text
    for inside in INSIDES:
        assert inside not in text, text
    for fragment in fragments:
        assert fragment in text, f"{fragment!r} not in {text}"
