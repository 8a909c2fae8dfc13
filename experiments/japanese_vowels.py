"""Which of nine men said it: series of 7 to 29 steps, by five recurrent networks at once.

command   python experiments/japanese_vowels.py --data-dir FOLDER [--cell gru]
data      Japanese Vowels: JapaneseVowels_TRAIN.ts and _TEST.ts in FOLDER (or in JDL_DATA_DIR)
device    CPU, 2 cores
time      40 s of processor time
expect    test accuracy 97.03 ± 0.54 % with LSTMs, 97.84 ± 0.66 % with GRUs, over 5 seeds
"""

import dataclasses
from typing import Any, Literal

import jax
import numpy as np
import optax

import jdl
from jdl import pictures as draw
from jdl.core.check import check_fields
from jdl.data.baselines import most_frequent


@dataclasses.dataclass(frozen=True)
class Config:
    """Speakers by their vowels."""

    data_dir: str | None = None
    """Folder of the two .ts files; JDL_DATA_DIR where left out."""
    cell: Literal["rnn", "lstm", "gru", "mgu"] = "lstm"
    """Simple, LSTM, GRU or minimal gated unit."""
    units: int = 64
    dropout: float = 0.3
    noise: float = 0.3
    """Standard deviation of the noise that is added to the inputs in training."""
    members: int = 5
    """Networks trained side by side, each from its own seed."""
    learning_rate: float = 3e-3
    epochs: int = 60
    batch_size: int = 32
    split: int = 0
    """Seed of the split into training and validation part."""

    def __post_init__(self):
        check_fields(self, dropout=(0, 0.99), noise=0, members=1, learning_rate=0)
        check_fields(self, epochs=1, batch_size=1)


def experiment(config: Config) -> jdl.Experiment:
    data = jdl.data.load("japanese_vowels", dir=config.data_dir, seed=config.split)
    network = jdl.models.RNN(
        (config.units,), 9, config.cell, bidirectional=True, read="mean", dropout=config.dropout
    )
    task = jdl.tasks.sequence_classification(jdl.from_linen(network))
    task = jdl.augment(task, lambda key, x: x + config.noise * jax.random.normal(key, x.shape))
    steps = data.steps(config.epochs, config.batch_size)
    rate = optax.cosine_decay_schedule(config.learning_rate, steps)
    return jdl.Experiment(
        name=f"japanese_vowels_{config.cell}",
        learner=jdl.ensemble(jdl.learner(task, optax.adam(rate)), config.members),
        data=data,
        batch_size=config.batch_size,
        epochs=config.epochs,
        pictures=lambda result: pictures(result, data.test()),
        remark=lambda result: remark(result, data.test()),
    )


def remark(result: jdl.Result, test: dict[str, np.ndarray]) -> str:
    accuracy = np.array(jdl.evaluate(result, test)["accuracy"])
    found = f"test accuracy {accuracy.mean():.2%} ± {accuracy.std(ddof=1):.2%}"
    chance = f"always the commonest speaker: {most_frequent(test['y']):.1%}"
    return f"{found} (n {len(accuracy)} seeds; {chance})"


def pictures(result: jdl.Result, test: dict[str, np.ndarray]) -> dict[str, Any]:
    """One utterance of each speaker, and who was taken for whom, on average over the members."""
    panels, title = [], "One utterance of each speaker: 12 channels over time"
    for speaker in range(9):
        row = np.argmax(test["y"] == speaker)
        panels.append(draw.series(test["x"][row, : test["lengths"][row]], f"Speaker {speaker + 1}"))
    return {
        "speakers": draw.figure(*panels, columns=3, title=title),
        "taken for": draw.taken_for(jdl.predict(result, test), test["y"], range(1, 10)),
    }


if __name__ == "__main__":
    jdl.main(Config, experiment)
