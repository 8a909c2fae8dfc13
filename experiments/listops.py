"""ListOps: what a network gains from being told the tree.

command   python experiments/listops.py [--model nary|rvnn|lstm]
data      generated: expressions of MAX, MIN, MED and SUM_MOD over digits, 2 to 4 arguments
device    CPU, 2 cores
time      not measured in this form
expect    not measured in this form; with depth up to 4, up to 5 arguments and 4,000 steps 80.1 %,
          and 69.8 % two levels deeper, where 98 and 90 % are the aim

Depth is uniform from 1 to 3; besides the list that makes the depth, an argument is a list with
probability 0.25. Only the value of the whole is taught. The LSTM reads the same expressions as
words, brackets included. There are 44,400 expressions of depth 1, and training has seen nearly all
of them; of the deeper ones that are measured, practically none.
"""

import dataclasses
from typing import Any, Literal

import jax
import numpy as np
import optax
from flax import linen as nn

import jdl
from jdl.core.check import within
from jdl.data import forest, listops
from jdl.data.trees import Tree


@dataclasses.dataclass(frozen=True)
class Config:
    """ListOps, by a tree network or a flat LSTM."""

    model: Literal["childsum", "nary", "rvnn", "lstm"] = "childsum"
    features: int = 128
    expressions: int = 600_000
    """Expressions in the training part: with few, a network learns them by heart."""
    depth: int = 3
    """Deepest expression in training; two levels more are measured."""
    arity: int = 4
    """Most arguments of a list; the fewest are two."""
    batch_size: int = 128
    """Expressions in a step, on average."""
    learning_rate: float = 1e-2
    steps: int = 20_000
    fresh: int = 1_000
    """Expressions of each depth that the trained network is measured on."""

    def __post_init__(self):
        for name in ("features", "expressions", "depth", "steps", "fresh"):
            within(name, getattr(self, name), 1)
        within("arity", self.arity, 2)
        within("learning_rate", self.learning_rate, 0)


TREES = {
    "childsum": jdl.models.ChildSumTreeLSTM,
    "nary": jdl.models.NaryTreeLSTM,
    "rvnn": jdl.models.RvNN,
}
ROW = 16
"""Expressions packed into one row of arrays."""


class FlatLSTM(nn.Module):
    """The words in a row, and the class from the state after the last."""

    features: int

    @nn.compact
    def __call__(self, inputs: dict[str, jax.Array]) -> jax.Array:
        x = nn.Embed(listops.CLOSE + 1, 16, name="embed")(inputs["x"])
        run = nn.RNN(nn.OptimizedLSTMCell(self.features), return_carry=True, name="lstm")
        (_, last), _ = run(x, seq_lengths=inputs["lengths"])
        return nn.Dense(10, name="output")(last)


def expressions(config: Config, n: int, depth: tuple[int, int], seed: int) -> list[Tree]:
    return listops.generate(n, depth=depth, arity=(2, config.arity), seed=seed)


def laid(config: Config, groups: dict[Any, list[Tree]]) -> dict[Any, dict[str, np.ndarray]]:
    """Groups of expressions with their values, in arrays of one shape, as the model takes them."""
    whole = [tree for made in groups.values() for tree in made]
    if config.model == "lstm":
        length = int(listops.tokens(whole)["lengths"].max())
        return {
            name: {**listops.tokens(made, length), "y": listops.evaluate(made)}
            for name, made in groups.items()
        }
    shape = forest.shape_of(whole, per_row=ROW)
    return {name: forest.pack(made, listops.evaluate(made), shape) for name, made in groups.items()}


def experiment(config: Config) -> jdl.Experiment:
    sizes = {"train": config.expressions, "valid": 2_000}
    data = laid(config, {
        name: expressions(config, n, (1, config.depth), seed)
        for seed, (name, n) in enumerate(sizes.items())
    })  # fmt: skip
    if config.model == "lstm":
        task = jdl.classification(jdl.from_linen(FlatLSTM(config.features)), inputs=dict)
    else:
        network = TREES[config.model](
            config.features, 10, vocabulary=listops.CLOSE, embedding=16, at="roots"
        )
        task = jdl.tasks.tree_classification(jdl.from_linen(network))
    rate = optax.warmup_cosine_decay_schedule(
        0, config.learning_rate, config.steps // 20, config.steps
    )
    rows = len(data["train"]["y"])
    batch_size = max(1, round(config.batch_size * rows / config.expressions))
    return jdl.Experiment(
        name="listops",
        learner=jdl.learner(task, optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))),
        data=data["train"],
        valid=data["valid"],
        batch_size=batch_size,
        epochs=config.steps * batch_size / rows,
        pictures=lambda result: pictures(accuracies(result, config), config),
        remark=lambda result: remark(accuracies(result, config), config),
    )


def accuracies(result: jdl.Result, config: Config) -> np.ndarray:
    """The accuracy on fresh expressions of depth 1, 2, ..., two levels deeper than trained."""
    depths = range(1, config.depth + 3)
    fresh = {d: expressions(config, config.fresh, (d, d), 100 + d) for d in depths}
    parts = laid(config, fresh).values()
    size = 64 if config.model == "lstm" else 4
    return np.array([jdl.evaluate(result, part, batch_size=size)["accuracy"] for part in parts])


def remark(found: np.ndarray, config: Config) -> str:
    trained = found[: config.depth].mean()
    return (
        f"fresh expressions, depth 1 to {config.depth} as trained: {trained:.4f} "
        f"(n {config.depth * config.fresh}); two levels deeper: {found[-1]:.4f} "
        f"(n {config.fresh}); by depth: {', '.join(f'{value:.3f}' for value in found)}"
    )


def pictures(found: np.ndarray, config: Config) -> dict[str, Any]:
    from matplotlib.figure import Figure

    depths = np.arange(1, len(found) + 1)
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axis = figure.subplots()
    axis.axvspan(0.5, config.depth + 0.5, color="0.93", label="depths trained on")
    axis.axhline(10, color="0.5", linestyle=":", label="guessing")
    axis.plot(depths, 100 * found, marker="o", color="#0072B2", label=config.model)
    for depth, value in zip(depths, 100 * found, strict=True):
        below = (0, -14) if value > 50 else (0, 8)
        axis.annotate(
            f"{value:.1f}", (depth, value), below, textcoords="offset points", ha="center"
        )
    axis.set(xlim=(0.5, len(found) + 0.5), ylim=(0, 103), xticks=depths)
    axis.set(xlabel="depth of the expression", ylabel="accuracy, %", title="ListOps by depth")
    axis.legend(loc="lower left")
    return {"accuracy over depth": figure}


if __name__ == "__main__":
    jdl.main(Config, experiment)
