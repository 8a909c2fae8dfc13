"""Classify nine speakers from series of 7 to 29 steps, with an ensemble of recurrent networks.

command   python experiments/japanese_vowels.py --data-dir FOLDER [--cell gru]
data      Japanese Vowels: JapaneseVowels_TRAIN.ts and _TEST.ts in FOLDER (or in JDL_DATA_DIR)
device    CPU, 2 cores
time      40 s of CPU time
expect    test accuracy 97.03 ± 0.54 % with LSTMs, 97.84 ± 0.66 % with GRUs, over 5 seeds
"""

import dataclasses
from typing import Any, Literal

import jax
import numpy as np
import optax

import jdl
from jdl import plots

SPEAKERS = 9


@dataclasses.dataclass(frozen=True)
class Config:
    """Speaker classification with recurrent networks."""

    data_dir: str | None = None
    """Folder of the two .ts files; default: JDL_DATA_DIR."""
    cell: Literal["rnn", "lstm", "gru", "mgu"] = "lstm"
    """Simple, LSTM, GRU or minimal gated unit."""
    units: int = 64
    dropout: float = 0.3
    noise: float = 0.3
    """Standard deviation of the noise added to the inputs in training."""
    members: int = 5
    """Networks trained together, each with its own seed."""
    learning_rate: float = 3e-3
    epochs: int = 60
    batch_size: int = 32
    split: int = 0
    """Seed of the split into training and validation set."""

    def __post_init__(self):
        jdl.check_fields(self, dropout=(0, 0.99), noise=0, members=1, learning_rate=0)
        jdl.check_fields(self, epochs=1, batch_size=1)


def experiment(config: Config) -> jdl.Experiment:
    data = jdl.data.load("japanese_vowels", dir=config.data_dir, seed=config.split)
    network = jdl.models.RNN(
        (config.units,),
        outputs=SPEAKERS,
        cell=config.cell,
        bidirectional=True,
        read="mean",
        dropout=config.dropout,
    )

    def add_noise(key: jax.Array, x: jax.Array) -> jax.Array:
        return x + config.noise * jax.random.normal(key, x.shape)

    task = jdl.tasks.sequence_classification(jdl.from_linen(network))
    task = jdl.augment(task, add_noise)
    steps = data.steps(config.epochs, config.batch_size)
    learning_rate = optax.cosine_decay_schedule(config.learning_rate, steps)
    learner = jdl.learner(task, optax.adam(learning_rate))
    return jdl.Experiment(
        name=f"japanese_vowels_{config.cell}",
        learner=jdl.ensemble(learner, config.members),
        data=data,
        batch_size=config.batch_size,
        epochs=config.epochs,
        figures=lambda result: figures(result, data.test()),
        summary_line=lambda result: summary_line(result, data.test()),
    )


def summary_line(result: jdl.Result, test: dict[str, np.ndarray]) -> str:
    accuracy = np.array(jdl.evaluate(result, test)["accuracy"])
    baseline = jdl.data.baselines.most_frequent(test["y"])
    return (
        f"test accuracy {accuracy.mean():.2%} ± {accuracy.std(ddof=1):.2%} "
        f"(n {len(accuracy)} seeds; always the most frequent speaker: {baseline:.1%})"
    )


def figures(result: jdl.Result, test: dict[str, np.ndarray]) -> dict[str, Any]:
    """One utterance of each speaker, and the confusion matrix, averaged over the members."""
    panels = []
    for speaker in range(SPEAKERS):
        row = np.argmax(test["y"] == speaker)
        utterance = test["x"][row, : test["lengths"][row]]
        panels.append(plots.series(utterance, f"Speaker {speaker + 1}"))
    title = "One utterance of each speaker: 12 channels over time"
    outputs = jdl.predict(result, test)
    return {
        "speakers": plots.figure(*panels, columns=3, title=title),
        "mean confusion matrix": plots.confusion_of(outputs, test["y"], range(1, SPEAKERS + 1)),
    }


if __name__ == "__main__":
    jdl.main(Config, experiment)
