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
from jdl.core.check import within


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
        within("dropout", self.dropout, 0, 0.99)
        within("noise", self.noise, 0)
        within("members", self.members, 1)
        within("learning_rate", self.learning_rate, 0)
        within("epochs", self.epochs, 1)
        within("batch_size", self.batch_size, 1)


def experiment(config: Config) -> jdl.Experiment:
    data = jdl.data.load("japanese_vowels", dir=config.data_dir, seed=config.split)
    network = jdl.models.RNN(
        (config.units,), 9, config.cell, bidirectional=True, read="mean", dropout=config.dropout
    )
    task = jdl.tasks.sequence_classification(jdl.from_linen(network))
    task = jdl.augment(task, lambda key, x: x + config.noise * jax.random.normal(key, x.shape))
    steps = config.epochs * len(data.train["x"]) // config.batch_size
    rate = optax.cosine_decay_schedule(config.learning_rate, steps)
    learner = jdl.learner(task, optax.adam(rate))
    return jdl.Experiment(
        name=f"japanese_vowels_{config.cell}",
        learner=jdl.ensemble(learner, config.members),
        data=data,
        batch_size=config.batch_size,
        epochs=config.epochs,
        pictures=lambda result: pictures(result, data),
        remark=lambda result: remark(result, data),
    )


def remark(result: jdl.Result, data: jdl.Data) -> str:
    accuracy = np.array(jdl.evaluate(result, data.test())["accuracy"])
    largest = np.bincount(data.test()["y"]).max() / len(data.test()["y"])
    return (
        f"test accuracy {accuracy.mean():.2%} ± {accuracy.std(ddof=1):.2%} "
        f"(n {len(accuracy)} seeds; always the commonest speaker: {largest:.1%})"
    )


def pictures(result: jdl.Result, data: jdl.Data) -> dict[str, Any]:
    """One utterance of each speaker, and who was taken for whom."""
    from matplotlib.figure import Figure

    test = data.test()
    taken = jdl.predict(result, test).argmax(-1)
    counts = np.zeros((9, 9))
    for member in taken:
        np.add.at(counts, (test["y"], member), 1 / len(taken))
    figure = Figure(figsize=(11, 5), layout="constrained")
    panels: Any = figure.subfigures(1, 2, width_ratios=(1.1, 1))
    left, right = panels
    left.suptitle("One utterance of each speaker: 12 channels over time")
    for speaker, axis in enumerate(left.subplots(3, 3, sharex=True, sharey=True).ravel()):
        first = np.flatnonzero(test["y"] == speaker)[0]
        axis.plot(test["x"][first, : test["lengths"][first]], linewidth=0.9)
        axis.set_title(f"speaker {speaker + 1}", fontsize=9)
    axis = right.subplots()
    image = axis.imshow(np.where(counts > 0, counts, np.nan), cmap="Blues", norm="log")
    for row, column in np.argwhere(counts > 0):
        number = counts[row, column]
        colour = "white" if number > 5 else "black"
        axis.text(column, row, f"{number:.3g}", ha="center", va="center", color=colour, fontsize=8)
    names = [str(speaker + 1) for speaker in range(9)]
    axis.set(xticks=range(9), yticks=range(9), xticklabels=names, yticklabels=names)
    axis.set(xlabel="answer", ylabel="true speaker", title="Test utterances, mean over the seeds")
    right.colorbar(image, ax=axis, shrink=0.8, label="utterances")
    return {"speakers": figure}


if __name__ == "__main__":
    jdl.main(Config, experiment)
