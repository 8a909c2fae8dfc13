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
from jdl.core.check import within
from jdl.data.sequences import autoregressive, entropy
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
        within("certainty", self.certainty, 0, 1)
        within("steps", self.steps, 1)
        within("batch_size", self.batch_size, 1)
        within("learning_rate", self.learning_rate, 0)

    @property
    def noise(self) -> tuple[float, ...]:
        """What is added to a symbol."""
        rest = (1 - self.certainty) / (SYMBOLS - 1)
        return (self.certainty, *[rest] * (SYMBOLS - 1))


def inputs(batch: Any) -> jax.Array:
    return jax.nn.one_hot(batch["x"], SYMBOLS)


def experiment(config: Config) -> jdl.Experiment:
    train, valid = (
        autoregressive(n, 64, noise=config.noise, seed=seed) for seed, n in enumerate((8_000, 200))
    )
    network = jdl.models.WaveNet(config.features, 64, config.dilations, SYMBOLS)
    task = jdl.tasks.sequence_labelling(jdl.from_linen(network), inputs=inputs)
    rate = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    return jdl.Experiment(
        name="wavenet",
        learner=jdl.learner(task, optax.adam(rate)),
        data=jdl.Data(train, valid, lambda: test(config), {"name": "autoregressive"}),
        batch_size=config.batch_size,
        epochs=config.steps * config.batch_size / len(train["x"]),
        options=jdl.Options(evaluate_every=100),
        pictures=lambda result: pictures(result, config),
        remark=lambda result: remark(result, config),
    )


def test(config: Config) -> dict[str, np.ndarray]:
    return autoregressive(1_000, 64, noise=config.noise, seed=2)


def by_step(result: jdl.Result, config: Config) -> np.ndarray:
    """Mean cross-entropy of each step of the test sequences."""
    data = test(config)
    return np.asarray(jdl.tasks.cross_entropy(jdl.predict(result, data), data["y"])).mean(0)


def remark(result: jdl.Result, config: Config) -> str:
    # Steps 1 to 11 cannot see 12 symbols: the sequence begins there.
    loss, known = by_step(result, config)[11:].mean(), entropy(config.noise)
    return (
        f"cross-entropy of steps that see 12 symbols {loss:.4f} nats; entropy {known:.4f}: "
        f"{loss / known - 1:+.1%} (guessing: {np.log(SYMBOLS):.4f})"
    )


def reach(result: jdl.Result, config: Config) -> list[float]:
    """How much the logits of step 40 change with the symbol 1, 2, ... steps before the next."""
    data = {name: value[:200] for name, value in test(config).items()}
    before, changes = jdl.predict(result, data), []
    for back in range(24):
        other = data["x"].copy()
        other[:, 40 - back] = (other[:, 40 - back] + 1) % SYMBOLS
        apart = jdl.predict(result, {**data, "x": other}) - before
        changes.append(float(np.abs(apart[:, 40]).mean()))
    return changes


def pictures(result: jdl.Result, config: Config) -> dict[str, Any]:
    """The loss of each step, and how far back an output looks."""
    from matplotlib.figure import Figure

    field = receptive_field(2, config.dilations)
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(np.arange(1, 65), by_step(result, config), label="WaveNet")
    left.axhline(entropy(config.noise), color="black", linestyle="--", label="entropy")
    left.axhline(np.log(SYMBOLS), color="0.6", linestyle=":", label="guessing")
    left.set(xlabel="symbols seen", ylabel="cross-entropy (nats)", ylim=(0, 1.6))
    left.set_title("The twelfth symbol makes the difference")
    left.legend(frameon=False, loc="center right")
    changes = reach(result, config)
    right.bar(np.arange(1, 25), changes, color="tab:blue")
    right.axvspan(field + 0.5, 24.5, color="0.9", label=f"beyond the field of {field} steps")
    right.set(xlabel="steps before the predicted symbol", ylabel="mean change of the logits")
    right.set(xlim=(0.5, 24.5), ylim=(0, 1.25 * max(changes)))
    right.set_title("What changing one symbol does")
    right.legend(frameon=False, loc="upper center")
    return {"wavenet": figure}


if __name__ == "__main__":
    jdl.main(Config, experiment)
