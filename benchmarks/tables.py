"""Ratios within rounds, and Markdown tables."""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
"""Of the checkout: the processes of the benchmarks start there."""


def ratios(values: Sequence[float], to: Sequence[float]) -> list[float]:
    """The ratio of two peers in each round."""
    return [a / b for a, b in zip(values, to, strict=True)]


def median_ratio(values: Sequence[float], to: Sequence[float]) -> float:
    """The median over the rounds of the ratio of two peers."""
    return statistics.median(ratios(values, to))


def median_and_range(values: Sequence[float]) -> str:
    """Such as `111 (107–113)`."""
    return f"{statistics.median(values):.3g} ({min(values):.3g}–{max(values):.3g})"


def markdown_table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table under its title."""
    lines = [f"**{title}**", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
