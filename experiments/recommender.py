"""Predict ratings with matrix factorisation or neural collaborative filtering.

command   python experiments/recommender.py [--model ncf] [--ratings FILE]
data      generated: 200,000 ratings of 500 items by 1,000 users, rank 3; or a MovieLens file
device    CPU, 2 cores
time      13 s of CPU time
expect    test RMSE 0.5134, 2.2 % above the noise (ncf 0.5143, 2.4 %); for comparison 0.9472 with
          biases alone, 1.1002 with the mean rating
"""

import dataclasses
from typing import Any, Literal

import optax

import jdl
from jdl import plots


@dataclasses.dataclass(frozen=True)
class Config:
    """A model of users and items."""

    model: Literal["mf", "ncf"] = "mf"
    ratings: str = ""
    """A MovieLens file: ratings.csv, u.data or ratings.dat; by default ratings are generated."""
    n: int = 200_000
    """Number of ratings to generate."""
    factors: int = 3
    embedding: int = 1
    """Size of the user and item embeddings that enter the perceptron of ncf."""
    decay: float = 5e-6
    """Weight of the L2 penalty on all parameters, biases included."""
    learning_rate: float = 1e-2
    epochs: int = 20
    batch_size: int = 1_024

    def __post_init__(self):
        jdl.check_fields(self, n=1, factors=1, decay=0, learning_rate=0, epochs=1, batch_size=1)


def experiment(config: Config) -> jdl.Experiment:
    if config.ratings:
        data = jdl.data.movielens.load_movielens(config.ratings)
    else:
        data = jdl.data.movielens.synthetic_ratings(config.n)
    sizes: dict[str, Any] = {
        "users": data.info["users"],
        "items": data.info["items"],
        "mean": data.info["mean"],
        "factors": config.factors,
    }
    if config.model == "ncf":
        network = jdl.models.NeuralCollaborativeFiltering(embedding=config.embedding, **sizes)
    else:
        network = jdl.models.MatrixFactorization(**sizes)
    task = jdl.regression(jdl.from_linen(network))
    task = jdl.l2(task, config.decay, where=lambda path, leaf: True)
    steps = data.steps(config.epochs, config.batch_size)
    learning_rate = optax.cosine_decay_schedule(config.learning_rate, steps)
    return jdl.Experiment(
        name="recommender",
        learner=jdl.learner(task, optax.adam(learning_rate)),
        data=data,
        batch_size=config.batch_size,
        epochs=config.epochs,
        best="min loss",
        figures=lambda result: figures(result, data.test(), data.info.get("noise")),
        summary_line=lambda result: summary_line(result, data),
    )


def summary_line(result: jdl.Result, data: jdl.Data) -> str:
    rmse = jdl.data.baselines.rmse
    test = data.test()
    mean = data.info["mean"]
    error = rmse(jdl.predict(result, test, batch_size=8_192), test["y"])
    biases = jdl.data.baselines.rating_biases(data.train, test, mean)
    line = (
        f"test RMSE {error:.4f}; biases alone {biases:.4f}; "
        f"the mean rating {rmse(mean, test['y']):.4f}"
    )
    if "floor" not in data.info:
        return f"{line}; test users and items not in training: {data.info['unknown']['test']}"
    floor = data.info["floor"]
    return f"{line}; noise {floor:.4f}: {100 * (error / floor - 1):.2f} % above it"


def figures(result: jdl.Result, test: dict[str, Any], noise: float | None) -> dict[str, Any]:
    """Predicted against true ratings, and the errors compared with the unpredictable noise."""
    predicted = jdl.predict(result, test, batch_size=8_192)[:, 0]
    true = test["y"][:, 0]
    ratings = plots.predicted_vs_true(true, predicted, "Held-out ratings")
    errors = plots.histogram(predicted - true, "Errors and noise", "predicted - true", normal=noise)
    return {"predictions": plots.figure(ratings, errors)}


if __name__ == "__main__":
    jdl.main(Config, experiment)
