"""What the training part must not know of the others: three checks, each with a report.

Parts are given by name, the training part first:
`{"train": data.train, "valid": data.valid, "test": data.test()}`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jdl.core.errors import error
from jdl.data.prepare.clean import fingerprints
from jdl.data.prepare.scale import Scaler, Statistics
from jdl.data.records import Report


def find_duplicates(parts: Mapping[str, Mapping[str, Any]], entry: str = "x") -> Report:
    """Examples of a later part whose `entry` is, bit for bit, in an earlier part too.

    >>> x = np.arange(4.0)[:, None]
    >>> report = find_duplicates({"train": {"x": x}, "test": {"x": x[3:]}})
    >>> print(report)
    duplicates across train, test
      test examples that are in train: 1 (rows 0)
    """
    printed = {
        name: [f.tobytes() for f in fingerprints({entry: np.asarray(part[entry])})]
        for name, part in parts.items()
    }
    return _shared("duplicates", printed, "examples")


def find_shared_groups(parts: Mapping[str, Any]) -> Report:
    """Examples of a later part whose group (a patient, a speaker) is in an earlier part too.

    `parts` holds the groups' names [n] of each part.

    >>> print(find_shared_groups({"train": ["ann", "bob"], "test": ["bob", "eve"]}))
    groups across train, test
      test examples of groups that are in train: 1 (rows 0)
    """
    named = {name: list(np.asarray(part).tolist()) for name, part in parts.items()}
    return _shared("groups", named, "examples of groups")


def check_scaler(
    scaler: Scaler, statistics: Statistics, parts: Mapping[str, Any], tolerance: float = 1e-5
) -> Report:
    """Whether a scaler's statistics are those of the training part, or of all parts together.

    `parts` holds the unscaled inputs of each part. The report's `counts` are 1 or 0 under "fitted
    on the training part" and "fitted on all parts"; both 0 means on something else.

    >>> from jdl.data.prepare.scale import standard_scaler
    >>> parts = {"train": np.zeros((2, 1)), "test": np.ones((2, 1))}
    >>> statistics = standard_scaler.fit(np.concatenate([*parts.values()]))
    >>> print(check_scaler(standard_scaler, statistics, parts))
    statistics of a scaler
      fitted on the training part: 0
      fitted on all parts: 1
    """
    _several(parts)
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


def raise_if_leaking(report: Report) -> None:
    """Raises `InputError` with the report's text if it tells of a leak.

    >>> raise_if_leaking(find_shared_groups({"train": ["ann"], "test": ["eve"]}))
    """
    trained = report.counts.get("fitted on the training part", 1)
    if any(report.rows.values()) or not trained:
        raise error(
            "a leak between the parts",
            expected="a test part that the training part knows nothing of",
            got=str(report).replace("\n", ";"),
            fix="drop the copies before splitting, split by groups, and fit scalers on the "
            "training part alone",
        )


def _shared(title: str, parts: Mapping[str, list[Any]], what: str) -> Report:
    _several(parts)
    names, found = list(parts), {}
    for place, later in enumerate(names):
        for earlier in names[:place]:
            known = set(parts[earlier])
            rows = tuple(row for row, value in enumerate(parts[later]) if value in known)
            found[f"{later} {what} that are in {earlier}"] = rows
    return Report(f"{title} across {', '.join(parts)}", found)


def _several(parts: Mapping[str, Any]) -> None:
    if len(parts) < 2:
        raise error(
            "parts",
            expected="two parts or more, by name, the training part first",
            got=", ".join(parts) or "none",
            fix='give {"train": ..., "test": ...}',
        )
