"""Linear regression by gradient descent, on data whose second input is the first plus one.

command   python experiments/linear_regression.py
data      four points, X = [[1, 2], [2, 3], [3, 4], [4, 5]], y = [1, 2, 3, 4]
device    CPU, 2 cores
time      5 s
expect    w = (0.6667, 0.3333), b = -0.3333; at [5, 6] and [6, 7]: 5.0000, 6.0000

Many weights fit this rank-deficient data exactly. Gradient descent from zero finds those with the
smallest norm, w = (2/3, 1/3), b = -1/3. It diverges above a learning rate of 2 / lambda_max =
0.0458: with `--learning-rate 0.1` the run stops with exit code 3.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jdl


@dataclasses.dataclass(frozen=True)
class Config:
    """Linear regression by full-batch gradient descent."""

    learning_rate: float = 0.04
    epochs: int = 20_000
    """Each epoch is one step on all four points."""

    def __post_init__(self):
        jdl.check_fields(self, learning_rate=0, epochs=1)


def four_points() -> jdl.Data:
    """Four points for training and two for testing."""
    train = {
        "x": np.array([[1, 2], [2, 3], [3, 4], [4, 5]], np.float32),
        "y": np.array([[1], [2], [3], [4]], np.float32),
    }
    test = {
        "x": np.array([[5, 6], [6, 7]], np.float32),
        "y": np.array([[5], [6]], np.float32),
    }
    return jdl.Data(train=train, valid={}, test=lambda: test, info={"name": "four points"})


# A model is two plain functions; this one starts from zero.
def init(key: jax.Array, x: jax.Array) -> dict[str, jax.Array]:
    return {"w": jnp.zeros((x.shape[-1], 1)), "b": jnp.zeros(1)}


def apply(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return x @ params["w"] + params["b"][None]


def experiment(config: Config) -> jdl.Experiment:
    task = jdl.regression(jdl.from_functions(init, apply))
    return jdl.Experiment(
        name="linear_regression",
        learner=jdl.learner(task, optax.sgd(config.learning_rate)),
        data=four_points(),
        batch_size=4,
        epochs=config.epochs,
        options=jdl.Options(log_every=200),
        summary_line=summary_line,
    )


def summary_line(result: jdl.Result) -> str:
    params = result.state.params
    w1, w2 = params["w"][:, 0]
    b = params["b"][0]
    y1, y2 = jdl.predict(result, four_points().test()["x"])[:, 0]
    return f"w = ({w1:.4f}, {w2:.4f}), b = {b:.4f}; at [5, 6] and [6, 7]: {y1:.4f}, {y2:.4f}"


if __name__ == "__main__":
    jdl.main(Config, experiment)
