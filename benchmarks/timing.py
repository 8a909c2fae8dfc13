"""Times of repeated calls, and of the steps of `jdl.fit`."""

import contextlib
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

import jdl


def median_seconds(call: Callable[[], Any], seconds: float) -> float:
    """The median time of a call, repeated for some seconds and at least three times."""
    jax.block_until_ready(call())
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        began = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def fit_rows(
    learner: jdl.Learner,
    feed: jdl.Feed,
    seconds: float,
    run_dir: Path | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Train by `jdl.fit` and return the rows of its log that span these seconds.

    The first second is a warm-up: the first checkpoint is saved in it.
    """
    rows: list[dict[str, Any]] = []

    class TimeIsOver(Exception):
        """Ends the run."""

    def note(row: dict[str, Any]) -> None:
        if row["seconds"] > 1:
            rows.append(row)
        if len(rows) > 3 and rows[-1]["seconds"] - rows[0]["seconds"] >= seconds:
            raise TimeIsOver

    with contextlib.suppress(TimeIsOver):
        jdl.fit(
            learner,
            feed,
            epochs=10**6,
            run_dir=run_dir,
            log=note,
            options=jdl.Options(bar=False, **options),
        )
    return rows


def steps_per_second(rows: Sequence[dict[str, Any]]) -> float:
    """The speed between the first and the last row."""
    first, last = rows[0], rows[-1]
    return (last["step"] - first["step"]) / (last["seconds"] - first["seconds"])
