"""Causal dilated convolutions on a sequence whose entropy is known.

command   python experiments/wavenet.py
data      generated: each symbol is the sum of those 1 and 12 steps before it, plus noise, modulo 4
device    CPU, 2 cores
time      40 s of processor time
expect    0.5886 nats where the entropy is 0.5875 (+0.2 %) and guessing costs 1.3863
"""

import dataclasses
from typing import Any

import jax
import numpy as np
import optax

import jdl
from jdl import pictures as draw
from jdl.core.check import check_fields
from jdl.data.generate import parts
from jdl.data.sequences import autoregressive, entropy, mostly
from jdl.models.causal import receptive_field

SYMBOLS = 4


@dataclasses.dataclass(frozen=True)
class Config:
    """WaveNet predicts the next symbol."""

    dilations: tuple[int, ...] = (1, 2, 4, 8)
    """The receptive field is their sum plus one; it must reach back 12 steps."""
    features: int = 32
    certainty: float = 0.85
    """The chance that no noise is added; the other three symbols share the rest."""
    steps: int = 1_500
    batch_size: int = 32
    learning_rate: float = 4e-3

    def __post_init__(self):
        check_fields(self, certainty=(0, 1), steps=1, batch_size=1, learning_rate=0)


def experiment(config: Config) -> jdl.Experiment:
    noise = mostly(config.certainty, SYMBOLS)
    data = parts(lambda n, seed: autoregressive(n, 64, noise=noise, seed=seed), (8_000, 200, 1_000))
    network = jdl.models.WaveNet(config.features, 64, config.dilations, SYMBOLS)
    model = jdl.from_linen(network)
    task = jdl.tasks.sequence_labelling(model, inputs=lambda b: jax.nn.one_hot(b["x"], SYMBOLS))
    rate = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    return jdl.Experiment(
        name="wavenet",
        learner=jdl.learner(task, optax.adam(rate)),
        data=data,
        batch_size=config.batch_size,
        epochs=config.steps * config.batch_size / len(data.train["x"]),
        options=jdl.Options(evaluate_every=100),
        pictures=lambda result: pictures(result, data.test(), config),
        remark=lambda result: remark(by_step(result, data.test()), entropy(noise)),
    )


def by_step(result: jdl.Result, test: dict[str, np.ndarray]) -> np.ndarray:
    """Mean cross-entropy of each step of the test sequences."""
    return np.asarray(jdl.tasks.cross_entropy(jdl.predict(result, test), test["y"])).mean(0)


def remark(losses: np.ndarray, known: float) -> str:
    loss = losses[11:].mean()  # steps 1 to 11 cannot see 12 symbols: the sequence begins there
    said = f"cross-entropy of steps that see 12 symbols {loss:.4f} nats; entropy {known:.4f}"
    return f"{said}: {loss / known - 1:+.1%} (guessing: {np.log(SYMBOLS):.4f})"


def pictures(result: jdl.Result, test: dict[str, Any], config: Config) -> dict[str, Any]:
    """The loss of each step, and how far back an output looks."""
    loss = {"WaveNet": (range(1, 65), by_step(result, test))}
    known = {"entropy": entropy(mostly(config.certainty, SYMBOLS)), "guessing": np.log(SYMBOLS)}
    left = draw.lines(loss, "The twelfth symbol matters", "symbols seen", "nats", ylim=(0, 1.6))
    changes = jdl.reach(result, test, step=40, back=24, symbols=SYMBOLS)
    title, x = "What changing one symbol does to the logits", "steps before the predicted symbol"
    right = draw.bars(changes, title, x, "mean change", places=range(1, 25))
    beyond = draw.spans({"out of reach": (receptive_field(2, config.dilations) + 0.5, 24.5)})
    both = draw.overlay(left, draw.levels(known)), draw.overlay(right, beyond)
    return {"wavenet": draw.figure(*both)}


if __name__ == "__main__":
    jdl.main(Config, experiment)
