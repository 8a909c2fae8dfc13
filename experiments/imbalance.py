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
from jdl import pictures as draw
from jdl.core.check import fields_within
from jdl.data import balance

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
    few, _ = balance.thinned(data.train, config.rare, config.kept, config.split)
    resampled, report = balance.oversample(few, config.split)
    resampled["original"] = (np.arange(len(resampled["y"])) < len(few["y"])).astype(np.float32)
    return data._replace(train=resampled, info=data.info | {"resampling": str(report)})


def experiment(config: Config) -> jdl.Experiment:
    data = imbalanced(config)
    model = jdl.from_linen(jdl.models.MLP((64,), outputs=10))
    weights = balance.class_weights(data.train["y"][data.train["original"] == 1])
    losses = {
        "class weights": jdl.tasks.class_weighted(jdl.tasks.cross_entropy, weights),
        "focal": jdl.tasks.focal(2.0),
        "weighted focal": jdl.tasks.class_weighted(jdl.tasks.focal(2.0), weights),
    }
    counts = {"accuracy": jdl.metrics.accuracy, "confusion": jdl.metrics.confusion(10)}

    def build(strategy: str) -> jdl.Learner:
        loss = losses.get(strategy, jdl.tasks.cross_entropy)
        task = jdl.classification(model, loss=loss, metrics=counts)
        if strategy != "resampling":
            task = jdl.tasks.masked_in_training(task, "original")
        return jdl.learner(task, optax.adam(2e-3))

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


def shares(result: jdl.Result, config: Config) -> dict[str, np.ndarray]:
    """For each strategy what each digit of the test part is taken for, [seeds, 10, 10]."""
    test = jdl.data.load("digits", seed=config.split).test()
    counts = np.array(jdl.evaluate(result, test)["confusion"], float)
    found = (counts / counts.sum(-1, keepdims=True)).reshape(-1, config.seeds, 10, 10)
    return dict(zip(config.strategies, found, strict=True))


def remark(result: jdl.Result, config: Config) -> str:
    rows = {}
    for name, found in shares(result, config).items():
        recall = np.diagonal(found, axis1=1, axis2=2)
        rare = recall[:, list(config.rare)].mean(-1)
        rows[name] = {"balanced accuracy": recall.mean(-1), "recall of the rare classes": rare}
    return jdl.table(rows, "strategy")


def pictures(result: jdl.Result, config: Config) -> dict[str, Any]:
    """What each digit was taken for, averaged over seeds."""
    panels, ticks = [], {"rows": range(10), "columns": range(10)}
    for name, found in shares(result, config).items():
        rare = np.diagonal(found.mean(0))[list(config.rare)].mean()
        title = f"{name}\nrecall of {config.rare}: {rare:.2f}"
        panels.append(
            draw.matrix(found.mean(0), title, "taken for", "digit", top=1, power=0.5, **ticks)
        )
    return {"confusion": draw.figure(*panels)}


if __name__ == "__main__":
    jdl.main(Config, experiment)
