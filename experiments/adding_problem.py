"""The adding problem over 100 steps: remember two marked numbers and add them.

command   python experiments/adding_problem.py [--cell rnn|lstm|gru|mgu]
data      generated: 100 numbers in [0, 1), two of them marked
device    CPU, 2 cores
time      40 s of processor time
expect    MSE 0.00033 with the LSTM, 0.00051 with the GRU; 0.1613 with the plain RNN, as with 1 for
          every answer (0.1667 in the mean, 0.1616 on this test set)
"""

import dataclasses
from typing import Any, Literal

import numpy as np
import optax

import jdl
from jdl.core.check import within
from jdl.data.sequences import ADDING_BASELINE, adding


@dataclasses.dataclass(frozen=True)
class Config:
    """One recurrent layer that has to remember."""

    cell: Literal["rnn", "lstm", "gru", "mgu"] = "lstm"
    """Simple, LSTM, GRU or minimal gated unit."""
    time: int = 100
    """Length of the sequences."""
    units: int = 48
    learning_rate: float = 5e-3
    steps: int = 2_000
    batch_size: int = 64

    def __post_init__(self):
        within("time", self.time, 2)
        within("units", self.units, 1)
        within("learning_rate", self.learning_rate, 0)
        within("steps", self.steps, 1)
        within("batch_size", self.batch_size, 1)


def experiment(config: Config) -> jdl.Experiment:
    train, valid = (adding(n, config.time, seed) for seed, n in enumerate((20_000, 1_000)))
    network = jdl.models.RNN((config.units,), outputs=1, cell=config.cell, memory=config.time)
    rate = optax.cosine_decay_schedule(config.learning_rate, config.steps, 0.02)
    learner = jdl.learner(
        jdl.tasks.sequence_regression(jdl.from_linen(network)),
        jdl.optim.clip(optax.adam(rate), 1.0),
    )
    return jdl.Experiment(
        name=f"adding_problem_{config.cell}",
        learner=learner,
        data=jdl.Data(train, valid, lambda: test(config), {"name": "adding"}),
        batch_size=config.batch_size,
        epochs=config.steps * config.batch_size / len(train["x"]),
        options=jdl.Options(evaluate_every=100),
        pictures=lambda result: pictures(result, config),
        remark=lambda result: remark(result, config),
    )


def test(config: Config) -> dict[str, np.ndarray]:
    return adding(2_000, config.time, seed=2)


def remark(result: jdl.Result, config: Config) -> str:
    data = test(config)
    loss, one = jdl.evaluate(result, data)["loss"], ((data["y"] - 1) ** 2).mean()
    return f"{config.cell}: MSE {loss:.5f} (always answering 1: {one:.5f})"


def pictures(result: jdl.Result, config: Config) -> dict[str, Any]:
    """The validation error over time, and answers against the truth."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    rows = [row for row in result.history if row["split"] == "valid"]
    left.semilogy([row["step"] for row in rows], [row["loss"] for row in rows], label=config.cell)
    left.axhline(ADDING_BASELINE, color="0.5", linestyle="--", label="always answering 1")
    left.set(xlabel="step", ylabel="mean squared error", title="Validation error")
    left.set_ylim(1e-5, 0.5)
    left.legend(frameon=False, loc="lower left")
    data = {name: value[:500] for name, value in test(config).items()}
    right.scatter(data["y"], jdl.predict(result, data), s=6)
    right.plot([0, 2], [0, 2], color="0.5", linestyle="--")
    right.set(xlabel="true sum", ylabel="answer", aspect="equal", xlim=(0, 2), ylim=(-0.1, 2.1))
    right.set_title(f"Two of {config.time} numbers, added")
    return {"adding": figure}


if __name__ == "__main__":
    jdl.main(Config, experiment)
