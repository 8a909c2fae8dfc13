"""Eight regularisation methods, on 300 handwritten digits with label noise.

command   python experiments/regularisation.py [--split 1]
data      scikit-learn's digits: 300 training examples, a fifth of them with random labels; the
          validation set only for early stopping
device    CPU, 2 cores
time      55 s
expect    test accuracy / loss over the splits 0 to 4, five seeds each: none 0.745 / 1.12,
          plain L1 0.839 / 0.68, proximal L1 0.815 / 0.76 (81 % of weights are zero),
          L2 0.822 / 0.64, decoupled decay 0.825 / 0.68, dropout 0.844 / 0.60,
          label smoothing 0.753 / 0.86, mixup 0.769 / 0.81, early stopping 0.849 / 0.62

The strengths were tuned on the validation set of split 9. "plain L1" uses the subgradient of the
penalty, "proximal L1" soft thresholding after each step; only the latter gives exact zeros.
"""

import dataclasses
from typing import Any, Literal, get_args

import numpy as np
import optax

import jdl
from jdl import plots

LEARNING_RATE = 2e-3
Method = Literal[
    "none",
    "plain L1",
    "proximal L1",
    "L2",
    "decoupled decay",
    "dropout",
    "label smoothing",
    "mixup",
    "early stopping",
]


@dataclasses.dataclass(frozen=True)
class Config:
    """Eight regularisation methods on few digits; the share `wrong` has random labels."""

    split: int = 0
    examples: int = 300
    wrong: float = 0.2
    hidden: int = 128
    seeds: int = 5
    steps: int = 1_500
    methods: tuple[Method, ...] = get_args(Method)
    """The methods to compare; "none" is always included."""

    def __post_init__(self):
        jdl.check_fields(self, examples=64, wrong=(0, 1), seeds=1, steps=1)


def experiment(config: Config) -> jdl.Experiment:
    data = jdl.data.load("digits", seed=config.split)
    train = {name: value[: config.examples] for name, value in data.train.items()}
    train = jdl.data.synthetic.with_label_noise(train, config.wrong, classes=10, seed=config.split)
    learners = method_learners(config.hidden, data.valid)
    compared = list(dict.fromkeys(("none", *config.methods)))
    learner = jdl.sweep(lambda method: learners[method], {"method": compared}, config.seeds)

    def scores(result: jdl.Result) -> dict[str, dict[str, Any]]:
        """The test metrics of each method, and the share of its weights that are zero."""
        rows = jdl.group_by(learner.points, "method", jdl.evaluate(result, data.test()))
        for method, row in rows.items():
            zeros = jdl.optim.sparsity(result.state.params[f"method={method}"], axes=1)
            row["zeros"] = np.asarray(zeros)
        return rows

    return jdl.Experiment(
        name="regularisation",
        learner=learner,
        data=data._replace(train=train),
        batch_size=64,
        epochs=config.steps * 64 / config.examples,
        options=jdl.Options(log_every=100),
        figures=lambda result: {"methods": plots.strips(scores(result), compared="none")},
        summary_line=lambda result: jdl.seed_table(scores(result), "method"),
    )


def method_learners(hidden: int, valid: Any) -> dict[str, jdl.Learner]:
    """A learner for each method."""
    network = jdl.models.MLP((hidden,), outputs=10)
    task = jdl.classification(jdl.from_linen(network))
    dropout_task = jdl.classification(jdl.from_linen(network.clone(dropout=0.8)))
    adam = optax.adam(LEARNING_RATE)
    proximal = optax.chain(adam, jdl.optim.soft_threshold(LEARNING_RATE * 0.3))
    decoupled = optax.adamw(LEARNING_RATE, weight_decay=1, mask=jdl.optim.decay_mask)
    return {
        "none": jdl.learner(task, adam),
        "plain L1": jdl.learner(jdl.l1(task, 3e-3), adam),
        "proximal L1": jdl.learner(task, proximal),
        "L2": jdl.learner(jdl.l2(task, 3e-3), adam),
        "decoupled decay": jdl.learner(task, decoupled),
        "dropout": jdl.learner(dropout_task, adam),
        "label smoothing": jdl.learner(jdl.label_smoothing(task, 0.1), adam),
        "mixup": jdl.learner(jdl.mixup(task, 0.3), adam),
        "early stopping": jdl.keep_best(jdl.learner(task, adam), valid, every=20),
    }


if __name__ == "__main__":
    jdl.main(Config, experiment)
