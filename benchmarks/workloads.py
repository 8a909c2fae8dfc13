"""The networks and data of the benchmarks, the same for every peer.

Each workload is slow for another reason: arithmetic (CNN, GPT), recurrence (LSTM), dispatch (MLP).
Labels follow the data, so that a peer that computes something else shows it in its loss.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

LEARNING_RATE = 1e-3
"""Of Adam, in every workload but the many models, which each have their own."""


class Workload(NamedTuple):
    """Data and sizes; `x` and `y` are made by `data`."""

    title: str
    batch: int
    data: Callable[[], tuple[np.ndarray, np.ndarray]]


def batches(work: Workload) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Full batches without end, one shuffled pass after another, for peers without a feed."""
    x, y = work.data()
    draw = np.random.default_rng(0)
    while True:
        order = draw.permutation(len(x))
        for start in range(0, len(x) - work.batch + 1, work.batch):
            rows = order[start : start + work.batch]
            yield x[rows], y[rows]


def images() -> tuple[np.ndarray, np.ndarray]:
    """12,800 grey images of 28 x 28, with the class of a random linear teacher."""
    draw = np.random.default_rng(0)
    x = draw.random((12_800, 28, 28, 1), np.float32)
    return x, _teacher(draw, x.reshape(len(x), -1))


def flat() -> tuple[np.ndarray, np.ndarray]:
    """The same as vectors of 784."""
    x, y = images()
    return x.reshape(len(x), 784), y


def series() -> tuple[np.ndarray, np.ndarray]:
    """3,200 sequences of 64 steps with 32 values each; the class is that of their mean."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(3_200, 64, 32)).astype(np.float32)
    return x, _teacher(draw, x.mean(1))


def text() -> tuple[np.ndarray, np.ndarray]:
    """1,600 windows of 129 characters out of 65; after each one, four others may follow."""
    draw = np.random.default_rng(0)
    after = draw.integers(0, 65, (65, 4))
    tokens = np.zeros((1_600, 129), np.int32)
    tokens[:, 0] = draw.integers(0, 65, len(tokens))
    for place in range(1, tokens.shape[1]):
        tokens[:, place] = after[tokens[:, place - 1], draw.integers(0, 4, len(tokens))]
    return tokens, tokens[:, 0]


def digits() -> tuple[np.ndarray, np.ndarray]:
    """1,797 vectors of 64, the size of scikit-learn's digits."""
    draw = np.random.default_rng(0)
    x = draw.random((1_797, 64), np.float32)
    return x, _teacher(draw, x)


def _teacher(draw: np.random.Generator, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(0)
    return (centred @ draw.normal(size=(x.shape[1], 10))).argmax(1).astype(np.int32)


WORKLOADS = {
    "cnn": Workload("CNN: conv 32, pool, conv 64, pool, 128, 10; SAME", 128, images),
    "lstm": Workload("two LSTM(128), 64 steps of 32 values", 64, series),
    "mlp": Workload("MLP 784-128-10", 32, flat),
    "gpt": Workload("GPT: 4 blocks, 4 heads, 128 wide, context 128", 16, text),
}
"""Timed in steps a second."""

MODELS, MODEL_STEPS, MODEL_BATCH = 32, 500, 64
"""Of `python -m benchmarks many`: MLPs 64-32-10, each with its own seed and learning rate."""

RATES = np.geomspace(1e-4, 1e-2, MODELS)
