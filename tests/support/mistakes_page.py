"""What the tests of docs/mistakes.md share: its figures are those that were measured."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TEXT = Path(__file__).resolve().parents[2] / "docs" / "mistakes.md"
POINTS = ([[1, 2], [2, 3], [3, 4], [4, 5]], [[1], [2], [3], [4]])
"""The regression of the scope: its second input is the first plus one."""


def entries() -> dict[int, str]:
    """The entries of the page by their number, each on one line."""
    parts = re.split(r"^## (\d+)\. ", TEXT.read_text(), flags=re.M)
    pairs = zip(parts[1::2], parts[2::2], strict=True)
    return {int(number): " ".join(text.split()) for number, text in pairs}


def page_states(number: int, *figures: str) -> None:
    """The entry of that number gives each of the figures."""
    for figure in figures:
        assert figure in entries()[number], f"entry {number} does not say {figure!r}"


def rejects(check: Callable[..., None], *wrong: Any) -> None:
    """`check` fails on each wrong form: it would catch it."""
    for form in wrong:
        with pytest.raises(AssertionError):
            check(form)
