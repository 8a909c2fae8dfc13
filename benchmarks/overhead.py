"""What jdl's loop costs: `jdl.fit` with its default logging, against two loops without any.

One loop is written by hand, in plain JAX; the other calls the very programs that `fit` compiles.
Three networks: the CNN of experiments/by_hand.py and a GPT, where a step takes tens of milliseconds
or more, and an MLP, where dispatching is most of it. Same network, batch and optimizer everywhere;
measuring the dispatch forms is left out. Rounds alternate, so that a drift of the machine meets
all. Each network has two processes: one that the command line has set up, and one of a script.

`python -m benchmarks.overhead NETWORK ROUNDS SECONDS` prints the table of one.
"""

import contextlib
import importlib.util
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import jdl
from benchmarks import workloads
from benchmarks.peers import raw
from benchmarks.peers.jax_loop import step_of
from benchmarks.race import spread
from benchmarks.stepping import stepping


class ByHand(NamedTuple):
    """Training in plain JAX: `init(key) -> params`, `step(params, moments, x, y) -> (.., loss)`."""

    init: Callable[..., Any]
    tx: optax.GradientTransformation
    step: Callable[..., Any]


class Workload(NamedTuple):
    """The same network, written by hand and given to jdl."""

    by_hand: ByHand
    task: jdl.Task
    data: dict[str, np.ndarray]
    """`x`, and `y` where the loss has a use for it."""
    batch: int


LOG_EVERY = jdl.Options().log_every

WAYS = {
    "in a process that the command line has set up": (
        "benchmarks.commanded",
        "benchmarks.overhead",
    ),
    "in a script": ("benchmarks.overhead",),
}


def tables(rounds: int, seconds: float) -> Iterator[str]:
    """The table of each network, in each kind of process."""
    for network in NETWORKS:
        for way, (module, *rest) in WAYS.items():
            done = subprocess.run(
                [sys.executable, "-m", module, *rest, network, str(rounds), str(seconds)],
                cwd=Path(__file__).parents[1],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                check=True,
            )
            title = f"{network}, {way}; {rounds} interleaved rounds of {seconds:g} s"
            yield f"**{title}**\n\n{done.stdout.strip()}"


def main(arguments: Sequence[str]) -> None:
    network, rounds, seconds = arguments
    print(table(measured(NETWORKS[network](), int(rounds), float(seconds))))


def cnn() -> Workload:
    """CNN A, as experiments/by_hand.py has it."""
    path = Path(__file__).parents[1] / "experiments" / "by_hand.py"
    spec = importlib.util.spec_from_file_location("by_hand", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (x, y), _ = module.load(None)
    model = jdl.from_linen(jdl.models.CNN(features=(32, 64), hidden=(128,), classes=10))
    hand = ByHand(module.init, module.TX, module.step)
    return Workload(
        hand,
        jdl.classification(model),
        {"x": x, "y": y},
        batch=128,
    )


def mlp() -> Workload:
    """One hidden layer, 784-128-10: a step of a fraction of a millisecond."""
    tx = optax.adam(1e-3)

    x, y = workloads.flat()
    hand = ByHand(raw.mlp_init, tx, step_of(raw.mlp_loss, tx))
    model = jdl.from_linen(jdl.models.MLP((128,), outputs=10))
    return Workload(hand, jdl.classification(model), {"x": x, "y": y}, batch=32)


def gpt() -> Workload:
    """Four blocks, 128 wide, context 128."""
    tx = optax.adam(1e-3)
    x, _ = workloads.text()
    hand = ByHand(raw.gpt_init, tx, step_of(raw.gpt_loss, tx))
    network = jdl.models.Decoder(65, 128, blocks=4, heads=4, width=128)
    task = jdl.tasks.language_model(jdl.from_linen(network))
    return Workload(hand, task, {"x": x}, batch=16)


NETWORKS = {
    "CNN A, batch 128": cnn,
    "MLP 784-128-10, batch 32": mlp,
    "GPT, 4 blocks of 128, batch 16": gpt,
}


def measured(work: Workload, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Steps per second of each peer in each round."""
    step, auto = (
        stepping(_learner(work), work.data, work.batch, form) for form in ("step", "auto")
    )
    peers: dict[str, Callable[[], float]] = {
        "by hand": lambda: by_hand_speed(work, seconds),
        "jdl's step, bare": lambda: bare_speed(work, seconds, step),
        "jdl, one step a dispatch": lambda: jdl_speed(work, seconds, "step"),
        "jdl, no folder": lambda: jdl_speed(work, seconds, "step", saved=False),
        "jdl's measured form, bare": lambda: bare_speed(work, seconds, auto),
        "jdl, form measured": lambda: jdl_speed(work, seconds, "auto"),
    }
    speeds: dict[str, list[float]] = {name: [] for name in peers}
    names = itertools.cycle(peers)
    for _ in range(rounds):
        for name in itertools.islice(names, len(peers)):
            speeds[name].append(peers[name]())
        next(names)  # the next round begins with another peer
    return speeds


def by_hand_speed(work: Workload, seconds: float) -> float:
    """Steps per second of the loop written by hand."""
    init, tx, step = work.by_hand
    params = init(jax.random.key(0))
    moments, batches = tx.init(params), _batches(work)
    for _ in range(3):
        params, moments, value = step(params, moments, *next(batches))
    value.block_until_ready()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        # Nothing is read back but every tenth loss, which a careful user would do too.
        for _ in range(10):
            params, moments, value = step(params, moments, *next(batches))
            count += 1
        value.block_until_ready()
    return count / (time.perf_counter() - began)


def bare_speed(work: Workload, seconds: float, run: Callable[[int], None]) -> float:
    """Steps per second of the programs that `fit` runs, called and nothing else."""
    run(LOG_EVERY)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        run(LOG_EVERY)
        count += LOG_EVERY
    return count / (time.perf_counter() - began)


def _learner(work: Workload) -> jdl.Learner:
    return jdl.learner(work.task, work.by_hand.tx)


def jdl_speed(work: Workload, seconds: float, dispatch: str, saved: bool = True) -> float:
    """Steps per second of `fit` between two rows of its log; unless `saved`, without a folder."""
    rows: list[tuple[int, float]] = []

    class Enough(Exception):
        """The round is over."""

    def note(row: dict[str, float]) -> None:
        # The first second is a warm-up, as the first checkpoint is saved then.
        if row["seconds"] > 1:
            rows.append((int(row["step"]), row["seconds"]))
        if rows and rows[-1][1] - rows[0][1] >= seconds:
            raise Enough

    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Enough):
        jdl.fit(
            _learner(work),
            work.data,
            batch_size=work.batch,
            epochs=10**6,
            run_dir=Path(folder) / "run" if saved else None,
            log=note,
            options=jdl.Options(dispatch=dispatch, bar=False),
        )
    (first, began), (last, ended) = rows[0], rows[-1]
    return (last - first) / (ended - began)


def _batches(work: Workload) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    draw = np.random.default_rng(0)
    x, y = work.data["x"], work.data.get("y", work.data["x"])
    while True:
        order = draw.permutation(len(x))
        for start in range(0, len(x) - work.batch + 1, work.batch):
            rows = order[start : start + work.batch]
            yield x[rows], y[rows]


BARE = {
    "jdl, one step a dispatch": "jdl's step, bare",
    "jdl, no folder": "jdl's step, bare",
    "jdl, form measured": "jdl's measured form, bare",
}


def table(speeds: dict[str, list[float]]) -> str:
    """A Markdown table: each peer beside the loop by hand, and beside its own programs."""
    lines = ["| | steps a second | / by hand | / bare |", "|---" * 4 + "|"]
    for name, values in speeds.items():
        cells = [name, spread(values)]
        for other in ("by hand", BARE.get(name)):
            ratios = [a / b for a, b in zip(values, speeds[other], strict=True)] if other else []
            cells.append(spread(ratios) if ratios else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
