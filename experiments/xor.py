"""XOR with two inputs, four hidden units and one output: 17 parameters, an ensemble of 20.

command   python experiments/xor.py
data      the four rows of the truth table
device    CPU, 2 cores
time      6 s
expect    20 of 20 members reach an MSE below 0.01; the worst 0.00016
"""

import dataclasses
from typing import Any

import numpy as np
import optax

import jdl
from jdl import plots


@dataclasses.dataclass(frozen=True)
class Config:
    """An ensemble that learns XOR in one compiled program."""

    members: int = 20
    """Networks trained together, each with its own seed."""
    learning_rate: float = 0.05
    epochs: int = 2_000
    """Each epoch is one step on all four rows."""

    def __post_init__(self):
        jdl.check_fields(self, members=1, learning_rate=0, epochs=1)


INPUTS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
TARGETS = np.array([[0], [1], [1], [0]], np.float32)
TABLE = {"x": INPUTS, "y": TARGETS}


def experiment(config: Config) -> jdl.Experiment:
    model = jdl.from_linen(jdl.models.MLP(features=(4,), outputs=1, activation="tanh"))
    learner = jdl.learner(jdl.regression(model), optax.adam(config.learning_rate))
    return jdl.Experiment(
        name="xor",
        learner=jdl.ensemble(learner, config.members),
        data=jdl.Data(train=TABLE, valid={}, test=lambda: TABLE, info={"name": "xor"}),
        batch_size=4,
        epochs=config.epochs,
        options=jdl.Options(log_every=100),
        figures=figures,
        summary_line=summary_line,
    )


def summary_line(result: jdl.Result) -> str:
    losses = np.array(jdl.evaluate(result, TABLE)["loss"])
    solved = (losses < 0.01).sum()
    return f"{solved} of {len(losses)} members reach an MSE below 0.01; worst {losses.max():.2g}"


def figures(result: jdl.Result) -> dict[str, Any]:
    """The outputs of the first eight members over a square of inputs."""
    outputs = jdl.predict(result, plots.square_grid(-0.5, 1.5))[:8]
    surfaces = [
        plots.decision_surface(output, -0.5, 1.5, f"Member {index}", points=INPUTS, classes=TARGETS)
        for index, output in enumerate(outputs)
    ]
    title = "Output: red near 1, blue near 0, black line at 0.5"
    return {"decision surfaces": plots.figure(*surfaces, columns=4, title=title)}


if __name__ == "__main__":
    jdl.main(Config, experiment)
