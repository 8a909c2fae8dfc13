"""Ratings of items by users: matrix factorisation, or neural collaborative filtering.

command   python experiments/recommender.py [--model ncf] [--ratings FILE]
data      generated: 200,000 ratings of 500 items by 1,000 users, rank 3; or a MovieLens file
device    CPU, 2 cores
time      13 s of CPU time
expect    test RMSE 0.5134, 2.2 % above the noise; biases alone 0.9472, the mean rating 1.1002
"""

import dataclasses
from typing import Any, Literal

import numpy as np
import optax

import jdl
from jdl.core.check import fields_within
from jdl.data import ratings


@dataclasses.dataclass(frozen=True)
class Config:
    """Factors of users and items."""

    model: Literal["mf", "ncf"] = "mf"
    ratings: str = ""
    """A file of MovieLens: ratings.csv, u.data or ratings.dat; without it they are generated."""
    n: int = 200_000
    """Ratings to generate."""
    factors: int = 3
    embedding: int = 2
    """Numbers for a user and for an item that the perceptron of ncf is given."""
    decay: float = 5e-6
    """Weight of the penalty on all squared weights, biases too."""
    learning_rate: float = 1e-2
    epochs: int = 20
    batch_size: int = 1_024

    def __post_init__(self):
        fields_within(self, factors=1, embedding=1, decay=0, learning_rate=0, epochs=1)


def everything(path: str, leaf: Any) -> bool:
    return True


def experiment(config: Config) -> jdl.Experiment:
    data = ratings.read(config.ratings) if config.ratings else ratings.generate(config.n)
    sizes = {name: data.info[name] for name in ("users", "items", "mean")}
    if config.model == "mf":
        network = jdl.models.MatrixFactorization(factors=config.factors, **sizes)
    else:
        network = jdl.models.NeuralCollaborativeFiltering(
            factors=config.factors, embedding=config.embedding, **sizes
        )
    task = jdl.l2(jdl.regression(jdl.from_linen(network)), config.decay, where=everything)
    steps = config.epochs * len(data.train["y"]) // config.batch_size
    rate = optax.cosine_decay_schedule(config.learning_rate, steps)
    return jdl.Experiment(
        name="recommender",
        learner=jdl.learner(task, optax.adam(rate)),
        data=data,
        batch_size=config.batch_size,
        epochs=config.epochs,
        best="min loss",
        pictures=lambda result: pictures(result, data),
        remark=lambda result: remark(result, data),
    )


def biases_alone(train: dict[str, np.ndarray], test: dict[str, np.ndarray], mean: float) -> float:
    """RMSE of mu + b_u + b_i, fitted by alternating damped means."""
    names = [np.zeros(train["x"][:, side].max() + 1) for side in (0, 1)]
    rest = train["y"][:, 0] - mean
    for _ in range(20):
        for side, bias in enumerate(names):
            other = names[1 - side][train["x"][:, 1 - side]]
            sums = np.bincount(train["x"][:, side], rest - other, len(bias))
            bias[:] = sums / (np.bincount(train["x"][:, side], minlength=len(bias)) + 5)
            bias[0] = 0
    return rmse(mean + sum(b[test["x"][:, side]] for side, b in enumerate(names)), test["y"][:, 0])


def rmse(said: Any, true: np.ndarray) -> float:
    return float(np.sqrt(np.mean((said - true) ** 2)))


def remark(result: jdl.Result, data: jdl.Data) -> str:
    test = data.test()
    said = rmse(jdl.predict(result, test, batch_size=8_192), test["y"])
    mean = rmse(data.info["mean"], test["y"])
    alone = biases_alone(data.train, test, data.info["mean"])
    line = f"test RMSE {said:.4f}; biases alone {alone:.4f}; the mean rating {mean:.4f}"
    if "floor" not in data.info:
        return f"{line}; users and items that training never saw: {data.info['unknown']['test']}"
    floor = data.info["floor"]
    return f"{line}; noise {floor:.4f}: {100 * (said / floor - 1):.2f} % above it"


def pictures(result: jdl.Result, data: jdl.Data) -> dict[str, Any]:
    """Ratings against predictions, and the errors beside the noise that nobody can predict."""
    from matplotlib.figure import Figure

    test = data.test()
    said, true = jdl.predict(result, test, batch_size=8_192)[:, 0], test["y"][:, 0]
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    ends = (np.quantile(true, 0.001), np.quantile(true, 0.999))
    image = left.hexbin(
        said, true, gridsize=45, extent=ends * 2, cmap="Blues", mincnt=1, bins="log"
    )
    left.plot(ends, ends, color="0.3", linewidth=1)
    left.set(xlabel="predicted rating", ylabel="true rating", title="Held-out ratings")
    figure.colorbar(image, ax=left, label="ratings")
    right.hist((said - true), bins=60, density=True, color="#56B4E9", label="predicted − true")
    right.set(xlabel="error", ylabel="density", title="Errors")
    if "noise" in data.info:
        at, width = np.linspace(-4, 4, 201) * data.info["noise"], data.info["noise"]
        curve = np.exp(-((at / width) ** 2) / 2) / (width * np.sqrt(2 * np.pi))
        right.plot(at, curve, color="0.2", label="the noise alone")
    right.legend(frameon=False)
    return {"predictions": figure}


if __name__ == "__main__":
    jdl.main(Config, experiment)
