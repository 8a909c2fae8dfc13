"""Ratings of items by users: matrix factorisation, or neural collaborative filtering.

command   python experiments/recommender.py [--model ncf] [--ratings FILE]
data      generated: 200,000 ratings of 500 items by 1,000 users, rank 3; or a MovieLens file
device    CPU, 2 cores
time      13 s of CPU time
expect    test RMSE 0.5134, 2.2 % above the noise (ncf 0.5143, 2.4 %); biases alone 0.9472, the mean
          rating 1.1002
"""

import dataclasses
from typing import Any, Literal

import numpy as np
import optax

import jdl
from jdl import pictures as draw
from jdl.core.check import check_fields
from jdl.data import ratings
from jdl.data.baselines import rating_biases, rmse


@dataclasses.dataclass(frozen=True)
class Config:
    """Factors of users and items."""

    model: Literal["mf", "ncf"] = "mf"
    ratings: str = ""
    """A file of MovieLens: ratings.csv, u.data or ratings.dat; without it they are generated."""
    n: int = 200_000
    """Ratings to generate."""
    factors: int = 3
    embedding: int = 1
    """Numbers for a user and for an item that the perceptron of ncf is given."""
    decay: float = 5e-6
    """Weight of the penalty on all squared weights, biases too."""
    learning_rate: float = 1e-2
    epochs: int = 20
    batch_size: int = 1_024

    def __post_init__(self):
        check_fields(self, n=1, factors=1, decay=0, learning_rate=0, epochs=1, batch_size=1)


def experiment(config: Config) -> jdl.Experiment:
    data = ratings.read(config.ratings) if config.ratings else ratings.generate(config.n)
    sizes: dict[str, Any] = {name: data.info[name] for name in ("users", "items", "mean")}
    sizes["factors"] = config.factors
    network = jdl.models.MatrixFactorization(**sizes)
    if config.model == "ncf":
        network = jdl.models.NeuralCollaborativeFiltering(embedding=config.embedding, **sizes)
    task = jdl.l2(jdl.regression(jdl.from_linen(network)), config.decay, where=lambda *_: True)
    steps = data.steps(config.epochs, config.batch_size)
    rate = optax.cosine_decay_schedule(config.learning_rate, steps)
    return jdl.Experiment(
        name="recommender",
        learner=jdl.learner(task, optax.adam(rate)),
        data=data,
        batch_size=config.batch_size,
        epochs=config.epochs,
        best="min loss",
        pictures=lambda result: pictures(result, data.test(), data.info.get("noise")),
        remark=lambda result: remark(result, data, data.test()),
    )


def remark(result: jdl.Result, data: jdl.Data, test: dict[str, np.ndarray]) -> str:
    said, info = rmse(jdl.predict(result, test, batch_size=8_192), test["y"]), data.info
    alone = rating_biases(data.train, test, info["mean"])
    line = f"test RMSE {said:.4f}; biases alone {alone:.4f}; "
    line += f"the mean rating {rmse(info['mean'], test['y']):.4f}"
    if "floor" not in info:
        return f"{line}; users and items that training never saw: {info['unknown']['test']}"
    return f"{line}; noise {info['floor']:.4f}: {100 * (said / info['floor'] - 1):.2f} % above it"


def pictures(result: jdl.Result, test: dict[str, Any], noise: float | None) -> dict[str, Any]:
    """Ratings against predictions, and the errors beside the noise that nobody can predict."""
    said, true = jdl.predict(result, test, batch_size=8_192)[:, 0], test["y"][:, 0]
    left = draw.against(true, said, "Held-out ratings")
    right = draw.histogram(
        said - true, "Errors, beside the noise", "predicted - true", normal=noise
    )
    return {"predictions": draw.figure(left, right)}


if __name__ == "__main__":
    jdl.main(Config, experiment)
