"""Linear regression by gradient descent, on data whose second input is the first plus one.

command   python experiments/linear_regression.py
data      four points, X = [[1, 2], [2, 3], [3, 4], [4, 5]], y = [1, 2, 3, 4]
device    CPU, 2 cores
time      5 s
expect    w = (0.6667, 0.3333), b = -0.3333; at [5, 6] and [6, 7]: 5.0000, 6.0000

Many weights fit this rank-deficient data exactly. Descent from zero finds the shortest of them,
w = (2/3, 1/3), b = -1/3. It diverges above a learning rate of 2 / lambda_max = 0.0458:
`--learning-rate 0.1` ends by itself, with exit code 3.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax

import jdl
from jdl.core.check import check_fields


@dataclasses.dataclass(frozen=True)
class Config:
    """Linear regression by full-batch gradient descent."""

    learning_rate: float = 0.04
    epochs: int = 20_000
    """Steps: each is one pass over the four points."""

    def __post_init__(self):
        check_fields(self, learning_rate=0, epochs=1)


def points() -> jdl.Data:
    """The four points, and the two to predict."""
    x = np.array([[1, 2], [2, 3], [3, 4], [4, 5]], np.float32)
    y = np.array([[1], [2], [3], [4]], np.float32)
    new = {"x": np.array([[5, 6], [6, 7]], np.float32), "y": np.array([[5], [6]], np.float32)}
    return jdl.Data(
        train={"x": x, "y": y}, valid={}, test=lambda: new, info={"name": "four points"}
    )


def experiment(config: Config) -> jdl.Experiment:
    # A model is two plain functions; here it starts at zero.
    model = jdl.from_functions(
        init=lambda key, x: {"w": jnp.zeros((x.shape[-1], 1)), "b": jnp.zeros(1)},
        apply=lambda params, x: x @ params["w"] + params["b"][None],
    )
    learner = jdl.learner(jdl.regression(model), optax.sgd(config.learning_rate))
    return jdl.Experiment(
        name="linear_regression",
        learner=learner,
        data=points(),
        batch_size=4,
        epochs=config.epochs,
        options=jdl.Options(log_every=200),
        remark=remark,
    )


def remark(result: jdl.Result) -> str:
    w, b = result.state.params["w"][:, 0], result.state.params["b"][0]
    at = jdl.predict(result, points().test()["x"])[:, 0]
    return (
        f"w = ({w[0]:.4f}, {w[1]:.4f}), b = {b:.4f}; at [5, 6] and [6, 7]: {at[0]:.4f}, {at[1]:.4f}"
    )


if __name__ == "__main__":
    jdl.main(Config, experiment)
