"""What jdl's loop costs: `jdl.fit`, all logging on, against the loop of experiments/by_hand.py.

Same network (CNN A), same batch (128), Adam, float32; one step for each dispatch on both sides, the
measuring of dispatch forms left out. Rounds alternate, so that a drift of the machine meets both.
"""

import contextlib
import importlib.metadata
import importlib.util
import itertools
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
import optax

import jdl

BATCH = 128


def main(rounds: int, seconds: float) -> None:
    """Print the table: median steps per second, and the ratio round by round."""
    by_hand = _by_hand()
    images, labels = by_hand.load(None)[0]
    peers: dict[str, Callable[[], float]] = {
        "by hand": lambda: by_hand_speed(by_hand, images, labels, seconds),
        "jdl, same form": lambda: jdl_speed(images, labels, seconds, "step"),
        "jdl, not logging": lambda: jdl_speed(images, labels, seconds, "step", logging=False),
        "jdl, form measured": lambda: jdl_speed(images, labels, seconds, "auto"),
    }
    speeds: dict[str, list[float]] = {name: [] for name in peers}
    names = itertools.cycle(peers)
    for _ in range(rounds):
        for name in itertools.islice(names, len(peers)):
            speeds[name].append(peers[name]())
        next(names)  # the next round begins with another peer
    device = jax.devices()[0].device_kind
    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("jax", "flax", "optax"))
    print(f"CNN A, batch {BATCH}, Adam, float32; {rounds} interleaved rounds of {seconds:g} s")
    print(f"{device}, {os.cpu_count()} cores, {platform.machine()}, {versions}")
    heads = (
        f"{'steps/s, median':>18}{'min':>8}{'max':>8}{'ratio to by hand':>19}{'min':>7}{'max':>7}"
    )
    print(f"{'':22}{heads}")
    for name, values in speeds.items():
        ratios = [a / b for a, b in zip(values, speeds["by hand"], strict=True)]
        print(
            f"{name:22}{statistics.median(values):18.2f}{min(values):8.2f}{max(values):8.2f}"
            f"{statistics.median(ratios):19.3f}{min(ratios):7.3f}{max(ratios):7.3f}"
        )


def by_hand_speed(
    by_hand: ModuleType, images: np.ndarray, labels: np.ndarray, seconds: float
) -> float:
    """Steps per second of the loop written by hand."""
    params = by_hand.init(jax.random.key(0))
    moments = by_hand.TX.init(params)
    batches = _batches(images, labels)
    for _ in range(3):
        params, moments, value = by_hand.step(params, moments, *next(batches))
    value.block_until_ready()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        # As many steps ahead as jdl keeps in flight.
        for _ in range(2):
            params, moments, value = by_hand.step(params, moments, *next(batches))
            count += 1
        value.block_until_ready()
    return count / (time.perf_counter() - began)


def jdl_speed(
    images: np.ndarray, labels: np.ndarray, seconds: float, dispatch: str, logging: bool = True
) -> float:
    """Steps per second of `fit` between the first and the last row of its log.

    Without `logging` there is no folder, so no events, no file and no checkpoint, and a row only
    every hundred steps, by which to tell the time.
    """
    model = jdl.from_linen(jdl.models.CNN(features=(32, 64), hidden=(128,), classes=10))
    learner = jdl.learner(jdl.classification(model), optax.adam(2e-3))
    rows: list[tuple[int, float]] = []

    class Enough(Exception):
        """The round is over."""

    def note(row: dict[str, float]) -> None:
        rows.append((int(row["step"]), row["seconds"]))
        if rows[-1][1] - rows[0][1] >= seconds:
            raise Enough

    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Enough):
        jdl.fit(
            learner,
            {"x": images, "y": labels},
            batch_size=BATCH,
            epochs=10**6,
            dir=Path(folder) / "run" if logging else None,
            log=note,
            options=jdl.Options(log_every=20 if logging else 100, dispatch=dispatch, bar=False),
        )
    (first, began), (last, ended) = rows[0], rows[-1]
    return (last - first) / (ended - began)


def _batches(images: np.ndarray, labels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    draw = np.random.default_rng(0)
    while True:
        order = draw.permutation(len(images))
        for start in range(0, len(images) - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            yield images[rows], labels[rows]


def _by_hand() -> ModuleType:
    path = Path(__file__).parents[1] / "experiments" / "by_hand.py"
    spec = importlib.util.spec_from_file_location("by_hand", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
