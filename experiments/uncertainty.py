"""Regression that says how far off it may be: sines whose noise grows with x.

command   python experiments/uncertainty.py
data      generated: y = sin x + noise of width 0.05 + 0.35 sigmoid(3x), 1,000 points for training
device    CPU, 2 cores
time      15 s
expect    loss on new points -0.398 ± 0.001 nats (floor -0.425; with one width for all x 0.153);
          the predicted width is off by 5.6 % on average; 94.8 % of points inside the 95 % interval

The floor is the entropy of the noise: no model that does not know y can do better on average.
"""

import dataclasses
from typing import Any

import numpy as np
import optax

import jdl
from jdl import pictures as draw
from jdl.core.check import check_fields
from jdl.data.generate import parts, sines


@dataclasses.dataclass(frozen=True)
class Config:
    """Mean and standard deviation of a noisy sine, learned together."""

    members: int = 5
    """Networks trained side by side, each from its own seed."""
    examples: int = 1_000
    learning_rate: float = 3e-3
    steps: int = 3_000

    def __post_init__(self):
        check_fields(self, members=1, examples=64, learning_rate=0, steps=1)


def width(x: np.ndarray) -> np.ndarray:
    """The true standard deviation of the noise."""
    return 0.05 + 0.35 / (1 + np.exp(-3 * x))


def experiment(config: Config) -> jdl.Experiment:
    data = parts(lambda n, seed: sines(n, width, seed), (config.examples, 500, 5_000), "sines")
    task = jdl.tasks.uncertain_regression(jdl.from_linen(jdl.models.MLP((64, 64), 2, "tanh")))
    rate = jdl.optim.schedule("cosine", config.learning_rate, config.steps)
    return jdl.Experiment(
        name="uncertainty",
        learner=jdl.ensemble(jdl.learner(task, optax.adam(rate)), config.members),
        data=data,
        batch_size=64,
        epochs=config.steps * 64 / config.examples,
        options=jdl.Options(log_every=100),
        pictures=lambda result: pictures(result, data),
        remark=lambda result: remark(result, data.test()),
    )


def remark(result: jdl.Result, test: dict[str, np.ndarray]) -> str:
    made, true = jdl.predict(result, test["x"]), width(test["x"])[None]
    error, nats = np.abs(test["y"][None] - made["mean"]), 0.5 * np.log(2 * np.pi * np.e)
    rows = {
        "loss in nats": np.array(jdl.evaluate(result, test)["loss"]),
        "loss with one width for all x": nats + 0.5 * np.log(np.mean(error**2, (1, 2))),
        "predicted width off by": np.abs(made["std"] / true - 1).mean((1, 2)),
        "inside the 95 % interval": (error < 1.96 * made["std"]).mean((1, 2)),
        "floor, in nats": nats + np.log(true).mean(),
    }
    return jdl.table({name: {"mean ± sd over the networks": row} for name, row in rows.items()})


def pictures(result: jdl.Result, data: jdl.Data) -> dict[str, Any]:
    """The first member's mean and interval over the data, and every member's width."""
    x = np.linspace(-np.pi, np.pi, 201, dtype=np.float32)
    made = {name: numbers[:, :, 0] for name, numbers in jdl.predict(result, x[:, None]).items()}
    mean, std = made["mean"][0], made["std"][0]
    curves = {"true mean": (x, np.sin(x)), "predicted mean": (x, mean)}
    widths = {"predicted by each network": (x, made["std"].T), "true": (x, width(x))}
    points = np.hstack(list(data.train.values()))
    left = draw.overlay(
        draw.dots(points, "One network", "x", "y", name="training data", faint=True),
        draw.band(x, mean - 1.96 * std, mean + 1.96 * std, "95 % interval"),
        draw.lines(curves),
    )
    right = draw.lines(widths, "Standard deviation of the noise", "x", ylim=(0, 0.6))
    return {"uncertainty": draw.figure(left, right)}


if __name__ == "__main__":
    jdl.main(Config, experiment)
