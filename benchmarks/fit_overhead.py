"""What `jdl.fit` costs with its defaults, against a loop in plain JAX without any of them.

Two networks: the CNN of experiments/by_hand.py, where a step takes tens of milliseconds, and an
MLP, where dispatching is most of it. Same network, batch and optimizer everywhere. `fit` has its
guard, log, events and checkpoints. The peers take turns: a drift of the machine affects all.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import optax

import jdl
from benchmarks import workloads
from benchmarks.peers import raw
from benchmarks.peers.jax_loop import step_of
from benchmarks.tables import markdown_table, median_and_range, ratios
from benchmarks.timing import fit_rows, steps_per_second
from experiments import by_hand


class Network(NamedTuple):
    """The same network, written by hand and given to jdl."""

    title: str
    init: Callable[..., Any]
    tx: optax.GradientTransformation
    step: Callable[..., Any]
    """`step(params, moments, x, y) -> (params, moments, loss)`."""
    model: jdl.Model
    work: workloads.Workload


def networks() -> Iterator[Network]:
    """CNN A as experiments/by_hand.py has it, and an MLP with one hidden layer."""
    cnn = jdl.models.CNN(features=(32, 64), hidden=(128,), classes=10)
    work = workloads.WORKLOADS["cnn"]
    hand = by_hand.init, by_hand.TX, by_hand.step
    yield Network("CNN A, batch 128", *hand, jdl.from_linen(cnn), work)
    tx = optax.adam(workloads.LEARNING_RATE)
    mlp, work = jdl.models.MLP((128,), outputs=10), workloads.WORKLOADS["mlp"]
    hand = raw.mlp_init, tx, step_of(raw.mlp_loss, tx)
    yield Network("MLP 784-128-10, batch 32", *hand, jdl.from_linen(mlp), work)


def measure(network: Network, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Steps a second of each peer in each round."""
    peers: dict[str, Callable[[], float]] = {
        "by hand": lambda: hand_speed(network, seconds),
        "jdl, one step a dispatch": lambda: fit_speed(network, seconds, "step"),
        "the same without a run directory": lambda: fit_speed(network, seconds, "step", False),
        "jdl, default": lambda: fit_speed(network, seconds, "auto"),
    }
    names = list(peers)
    speeds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            speeds[name].append(peers[name]())
    return speeds


def hand_speed(network: Network, seconds: float) -> float:
    """Steps a second of the loop written by hand."""
    batches = workloads.batches(network.work)
    params = network.init(jax.random.key(0))
    moments = network.tx.init(params)
    for _ in range(3):
        params, moments, value = network.step(params, moments, *next(batches))
    value.block_until_ready()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        # Only every tenth loss is read back, as a careful user would do.
        for _ in range(10):
            params, moments, value = network.step(params, moments, *next(batches))
            count += 1
        value.block_until_ready()
    return count / (time.perf_counter() - began)


def fit_speed(network: Network, seconds: float, dispatch: str, saved: bool = True) -> float:
    """Steps a second of `fit`; unless `saved`, it writes nothing to disk."""
    learner = jdl.learner(jdl.classification(network.model), network.tx)
    x, y = network.work.data()
    feed = jdl.Feed({"x": x, "y": y}, network.work.batch)
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run" if saved else None
        return steps_per_second(fit_rows(learner, feed, seconds, run_dir, dispatch=dispatch))


def table(title: str, speeds: dict[str, list[float]]) -> str:
    """Each peer's speed, and its ratio to the loop by hand."""
    rows = [
        [name, median_and_range(values), median_and_range(ratios(values, speeds["by hand"]))]
        for name, values in speeds.items()
    ]
    return markdown_table(title, ["", "steps a second", "/ by hand"], rows)
