"""Class weights, resampling and focal loss when three of ten digits are rare in training.

command   python experiments/imbalance.py [--split 1]
data      scikit-learn's digits; 5 training examples of each rare class, about 126 of the others
device    CPU, 2 cores
time      15 s
expect    over the splits 0 to 4, five seeds each, recall of the rare classes: plain 0.511,
          class weights 0.661, resampling 0.658, focal 0.544, weighted focal 0.641; balanced
          accuracy: 0.846, 0.887, 0.889, 0.855, 0.881

All strategies see the same batches; those that do not resample mask the copies. Focal loss was
designed for an imbalance of easy and hard examples, and alone it helps little here.
"""

import dataclasses
from typing import Any, Literal, get_args

import numpy as np
import optax

import jdl
from jdl import plots

Strategy = Literal["plain", "class weights", "resampling", "focal", "weighted focal"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Five strategies for training with three rare digits."""

    split: int = 0
    """Seed of the split and of the selection of the rare examples."""
    rare: tuple[int, ...] = (3, 8, 9)
    kept: int = 5
    """Training examples of each rare class."""
    seeds: int = 5
    epochs: int = 40
    strategies: tuple[Strategy, ...] = get_args(Strategy)

    def __post_init__(self):
        jdl.check_fields(self, rare=(0, 9), kept=1, seeds=1, epochs=1)


def experiment(config: Config) -> jdl.Experiment:
    data = jdl.data.load("digits", seed=config.split)
    thinned, _ = jdl.data.balance.make_rare(data.train, config.rare, config.kept, config.split)
    train, report = jdl.data.balance.oversample(thinned, config.split, mark="original")
    weights = jdl.data.balance.class_weights(thinned["y"])

    def build(strategy: str) -> jdl.Learner:
        return strategy_learner(strategy, weights)

    learner = jdl.sweep(build, {"strategy": config.strategies}, seeds=config.seeds)

    def confusions(result: jdl.Result) -> dict[str, np.ndarray]:
        """The confusion matrices of each strategy, (seeds, 10, 10)."""
        metrics = jdl.group_by(learner.points, "strategy", jdl.evaluate(result, data.test()))
        return {strategy: row["confusion"] for strategy, row in metrics.items()}

    return jdl.Experiment(
        name="imbalance",
        learner=learner,
        data=data._replace(train=train, info=data.info | {"resampling": str(report)}),
        batch_size=64,
        epochs=config.epochs,
        options=jdl.Options(log_every=100),
        figures=lambda result: figures(confusions(result)),
        summary_line=lambda result: summary_line(confusions(result), config.rare),
    )


def strategy_learner(strategy: str, weights: np.ndarray) -> jdl.Learner:
    """The same network, trained with one of the strategies."""
    cross_entropy = jdl.tasks.cross_entropy
    focal = jdl.tasks.focal(2.0)
    losses = {
        "plain": cross_entropy,
        "class weights": jdl.tasks.class_weighted(cross_entropy, weights),
        "resampling": cross_entropy,
        "focal": focal,
        "weighted focal": jdl.tasks.class_weighted(focal, weights),
    }
    task = jdl.classification(
        jdl.from_linen(jdl.models.MLP((64,), outputs=10)),
        loss=losses[strategy],
        metrics={"accuracy": jdl.metrics.accuracy, "confusion": jdl.metrics.confusion(10)},
    )
    if strategy != "resampling":
        task = jdl.tasks.mask_training(task, "original")
    return jdl.learner(task, optax.adam(2e-3))


def summary_line(confusions: dict[str, np.ndarray], rare: tuple[int, ...]) -> str:
    rows = {}
    for strategy, counts in confusions.items():
        recall = np.diagonal(counts, axis1=1, axis2=2) / counts.sum(-1)
        rows[strategy] = {
            "all classes": recall.mean(-1),
            "rare classes": recall[:, list(rare)].mean(-1),
        }
    return jdl.seed_table(rows, "recall of")


def figures(confusions: dict[str, np.ndarray]) -> dict[str, Any]:
    return {"confusion by strategy": plots.matrices(confusions, "predicted", "true")}


if __name__ == "__main__":
    jdl.main(Config, experiment)
