"""Digits as series of 40 numbers, by four kinds of network: what weight sharing is worth.

command   python experiments/mnist_1d.py [--model logistic|mlp|cnn|gru]
data      MNIST-1D, 4,000 training and 1,000 test series, made by the package mnist1d
device    CPU, 2 cores
time      15 s of processor time (logistic) to 55 s (gru)
expect    test accuracy 0.927 (cnn), 0.334 (logistic), 0.726 (mlp), 0.946 (gru)

(The file is not called mnist1d.py, which would hide the package of that name.)
"""

import dataclasses
from typing import Any, Literal

import numpy as np
import optax

import jdl

NETWORKS = {
    "logistic": jdl.models.MLP((), outputs=10),
    "mlp": jdl.models.MLP((256, 256), outputs=10, dropout=0.2),
    "cnn": jdl.models.CNN1D(dropout=0.3),
    "gru": jdl.models.RNN((48,), outputs=10, cell="gru", bidirectional=True, read="mean"),
}
PUBLISHED = {"logistic": 0.32, "mlp": 0.68, "cnn": 0.94, "gru": 0.91}


@dataclasses.dataclass(frozen=True)
class Config:
    """MNIST-1D, by one of four networks."""

    model: Literal["logistic", "mlp", "cnn", "gru"] = "cnn"
    """"logistic" sees each place alone, "cnn" and "gru" share weights over places."""
    learning_rate: float = 3e-3
    epochs: int = 60
    batch_size: int = 100
    split: int = 0
    """Seed of the validation part, 400 of the training series."""

    def __post_init__(self):
        jdl.check_fields(self, learning_rate=0, epochs=1, batch_size=1)


def experiment(config: Config) -> jdl.Experiment:
    data = jdl.data.load("mnist1d", seed=config.split)
    task = jdl.classification(jdl.from_linen(NETWORKS[config.model]))
    steps = config.epochs * len(data.train["x"]) // config.batch_size
    learning_rate = optax.cosine_decay_schedule(config.learning_rate, steps)
    return jdl.Experiment(
        name=f"mnist_1d_{config.model}",
        learner=jdl.learner(task, jdl.optim.clip(optax.adam(learning_rate), 1.0)),
        data=data,
        batch_size=config.batch_size,
        epochs=config.epochs,
        figures=lambda result: figures(result, data.test()),
        summary_line=lambda result: f"published for this model: {PUBLISHED[config.model]:.0%}",
    )


def figures(result: jdl.Result, test: dict[str, np.ndarray]) -> dict[str, Any]:
    """Three test series of each digit, with the wrong answers."""
    from matplotlib.figure import Figure

    predicted = jdl.predict(result, test).argmax(-1)
    figure = Figure(figsize=(11, 5), layout="constrained")
    figure.suptitle("Three series of each digit, read downwards; red: taken for another digit")
    for digit, axis in enumerate(figure.subplots(1, 10, sharey=True)):
        for column, row in enumerate(np.flatnonzero(test["y"] == digit)[:3]):
            correct = predicted[row] == digit
            color = "black" if correct else "tab:red"
            series = test["x"][row, :, 0] + 8 * column
            axis.plot(series, np.arange(40), color=color, linewidth=1)
            label = "" if correct else str(predicted[row])
            axis.text(8 * column, 43, label, ha="center", color="tab:red", fontsize=9)
        axis.set(title=str(digit), xticks=[], yticks=[], ylim=(45, -1))
    return {"series": figure}


if __name__ == "__main__":
    jdl.main(Config, experiment)
