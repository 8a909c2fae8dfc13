"""The same network with batch, layer, instance, group and no normalisation, trained together.

command   python experiments/normalisation.py [--split 1]
data      scikit-learn's 1,797 handwritten digits, which come with that package
device    CPU, 2 cores
time      about 50 s of CPU time
expect    test accuracy over the splits 0 to 2 (with seeds 0 to 2): none 0.948 ± 0.043,
          batch 0.988 ± 0.004, layer 0.973 ± 0.010, instance 0.990 ± 0.006, group 0.985 ± 0.002;
          validation accuracy after the first epoch, mean of the three: none 0.35, batch 0.76,
          layer 0.39, instance 0.67, group 0.55
"""

import dataclasses
from typing import Any

import optax

import jdl
from jdl import plots

NORMS = ("none", "batch", "layer", "instance", "group")


@dataclasses.dataclass(frozen=True)
class Config:
    """Six convolutions, trained by SGD with momentum, with each normalisation."""

    learning_rate: float = 0.05
    split: int = 0
    """Seed of the split."""
    epochs: int = 8
    batch_size: int = 64

    def __post_init__(self):
        jdl.check_fields(self, learning_rate=0, epochs=1, batch_size=1)


def experiment(config: Config) -> jdl.Experiment:
    data = jdl.data.load("digits", seed=config.split)
    tx = optax.sgd(config.learning_rate, momentum=0.9)
    players = {norm: jdl.Player(classification(norm), tx) for norm in NORMS}
    return jdl.Experiment(
        name="normalisation",
        learner=jdl.independent(**players),  # five networks on the same batches in one program
        data=data,
        batch_size=config.batch_size,
        epochs=config.epochs,
        options=jdl.Options(log_every=10),
        figures=figures,
        summary_line=lambda result: summary_line(result, data.test()),
    )


def classification(norm: str) -> jdl.Task:
    """Classify the digits with six convolutions, each followed by the normalisation."""
    network = jdl.models.VGG(
        stages=((16, 16, 16), (32, 32, 32)),
        hidden=(),
        pooled=1,
        classes=10,
        dropout=0.0,
        norm=norm,
    )
    return jdl.classification(jdl.from_linen(network))


def summary_line(result: jdl.Result, test: dict[str, Any]) -> str:
    metrics = jdl.evaluate(result, test)
    accuracies = [f"{norm} {metrics[f'{norm}/accuracy']:.4f}" for norm in NORMS]
    return f"test accuracy by normalisation: {', '.join(accuracies)}"


def figures(result: jdl.Result) -> dict[str, Any]:
    """Training loss and validation accuracy over the epochs."""

    def curves(metric: str, split: str) -> dict[str, Any]:
        return {
            norm: plots.logged_curve(result.history, f"{norm}/{metric}", split=split, over="epoch")
            for norm in NORMS
        }

    loss = plots.lines(
        curves("loss", "train"), "Loss of the training batches", "epoch", yscale="log"
    )
    accuracy = plots.lines(curves("accuracy", "valid"), "Accuracy on the validation set", "epoch")
    return {"curves by normalisation": plots.figure(loss, accuracy)}


if __name__ == "__main__":
    jdl.main(Config, experiment)
