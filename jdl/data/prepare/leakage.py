"""Checks for leaks between the splits, each with a report.

Pass the splits by name, the training split first: `{"train": data.train, "valid": data.valid,
"test": data.test()}`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jdl.core.errors import error
from jdl.data.prepare.clean import as_array, comparable, fingerprints
from jdl.data.prepare.scale import Scaler, Statistics
from jdl.data.records import Report


def duplicates(parts: Mapping[str, Mapping[str, Any]], entry: str = "x") -> Report:
    """Find examples of a later split whose `entry` (n, ...) is equal in an earlier split.

    Text may have another width there. Numbers are compared in the narrowest floating-point type
    that a split has, so a copy in float32 equals its original in float64. Raises `InputError` for
    fewer than two splits, and for arrays of Python objects.

    >>> x = np.arange(4.0)[:, None]
    >>> report = duplicates({"train": {"x": x}, "test": {"x": x[3:]}})
    >>> print(report)
    duplicates across train, test
      test examples that are in train: 1 (rows 0)
    """
    arrays = comparable([as_array(part[entry], entry) for part in parts.values()])
    hashes = [[f.tobytes() for f in fingerprints({entry: array})] for array in arrays]
    return _shared("duplicates", dict(zip(parts, hashes, strict=True)), "examples")


def groups(parts: Mapping[str, Any]) -> Report:
    """Find examples of a later split whose group (a patient, a speaker) is in an earlier split.

    `parts` holds the group names (n,) of each split. Raises `InputError` for fewer than two splits.

    >>> print(groups({"train": ["ann", "bob"], "test": ["bob", "eve"]}))
    groups across train, test
      test examples of groups that are in train: 1 (rows 0)
    """
    names = [part.tolist() for part in comparable([np.asarray(p) for p in parts.values()])]
    return _shared("groups", dict(zip(parts, names, strict=True)), "examples of groups")


def scaler(
    scaler: Scaler, statistics: Statistics, parts: Mapping[str, Any], tolerance: float = 1e-5
) -> Report:
    """Report whether a scaler was fitted on the training split alone, or on all splits.

    `parts` holds the unscaled inputs (n, ..., features) of each split. The report's `counts` are 1
    or 0; if both are 0, the scaler was fitted on something else. Statistics may differ by rounding,
    and by `tolerance` times the spread of a feature. Raises `InputError` for fewer than two splits.

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
            and all(_is_close(fitted[k], statistics[k], x, tolerance) for k in fitted)
        )

    counts = {
        "fitted on the training part": fits(values[0]),
        "fitted on all parts": fits(np.concatenate(values)),
    }
    return Report("statistics of a scaler", {}, counts)


def _is_close(one: Any, other: Any, x: np.ndarray, tolerance: float) -> bool:
    """Whether two statistics of x differ by at most `tolerance` of its spread, and rounding."""
    kinds = [np.asarray(value).dtype for value in (one, other)]
    rounding = max((np.finfo(kind).eps for kind in kinds if kind.kind == "f"), default=0.0)
    one, other = (np.asarray(value, np.float64) for value in (one, other))
    if one.shape != other.shape:
        return False
    if one.shape == x.shape[-1:]:  # one per feature, in its units
        rows = x.reshape(-1, x.shape[-1]).astype(np.float64)
        limit = tolerance * np.ptp(rows, axis=0) + 8 * rounding * np.abs(rows).max(0)
    else:
        limit = tolerance * np.abs(one)
    return bool((np.abs(one - other) <= limit).all())


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
