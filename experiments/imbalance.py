"""Three of ten digits are rare in training: what class weights, resampling and focal loss do.

command   python experiments/imbalance.py [--split 1]
data      embedded digits; of the rare classes 5 training examples each, of the others about 126
device    CPU, 2 cores
time      15 s
expect    over the splits 0 to 4, five seeds each, recall of the rare classes: plain 0.511,
          class weights 0.675, resampling 0.658, focal 0.544, weighted focal 0.658; balanced
          accuracy: 0.846, 0.891, 0.889, 0.855, 0.885

All strategies see the same batches. Those that do not resample leave the copies out by a mask.
Focal loss alone was made for another imbalance, that of easy and hard examples; it helps little.
"""

import dataclasses
from typing import Any, Literal, get_args

import numpy as np
import optax

import jdl
from jdl.core.check import fields_within

Strategy = Literal["plain", "class weights", "resampling", "focal", "weighted focal"]
STRATEGIES = get_args(Strategy)


@dataclasses.dataclass(frozen=True)
class Config:
    """Five ways to train on digits of which three are rare."""

    split: int = 0
    """Seed of the split and of the choice of the rare examples."""
    rare: tuple[int, ...] = (3, 8, 9)
    kept: int = 5
    """Training examples of each rare class."""
    seeds: int = 5
    epochs: int = 40
    strategies: tuple[Strategy, ...] = STRATEGIES
    """Which of them to compare."""

    def __post_init__(self):
        fields_within(self, kept=1, seeds=1, epochs=1)


def imbalanced(config: Config) -> jdl.Data:
    """The digits with rare classes; the copies of the resampled set stand behind the originals."""
    data = jdl.data.load("digits", seed=config.split)
    y = data.train["y"]
    order = np.random.default_rng(config.split).permutation(len(y))
    place = np.array([np.sum(y[order[:i]] == y[row]) for i, row in enumerate(order)])
    rows = order[~np.isin(y[order], config.rare) | (place < config.kept)]
    few = {name: value[rows] for name, value in data.train.items()}
    resampled, report = jdl.data.balance.oversample(few, config.split)
    original = (np.arange(len(resampled["y"])) < len(rows)).astype(np.float32)
    info = data.info | {"resampling": str(report)}
    return data._replace(train=resampled | {"original": original}, info=info)


def experiment(config: Config) -> jdl.Experiment:
    data = imbalanced(config)
    model = jdl.from_linen(jdl.models.MLP((64,), outputs=10))
    weights = jdl.data.balance.class_weights(data.train["y"][data.train["original"] == 1])
    plain = jdl.tasks.cross_entropy
    losses = {
        "class weights": jdl.tasks.class_weighted(plain, weights),
        "focal": jdl.tasks.focal(2.0),
        "weighted focal": jdl.tasks.class_weighted(jdl.tasks.focal(2.0), weights),
    }

    def build(strategy: str) -> jdl.Learner:
        loss = losses.get(strategy, plain)
        counts = {"accuracy": jdl.metrics.accuracy, "confusion": jdl.metrics.confusion(10)}
        task = jdl.classification(model, loss=loss, metrics=counts)
        whole = strategy == "resampling"
        return jdl.learner(task if whole else originals(task), optax.adam(2e-3))

    return jdl.Experiment(
        name="imbalance",
        learner=jdl.sweep(build, {"strategy": config.strategies}, seeds=config.seeds),
        data=data,
        batch_size=64,
        epochs=config.epochs,
        options=jdl.Options(log_every=100),
        pictures=lambda result: pictures(result, config),
        remark=lambda result: remark(result, config),
    )


def originals(task: jdl.Task) -> jdl.Task:
    """The task without the copies among its training examples."""

    def loss(params: Any, state: Any, batch: Any, key: Any, *, train: bool) -> Any:
        batch = {**batch, "mask": batch["original"]} if train else batch
        return task.loss(params, state, batch, key, train=train)

    return task._replace(loss=loss)


def recalls(result: jdl.Result, config: Config) -> np.ndarray:
    """Confusion matrices of the test part over its rows' sums: [strategy, seed, 10, 10]."""
    test = jdl.data.load("digits", seed=config.split).test()
    counts = np.array(jdl.evaluate(result, test)["confusion"], float)
    shares = counts / counts.sum(-1, keepdims=True)
    return shares.reshape(-1, config.seeds, 10, 10)


def remark(result: jdl.Result, config: Config) -> str:
    found = np.diagonal(recalls(result, config), axis1=2, axis2=3)
    lines = ["strategy        balanced accuracy   recall of the rare classes"]
    for name, recall in zip(config.strategies, found, strict=True):
        both = recall.mean(-1), recall[:, list(config.rare)].mean(-1)
        lines.append(f"{name:<16}" + "     ".join(f"{v.mean():.4f} ± {v.std():.4f}" for v in both))
    return "\n".join(lines)


def pictures(result: jdl.Result, config: Config) -> dict[str, Any]:
    """What each digit was taken for, averaged over seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.4), layout="constrained")
    axes = figure.subplots(1, len(config.strategies), sharey=True, squeeze=False)[0]
    means = recalls(result, config).mean(1)
    for axis, name, shares in zip(axes, config.strategies, means, strict=True):
        image = axis.imshow(shares**0.5, cmap="Blues", vmin=0, vmax=1)
        rare = shares.diagonal()[list(config.rare)].mean()
        axis.set(title=f"{name}\nrecall of {config.rare}: {rare:.2f}", xlabel="taken for")
        axis.set(xticks=range(10), yticks=range(10))
        axis.title.set_fontsize(10)
    axes[0].set_ylabel("digit")
    bar = figure.colorbar(image, ax=list(axes), ticks=[0, 0.1**0.5, 0.5**0.5, 1])
    bar.ax.set_yticklabels(["0", "0.1", "0.5", "1"])
    bar.set_label("share of the digit")
    return {"confusion": figure}


if __name__ == "__main__":
    jdl.main(Config, experiment)
