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
from typing import Literal, get_args

import numpy as np
import optax

import jdl
from jdl import pictures as draw
from jdl.core.check import check_fields, within
from jdl.data import balance
from jdl.tasks import cross_entropy, masked_in_training

Strategy = Literal["plain", "class weights", "resampling", "focal", "weighted focal"]


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
    strategies: tuple[Strategy, ...] = get_args(Strategy)

    def __post_init__(self):
        check_fields(self, kept=1, seeds=1, epochs=1)
        for digit in self.rare:
            within("rare", digit, 0, 9)


def experiment(config: Config) -> jdl.Experiment:
    data = jdl.data.load("digits", seed=config.split)
    few, _ = balance.thinned(data.train, config.rare, config.kept, config.split)
    train, report = balance.oversample(few, config.split, mark="original")
    model = jdl.from_linen(jdl.models.MLP((64,), outputs=10))
    weights = balance.class_weights(few["y"])
    losses = {
        "class weights": jdl.tasks.class_weighted(cross_entropy, weights),
        "focal": jdl.tasks.focal(2.0),
        "weighted focal": jdl.tasks.class_weighted(jdl.tasks.focal(2.0), weights),
    }
    counts = {"accuracy": jdl.metrics.accuracy, "confusion": jdl.metrics.confusion(10)}

    def build(strategy: str) -> jdl.Learner:
        task = jdl.classification(model, loss=losses.get(strategy, cross_entropy), metrics=counts)
        seen = task if strategy == "resampling" else masked_in_training(task, "original")
        return jdl.learner(seen, optax.adam(2e-3))

    def confusions(result: jdl.Result) -> dict[str, np.ndarray]:
        rows = every.by("strategy", jdl.evaluate(result, data.test()))
        return {name: row["confusion"] for name, row in rows.items()}

    every = jdl.sweep(build, {"strategy": config.strategies}, seeds=config.seeds)
    return jdl.Experiment(
        name="imbalance",
        learner=every,
        data=data._replace(train=train, info=data.info | {"resampling": str(report)}),
        batch_size=64,
        epochs=config.epochs,
        options=jdl.Options(log_every=100),
        pictures=lambda result: {"taken for": draw.matrices(confusions(result), "said", "true")},
        remark=lambda result: remark(confusions(result), list(config.rare)),
    )


def remark(confusions: dict[str, np.ndarray], rare: list[int]) -> str:
    rows = {}
    for name, counts in confusions.items():
        recall = np.diagonal(counts, axis1=1, axis2=2) / counts.sum(-1)
        rows[name] = {"all classes": recall.mean(-1), "rare classes": recall[:, rare].mean(-1)}
    return jdl.table(rows, "recall of")


if __name__ == "__main__":
    jdl.main(Config, experiment)
