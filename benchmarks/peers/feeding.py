"""Batches for the peers that have no feed of their own: a shuffled pass after another."""

import itertools
from collections.abc import Iterator

import numpy as np

from benchmarks.workloads import Workload


def batches(work: Workload) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Full batches without end."""
    x, y = work.data()
    draw = np.random.default_rng(0)
    for _ in itertools.count():
        order = draw.permutation(len(x))
        for start in range(0, len(x) - work.batch + 1, work.batch):
            rows = order[start : start + work.batch]
            yield x[rows], y[rows]
