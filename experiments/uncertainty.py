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
from jdl.core.check import within


@dataclasses.dataclass(frozen=True)
class Config:
    """Mean and standard deviation of a noisy sine, learned together."""

    members: int = 5
    """Networks trained side by side, each from its own seed."""
    examples: int = 1_000
    learning_rate: float = 3e-3
    steps: int = 3_000

    def __post_init__(self):
        within("members", self.members, 1)
        within("examples", self.examples, 64)
        within("learning_rate", self.learning_rate, 0)
        within("steps", self.steps, 1)


def width(x: np.ndarray) -> np.ndarray:
    """The true standard deviation of the noise."""
    return 0.05 + 0.35 / (1 + np.exp(-3 * x))


def points(examples: int) -> jdl.Data:
    train, valid, test = (
        jdl.data.generate.sines(n, noise=width, seed=seed)
        for seed, n in enumerate((examples, 500, 5_000))
    )
    return jdl.Data(train, valid, lambda: test, {"name": "sines with growing noise"})


def experiment(config: Config) -> jdl.Experiment:
    model = jdl.from_linen(jdl.models.MLP((64, 64), outputs=2, activation="tanh"))
    task = jdl.tasks.uncertain_regression(model)
    rate = jdl.optim.schedule("cosine", config.learning_rate, config.steps)
    return jdl.Experiment(
        name="uncertainty",
        learner=jdl.ensemble(jdl.learner(task, optax.adam(rate)), config.members),
        data=points(config.examples),
        batch_size=64,
        epochs=config.steps * 64 / config.examples,
        options=jdl.Options(log_every=100),
        pictures=lambda result: pictures(result, config),
        remark=remark,
    )


def remark(result: jdl.Result) -> str:
    test = points(64).test()
    x, y = test["x"], test["y"]
    told = np.array(jdl.evaluate(result, test)["loss"])
    made, true = jdl.predict(result, x), width(x)[None]
    off = np.abs(made["std"] / true - 1).mean((1, 2))
    inside = (np.abs(y[None] - made["mean"]) < 1.96 * made["std"]).mean((1, 2))
    floor = np.log(true).mean() + 0.5 * np.log(2 * np.pi * np.e)
    one = 0.5 * np.log(2 * np.pi * np.e * np.mean((y[None] - made["mean"]) ** 2, (1, 2)))
    rows = {
        "loss in nats": told,
        "loss with one width for all x": one,
        "predicted width off by": off,
        "inside the 95 % interval": inside,
    }
    lines = [f"{name:<30}{v.mean():.4f} ± {v.std():.4f}" for name, v in rows.items()]
    return "\n".join([*lines, f"{'floor, in nats':<30}{floor:.4f}"])


def pictures(result: jdl.Result, config: Config) -> dict[str, Any]:
    """The first member's mean and interval over the data, and every member's width."""
    from matplotlib.figure import Figure

    x = np.linspace(-np.pi, np.pi, 201, dtype=np.float32)[:, None]
    made, line = jdl.predict(result, x), x[:, 0]
    mean, std = made["mean"][0, :, 0], made["std"][0, :, 0]
    data = points(config.examples).train
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.scatter(data["x"], data["y"], s=4, color="0.7", label="training data")
    left.plot(line, np.sin(line), "k--", lw=1, label="true mean")
    left.plot(line, mean, color="tab:blue", label="predicted mean")
    left.fill_between(line, mean - 1.96 * std, mean + 1.96 * std, alpha=0.25, label="95 % interval")
    left.set(title="one network", xlabel="x", ylabel="y")
    left.legend(loc="upper left", frameon=False)
    right.plot(line, made["std"][:, :, 0].T, color="tab:blue", lw=1, alpha=0.6)
    right.plot([], [], color="tab:blue", label=f"predicted, {config.members} networks")
    right.plot(line, width(line), "k--", label="true")
    right.set(title="standard deviation of the noise", xlabel="x", ylim=(0, 0.6))
    right.legend(loc="upper left", frameon=False)
    return {"uncertainty": figure}


if __name__ == "__main__":
    jdl.main(Config, experiment)
