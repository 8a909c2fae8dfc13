"""ListOps: what a network gains from being told the tree.

command   python experiments/listops.py [--model nary|rvnn|lstm]
data      generated: expressions of MAX, MIN, MED and SUM_MOD over digits, 2 to 4 arguments
device    CPU, 2 cores
time      6 min beside another program
expect    98.2 % on fresh expressions as deep as trained, 91.4 % two levels deeper (by depth 1 to 5:
          100.0, 99.1, 95.6, 92.5, 91.4 %); a flat LSTM
          (`--model lstm --learning-rate 3e-3 --steps 4000`) 64.2 and 43.2 %

Depth is uniform from 1 to 3; besides the list that makes the depth, an argument is a list with
probability 0.25. Only the value of the whole is taught. The LSTM reads the same expressions as
words, brackets included. There are 44,400 expressions of depth 1, and training has seen nearly all
of them; of the deeper ones that are measured, practically none.
"""

import dataclasses
from typing import Any, Literal

import numpy as np
import optax

import jdl
from jdl import pictures as draw
from jdl.core.check import check_fields
from jdl.data import listops
from jdl.models.tree import NETWORKS


@dataclasses.dataclass(frozen=True)
class Config:
    """Lists of 2 to `arity` arguments; the network is measured on `fresh` ones of each depth."""

    model: Literal["childsum", "nary", "rvnn", "lstm"] = "childsum"
    features: int = 128
    expressions: int = 600_000
    """Expressions in the training part: with few, a network learns them by heart."""
    depth: int = 3
    """Deepest expression in training; two levels more are measured."""
    arity: int = 4
    batch_size: int = 128
    learning_rate: float = 1e-2
    steps: int = 20_000
    fresh: int = 1_000

    def __post_init__(self):
        check_fields(self, expressions=1, depth=1, steps=1, fresh=1, learning_rate=0, batch_size=1)


def experiment(config: Config) -> jdl.Experiment:
    flat, depth = config.model == "lstm", (1, config.depth)
    samples = lambda groups: listops.samples(groups, arity=(2, config.arity), flat=flat)
    data = samples({"train": (config.expressions, depth, 0), "valid": (2_000, depth, 1)})
    if flat:
        network = jdl.models.TokenLSTM(listops.CLOSE + 1, config.features)
        task = jdl.classification(jdl.from_linen(network), inputs=dict)
    else:
        network = NETWORKS[config.model](config.features, 10, listops.CLOSE, 16, at="roots")
        task = jdl.tasks.tree_classification(jdl.from_linen(network))
    steps, rows = config.steps, len(data["train"]["y"])
    rate = optax.warmup_cosine_decay_schedule(0, config.learning_rate, steps // 20, steps)
    batch_size = max(1, round(config.batch_size * rows / config.expressions))

    def accuracies(result: jdl.Result) -> np.ndarray:
        groups = {d: (config.fresh, (d, d), 100 + d) for d in range(1, config.depth + 3)}
        size, parts = 64 if flat else 4, samples(groups).values()
        return np.array([jdl.evaluate(result, part, batch_size=size)["accuracy"] for part in parts])

    return jdl.Experiment(
        name="listops",
        learner=jdl.learner(task, jdl.optim.clip(optax.adam(rate), 1.0)),
        data=data["train"],
        valid=data["valid"],
        batch_size=batch_size,
        epochs=steps * batch_size / rows,
        pictures=lambda result: pictures(accuracies(result), config),
        remark=lambda result: remark(accuracies(result), config.depth, config.fresh),
    )


def remark(found: np.ndarray, depth: int, n: int) -> str:
    line = f"fresh expressions, depth 1 to {depth} as trained: {found[:depth].mean():.4f} "
    line += f"(n {depth * n}); two levels deeper: {found[-1]:.4f} (n {n}); by depth: "
    return line + ", ".join(f"{value:.3f}" for value in found)


def pictures(found: np.ndarray, config: Config) -> dict[str, Any]:
    curve = {config.model: (range(1, len(found) + 1), 100 * found)}
    accuracy = draw.lines(curve, "ListOps", "depth", "accuracy, %", written="{:.1f}", ylim=(0, 110))
    bounds = draw.spans({"trained on": (0.5, config.depth + 0.5)}), draw.levels({"guessing": 10})
    return {"accuracy over depth": draw.figure(draw.overlay(accuracy, *bounds))}


if __name__ == "__main__":
    jdl.main(Config, experiment)
