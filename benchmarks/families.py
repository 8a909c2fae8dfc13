"""One network of each family: a run of jdl against the same network and loss in a bare loop.

The bare loop is one jitted step of the loss' gradient and optax, with batches gathered on the host,
and Flax's own convolutions. A run has its guard, its log's sums and its measured form of dispatch.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import jax
import numpy as np
import optax

import jdl
from benchmarks import workloads
from benchmarks.race import spread
from benchmarks.stepping import stepping
from jdl.data import listops
from jdl.data.sequences import autoregressive
from jdl.models import convolution

TX = optax.adam(1e-3)


class Family(NamedTuple):
    """A task, its data and the size of a batch."""

    name: str
    task: jdl.Task
    data: dict[str, Any]
    batch: int


def families() -> Iterator[Family]:
    """The families, one after the other."""
    models, tasks, linen = jdl.models, jdl.tasks, jdl.from_linen
    x, y = (part[:2_048] for part in workloads.images())
    images, pixels = {"x": x, "y": y}, {"x": x}
    draw = np.random.default_rng(0)
    small = {"x": x[:, :8, :8], "y": y}
    colour = {"x": draw.random((512, 32, 32, 3), np.float32), "y": y[:512]}
    yield Family("MLP 784-256-10", jdl.classification(linen(models.MLP((256,), 10))),
                 {"x": x.reshape(len(x), -1), "y": y}, 128)  # fmt: skip
    yield Family("CNN A", jdl.classification(linen(models.CNN())), images, 128)
    resnet = models.ResNet((3, 3, 3), 16, classes=10, stem="small", shortcut="pad")
    yield Family("ResNet-20", jdl.classification(linen(resnet)), colour, 32)
    vgg = models.VGG(((16, 16), (32, 32)), hidden=(64,), pooled=2, classes=10)
    yield Family("small VGG, 8 x 8", jdl.classification(linen(vgg)), small, 64)
    sequences, labels = workloads.series()
    for cell in ("rnn", "gru", "lstm"):
        network = models.RNN((64,), outputs=10, cell=cell)
        task = jdl.classification(linen(network))
        yield Family(f"{cell.upper()}(64), 64 steps", task, {"x": sequences, "y": labels}, 64)
    trees = listops.samples({"train": (20_000, (1, 3), 0)}, arity=(2, 4), flat=False)["train"]
    network = models.ChildSumTreeLSTM(64, 10, listops.CLOSE, 16, at="roots")
    yield Family("child-sum Tree-LSTM(64)", tasks.tree_classification(linen(network)), trees, 4)
    shape = x.shape[1:]
    task = tasks.reconstruction(linen(models.Autoencoder(32, shape=shape)), "bernoulli")
    yield Family("autoencoder 784-32-784", task, pixels, 128)
    task = tasks.reconstruction(linen(models.ConvAutoencoder(16, shape=shape)), "bernoulli")
    yield Family("convolutional autoencoder", task, pixels, 64)
    network = models.VariationalAutoencoder(16, (400,), shape=shape)
    yield Family("variational autoencoder", tasks.variational(linen(network)), pixels, 128)
    task = tasks.language_model(linen(models.Decoder(65, 64, blocks=2, heads=4, width=64)))
    yield Family("decoder, 2 blocks of 64", task, {"x": workloads.text()[0][:, :65]}, 16)
    vit = models.ViT(10, patch=7, blocks=2, heads=4, width=64)
    yield Family("vision transformer, 2 blocks of 64", jdl.classification(linen(vit)), images, 64)
    symbols = autoregressive(2_000, 64)
    network = models.WaveNet(32, 64, (1, 2, 4, 8), 4)
    task = tasks.sequence_labelling(linen(network), inputs=lambda b: jax.nn.one_hot(b["x"], 4))
    yield Family("WaveNet", task, dict(symbols), 32)
    ratings = jdl.data.ratings.generate(20_000)
    sizes: Any = {name: ratings.info[name] for name in ("users", "items", "mean")}
    network = models.NeuralCollaborativeFiltering(embedding=8, factors=8, **sizes)
    yield Family(
        "neural collaborative filtering", jdl.regression(linen(network)), ratings.train, 256
    )


def bare(family: Family) -> Callable[[int], None]:
    """The loop that a user of Flax and optax would write."""

    @partial(jax.jit, donate_argnums=(0, 1, 2))
    def step(params: Any, model_state: Any, moments: Any, batch: Any, key: Any) -> Any:
        def objective(params: Any) -> Any:
            mean, (new, _) = family.task.loss(params, model_state, batch, key, train=True)
            return mean.total / mean.weight, new

        (value, new), grads = jax.value_and_grad(objective, has_aux=True)(params)
        updates, moments = TX.update(grads, moments, params)
        return optax.apply_updates(params, updates), new, moments, value

    feed = jdl.Feed(family.data, family.batch)
    key, number = jax.random.key(0), 0
    with mock.patch.object(convolution, "LARGEST", 0):
        params, model_state = jax.jit(family.task.init)(key, feed.batch(0))
        now: Any = (params, model_state, TX.init(params))
        now = step(*now, feed.batch(0), key)[:3]

    def run(n: int) -> None:
        nonlocal now, number
        for _ in range(n):
            number += 1
            *now, value = step(*now, feed.batch(number), jax.random.fold_in(key, number))
        jax.block_until_ready(value)

    return run


def measured(rounds: int, seconds: float) -> dict[str, dict[str, list[float]]]:
    """Seconds a step of both, in turns, for every family."""
    found: dict[str, dict[str, list[float]]] = {}
    for family in families():
        learner = jdl.learner(family.task, TX)
        jdl_run = stepping(learner, family.data, family.batch, "auto")
        peers = {"bare": bare(family), "jdl": jdl_run}
        sizes = {}
        for name, run in peers.items():
            run(3)
            began = time.perf_counter()
            run(5)
            sizes[name] = max(5, round(seconds * 5 / (time.perf_counter() - began)))
        times: dict[str, list[float]] = {name: [] for name in peers}
        for number in range(rounds):
            for name in sorted(peers, reverse=bool(number % 2)):
                began = time.perf_counter()
                peers[name](sizes[name])
                times[name].append((time.perf_counter() - began) / sizes[name])
        found[family.name] = times
    return found


def table(found: dict[str, dict[str, list[float]]]) -> str:
    """A Markdown table: milliseconds of both, and jdl's speed over the bare loop's."""
    lines = [
        "| family | bare Flax, ms a step | jdl, ms a step | speed, jdl / bare |",
        "|---|---|---|---|",
    ]
    for name, times in found.items():
        each = {peer: spread([1e3 * value for value in values]) for peer, values in times.items()}
        ratios = [a / b for a, b in zip(times["bare"], times["jdl"], strict=True)]
        lines.append(
            f"| {name} | {each['bare']} | {each['jdl']} | {statistics.median(ratios):.2f} |"
        )
    return "\n".join(lines)
