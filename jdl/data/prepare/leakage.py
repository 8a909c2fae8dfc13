"""Checks for leaks between the splits, each with a report.

Pass the splits by name, the training split first: `{"train": data.train, "valid": data.valid,
"test": data.test()}`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jdl.core.errors import error
from jdl.data.prepare.clean import fingerprints
from jdl.data.prepare.scale import Scaler, Statistics
from jdl.data.records import Report


def duplicates(parts: Mapping[str, Mapping[str, Any]], entry: str = "x") -> Report:
    """Find examples of a later split whose `entry` (n, ...) is identical in an earlier split.

    Raises `InputError` for fewer than two splits.

    >>> x = np.arange(4.0)[:, None]
    >>> report = duplicates({"train": {"x": x}, "test": {"x": x[3:]}})
    >>> print(report)
    duplicates across train, test
      test examples that are in train: 1 (rows 0)
    """
    hashes = {
        name: [f.tobytes() for f in fingerprints({entry: np.asarray(part[entry])})]
        for name, part in parts.items()
    }
    return _shared("duplicates", hashes, "examples")


def groups(parts: Mapping[str, Any]) -> Report:
    """Find examples of a later split whose group (a patient, a speaker) is in an earlier split.

    `parts` holds the group names (n,) of each split. Raises `InputError` for fewer than two splits.

    >>> print(groups({"train": ["ann", "bob"], "test": ["bob", "eve"]}))
    groups across train, test
      test examples of groups that are in train: 1 (rows 0)
    """
    groups = {name: list(np.asarray(part).tolist()) for name, part in parts.items()}
    return _shared("groups", groups, "examples of groups")


def scaler(
    scaler: Scaler, statistics: Statistics, parts: Mapping[str, Any], tolerance: float = 1e-5
) -> Report:
    """Report whether a scaler was fitted on the training split alone, or on all splits.

    `parts` holds the unscaled inputs (n, ..., features) of each split. The report's `counts` are 1
    or 0; if both are 0, the scaler was fitted on something else. Raises `InputError` for fewer than
    two splits.

    >>> from jdl.data.prepare.scale import standardise
    >>> parts = {"train": np.zeros((2, 1)), "test": np.ones((2, 1))}
    >>> statistics = standardise.fit(np.concatenate([*parts.values()]))
    >>> print(scaler(standardise, statistics, parts))
    statistics of a scaler
      fitted on the training part: 0
      fitted on all parts: 1
    """
    _check_several(parts)
    values = [np.asarray(part) for part in parts.values()]

    def fits(x: np.ndarray) -> int:
        fitted = scaler.fit(x)
        return int(
            fitted.keys() == statistics.keys()
            and all(
                np.shape(fitted[name]) == np.shape(statistics[name])
                and np.allclose(fitted[name], statistics[name], tolerance, tolerance)
                for name in fitted
            )
        )

    counts = {
        "fitted on the training part": fits(values[0]),
        "fitted on all parts": fits(np.concatenate(values)),
    }
    return Report("statistics of a scaler", {}, counts)


def refuse(report: Report) -> None:
    """Raise `InputError` with the report's text if it shows a leak.

    >>> refuse(groups({"train": ["ann"], "test": ["eve"]}))
    >>> refuse(groups({"train": ["ann"], "test": ["ann"]}))
    Traceback (most recent call last):
    jdl.core.errors.InputError: a leak between the splits
      expected: no example, group or statistic shared with the training split
      got:      groups across train, test;  test examples of groups that are in train: 1 (rows 0)
      fix:      drop copies before you split, split by groups, and fit scalers on the training split
    """
    fitted_on_train = report.counts.get("fitted on the training part", 1)
    if any(report.rows.values()) or not fitted_on_train:
        raise error(
            "a leak between the splits",
            expected="no example, group or statistic shared with the training split",
            got=str(report).replace("\n", ";"),
            fix="drop copies before you split, split by groups, and fit scalers on the "
            "training split",
        )


def _shared(title: str, parts: Mapping[str, list[Any]], what: str) -> Report:
    _check_several(parts)
    names, shared = list(parts), {}
    for place, later in enumerate(names):
        for earlier in names[:place]:
            known = set(parts[earlier])
            rows = tuple(row for row, value in enumerate(parts[later]) if value in known)
            shared[f"{later} {what} that are in {earlier}"] = rows
    return Report(f"{title} across {', '.join(parts)}", shared)


def _check_several(parts: Mapping[str, Any]) -> None:
    if len(parts) < 2:
        raise error(
            "parts",
            expected="two or more splits by name, the training split first",
            got=", ".join(parts) or "none",
            fix='pass {"train": ..., "test": ...}',
        )
