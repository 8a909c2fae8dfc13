"""Regression with predicted uncertainty, on a sine whose noise grows with x.

command   python experiments/uncertainty.py
data      generated: y = sin x + noise of standard deviation 0.05 + 0.35 sigmoid(3x), 1,000 training
          points
device    CPU, 2 cores
time      15 s
expect    test loss -0.398 ± 0.001 nats (entropy of the noise -0.425; with the same standard
          deviation for all x 0.153); the mean relative error of the predicted standard deviation is
          5.6 %; 94.8 % of the test points lie inside the 95 % interval

No model can have a lower expected loss than the entropy of the noise.
"""

import dataclasses
from typing import Any

import numpy as np
import optax

import jdl
from jdl import plots


@dataclasses.dataclass(frozen=True)
class Config:
    """Networks that predict mean and standard deviation of a noisy sine."""

    members: int = 5
    """Networks trained together, each with its own seed."""
    examples: int = 1_000
    learning_rate: float = 3e-3
    steps: int = 3_000

    def __post_init__(self):
        jdl.check_fields(self, members=1, examples=64, learning_rate=0, steps=1)


def true_std(x: np.ndarray) -> np.ndarray:
    """The standard deviation of the noise."""
    return 0.05 + 0.35 / (1 + np.exp(-3 * x))


def noisy_sines(n: int, seed: int) -> dict[str, np.ndarray]:
    return jdl.data.synthetic.sines(n, true_std, seed)


def experiment(config: Config) -> jdl.Experiment:
    data = jdl.data.synthetic.sample_data(noisy_sines, (config.examples, 500, 5_000), "sines")
    network = jdl.models.MLP((64, 64), outputs=2, activation="tanh")
    task = jdl.tasks.uncertain_regression(jdl.from_linen(network))
    learning_rate = jdl.optim.schedule("cosine", config.learning_rate, config.steps)
    learner = jdl.learner(task, optax.adam(learning_rate))
    return jdl.Experiment(
        name="uncertainty",
        learner=jdl.ensemble(learner, config.members),
        data=data,
        batch_size=64,
        epochs=config.steps * 64 / config.examples,
        options=jdl.Options(log_every=100),
        figures=lambda result: figures(result, data.train),
        summary_line=lambda result: summary_line(result, data.test()),
    )


def summary_line(result: jdl.Result, test: dict[str, np.ndarray]) -> str:
    """A table of mean ± standard deviation over the networks."""
    predicted = jdl.predict(result, test["x"])
    std = true_std(test["x"])[None]
    error = np.abs(test["y"][None] - predicted["mean"])
    # The entropy of a normal distribution is this plus the logarithm of its standard deviation.
    nats = 0.5 * np.log(2 * np.pi * np.e)
    rows = {
        "loss in nats": np.array(jdl.evaluate(result, test)["loss"]),
        "loss with the same std for all x": nats + 0.5 * np.log(np.mean(error**2, (1, 2))),
        "relative error of the std": np.abs(predicted["std"] / std - 1).mean((1, 2)),
        "share inside the 95 % interval": (error < 1.96 * predicted["std"]).mean((1, 2)),
        "entropy of the noise in nats": nats + np.log(std).mean(),
    }
    return jdl.seed_table(
        {name: {"mean ± std over the networks": row} for name, row in rows.items()}
    )


def figures(result: jdl.Result, train: dict[str, np.ndarray]) -> dict[str, Any]:
    """The first network's mean and interval, and every network's standard deviation."""
    x = np.linspace(-np.pi, np.pi, 201, dtype=np.float32)
    predicted = jdl.predict(result, x[:, None])
    means, stds = predicted["mean"][:, :, 0], predicted["std"][:, :, 0]
    mean, std = means[0], stds[0]
    points = np.hstack([train["x"], train["y"]])
    one_network = plots.overlay(
        plots.scatter(points, "One network", "x", "y", name="training data", faint=True),
        plots.band(x, mean - 1.96 * std, mean + 1.96 * std, "95 % interval"),
        plots.lines({"true mean": (x, np.sin(x)), "predicted mean": (x, mean)}),
    )
    deviations = plots.lines(
        {"predicted by each network": (x, stds.T), "true": (x, true_std(x))},
        "Standard deviation of the noise",
        "x",
        ylim=(0, 0.6),
    )
    return {"uncertainty": plots.figure(one_network, deviations)}


if __name__ == "__main__":
    jdl.main(Config, experiment)
