"""Causal dilated convolutions on sequences with a known entropy.

command   python experiments/wavenet.py
data      generated: each symbol is the sum of the symbols 1 and 12 steps before, plus noise, mod 4
device    CPU, 2 cores
time      40 s of CPU time
expect    cross-entropy 0.5886 nats, 0.2 % above the entropy of 0.5875 (guessing: 1.3863)
"""

import dataclasses
from typing import Any

import jax
import numpy as np
import optax

import jdl
from jdl import plots

SYMBOLS = 4
LENGTH = 64


@dataclasses.dataclass(frozen=True)
class Config:
    """WaveNet predicts the next symbol."""

    dilations: tuple[int, ...] = (1, 2, 4, 8)
    """The receptive field is their sum plus one; it must reach back 12 steps."""
    features: int = 32
    certainty: float = 0.85
    """Probability that no noise is added; the other three values share the rest."""
    steps: int = 1_500
    batch_size: int = 32
    learning_rate: float = 4e-3

    def __post_init__(self):
        jdl.check_fields(self, certainty=(0, 1), steps=1, batch_size=1, learning_rate=0)


def experiment(config: Config) -> jdl.Experiment:
    data = sequences(config)
    network = jdl.models.WaveNet(
        config.features, skip=64, dilations=config.dilations, outputs=SYMBOLS
    )
    task = jdl.tasks.sequence_labelling(
        jdl.from_linen(network), inputs=lambda batch: jax.nn.one_hot(batch["x"], SYMBOLS)
    )
    learning_rate = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    return jdl.Experiment(
        name="wavenet",
        learner=jdl.learner(task, optax.adam(learning_rate)),
        data=data,
        batch_size=config.batch_size,
        epochs=config.steps * config.batch_size / len(data.train["x"]),
        options=jdl.Options(evaluate_every=100),
        figures=lambda result: figures(result, data.test(), config),
        summary_line=lambda result: summary_line(result, data.test(), config),
    )


def sequences(config: Config) -> jdl.Data:
    """Sequences of 64 symbols: 8,000 for training, 200 for validation and 1,000 for testing."""

    def sample(n: int, seed: int) -> dict[str, np.ndarray]:
        noise = noise_distribution(config)
        return jdl.data.synthetic_sequences.autoregressive(n, LENGTH, noise=noise, seed=seed)

    return jdl.data.synthetic.sample_data(sample, (8_000, 200, 1_000))


def noise_distribution(config: Config) -> tuple[float, ...]:
    """The probability of each noise value from 0 to 3; zero is the most probable."""
    return jdl.data.synthetic_sequences.peaked_distribution(config.certainty, SYMBOLS)


def entropy(config: Config) -> float:
    """The lowest cross-entropy that a network can reach, in nats."""
    return jdl.data.synthetic_sequences.entropy(noise_distribution(config))


def loss_by_step(result: jdl.Result, test: dict[str, np.ndarray]) -> np.ndarray:
    """The mean cross-entropy at each step of the test sequences."""
    losses = jdl.tasks.cross_entropy(jdl.predict(result, test), test["y"])
    return np.asarray(losses).mean(0)


def summary_line(result: jdl.Result, test: dict[str, np.ndarray], config: Config) -> str:
    # The first 11 steps have fewer than 12 symbols before them.
    loss = loss_by_step(result, test)[11:].mean()
    lowest = entropy(config)
    return (
        f"cross-entropy from step 12 on {loss:.4f} nats; entropy {lowest:.4f}: "
        f"{loss / lowest - 1:+.1%} (guessing: {np.log(SYMBOLS):.4f})"
    )


def figures(result: jdl.Result, test: dict[str, Any], config: Config) -> dict[str, Any]:
    """The loss of each step, and how much an output depends on earlier inputs."""
    curve = {"WaveNet": (range(1, LENGTH + 1), loss_by_step(result, test))}
    loss = plots.overlay(
        plots.lines(curve, "Loss by position", "symbols seen", "nats", ylim=(0, 1.6)),
        plots.horizontal_lines({"entropy": entropy(config), "guessing": np.log(SYMBOLS)}),
    )
    changes = jdl.receptive_field(result, test, step=40, back=24, symbols=SYMBOLS)
    receptive_field = 1 + sum(config.dilations)
    dependence = plots.overlay(
        plots.bars(
            changes,
            "Change of the logits when one symbol changes",
            "steps before the predicted symbol",
            "mean change",
            places=range(1, 25),
        ),
        plots.shaded_spans({"outside the receptive field": (receptive_field + 0.5, 24.5)}),
    )
    return {"wavenet": plots.figure(loss, dependence)}


if __name__ == "__main__":
    jdl.main(Config, experiment)
