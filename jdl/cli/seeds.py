"""`jdl train --run.seeds N`: the summary over several seeds, on screen and on disk."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jdl.core.spread import format_spread, mean_and_deviation
from jdl.run.storage.files import write_results


class Numbers(NamedTuple):
    """The metrics that a run ended with, and the split they are of."""

    split: str
    metrics: Mapping[str, Any]


def summary_lines(results: Mapping[int, Numbers]) -> Iterator[str]:
    """A line for each metric: the mean and the deviation (n - 1) over the seeds.

    Of an ensemble, each seed counts with the mean of its members.

    >>> two = {0: Numbers("test", {"loss": 0.5}), 1: Numbers("test", {"loss": 0.7})}
    >>> print(*summary_lines(two))
    test loss 0.6000 ± 0.1414 (n 2 seeds)
    """
    for name, values in _values_by_name(results).items():
        split = next(iter(results.values())).split
        spread = format_spread(*mean_and_deviation([*values.values()]))
        members = "" if not _has_members(results, name) else ", each the mean of its members"
        count = f"{len(values)} seed{'' if len(values) == 1 else 's'}"
        yield f"{split} {name} {spread} (n {count}{members})"


def write_summary(folder: Path, results: Mapping[int, Numbers], diverged: list[int]) -> None:
    """Write the values of all seeds, with mean and deviation, to `seeds.json`."""
    summary = {}
    for name, values in _values_by_name(results).items():
        mean, deviation = mean_and_deviation([*values.values()])
        summary[name] = {"mean": mean, "std": deviation, "values": values}
    splits = {numbers.split for numbers in results.values()}
    split = next(iter(splits), None)
    write_results(folder / "seeds.json", {"split": split, "metrics": summary, "diverged": diverged})


def _values_by_name(results: Mapping[int, Numbers]) -> dict[str, dict[int, float]]:
    """The value of each seed by metric; metrics that are no numbers are left out."""
    values: dict[str, dict[int, float]] = {}
    for seed, numbers in results.items():
        for name, value in numbers.metrics.items():
            if isinstance(value, float | list) and np.ndim(value) <= 1:
                values.setdefault(name, {})[seed] = mean_and_deviation(np.atleast_1d(value))[0]
    return values


def _has_members(results: Mapping[int, Numbers], name: str) -> bool:
    return any(np.ndim(numbers.metrics.get(name, 0.0)) == 1 for numbers in results.values())
