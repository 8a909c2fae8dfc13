"""ListOps: networks that see the tree of an expression against one that reads its tokens.

command   python experiments/listops.py [--model nary|rvnn|lstm]
data      generated: expressions of MAX, MIN, MED and SUM_MOD over digits, 2 to 4 arguments
device    CPU, 2 cores
time      6 min on a busy machine
expect    test accuracy 98.2 % at the depths of training, 91.4 % two levels deeper (by depth 1 to 5:
          100.0, 99.1, 95.6, 92.5, 91.4 %); an LSTM over the tokens
          (`--model lstm --learning-rate 3e-3 --steps 4000`) 64.2 and 43.2 %

Depth is uniform from 1 to 3; besides the list that sets the depth, an argument is a list with
probability 0.25. Only the value of the whole expression is a label. The LSTM reads the same
expressions as tokens, brackets included. Training contains nearly all 44,400 expressions of depth
1, and practically none of the deeper test expressions.
"""

import dataclasses
from typing import Any, Literal

import numpy as np
import optax

import jdl
from jdl import plots

TREE_NETWORKS = {
    "childsum": jdl.models.ChildSumTreeLSTM,
    "nary": jdl.models.NaryTreeLSTM,
    "rvnn": jdl.models.RvNN,
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Lists of 2 to `arity` arguments; `fresh` of each depth are generated for testing."""

    model: Literal["childsum", "nary", "rvnn", "lstm"] = "childsum"
    features: int = 128
    expressions: int = 600_000
    """Size of the training set; with a small one, the network memorises it."""
    depth: int = 3
    """Largest depth in training; the test goes two levels deeper."""
    arity: int = 4
    batch_size: int = 128
    learning_rate: float = 1e-2
    steps: int = 20_000
    fresh: int = 1_000

    def __post_init__(self):
        jdl.check_fields(
            self, expressions=1, depth=1, steps=1, fresh=1, learning_rate=0, batch_size=1
        )


def experiment(config: Config) -> jdl.Experiment:
    data = expressions(
        config,
        train=(config.expressions, (1, config.depth), 0),
        valid=(2_000, (1, config.depth), 1),
    )
    if config.model == "lstm":
        network = jdl.models.TokenLSTM(jdl.data.listops.CLOSE_TOKEN + 1, config.features)
        task = jdl.classification(jdl.from_linen(network), inputs=dict)
    else:
        network = TREE_NETWORKS[config.model](
            features=config.features,
            outputs=10,
            vocabulary=jdl.data.listops.CLOSE_TOKEN,
            embedding=16,
            at="roots",
        )
        task = jdl.tasks.tree_classification(jdl.from_linen(network))

    learning_rate = jdl.optim.schedule(
        "warmup_cosine", config.learning_rate, config.steps, warmup=0.05
    )
    # Several trees are packed into one example: a batch holds about `batch_size` expressions.
    rows = len(data["train"]["y"])
    batch_size = max(1, round(config.batch_size * rows / config.expressions))
    return jdl.Experiment(
        name="listops",
        learner=jdl.learner(task, jdl.optim.clip(optax.adam(learning_rate), 1.0)),
        data=data["train"],
        valid=data["valid"],
        batch_size=batch_size,
        epochs=config.steps * batch_size / rows,
        figures=lambda result: figures(accuracy_by_depth(result, config), config),
        summary_line=lambda result: summary_line(accuracy_by_depth(result, config), config),
    )


def expressions(config: Config, **groups: tuple[int, tuple[int, int], int]) -> dict[str, Any]:
    """Random expressions by group, each given as (count, (smallest, largest depth), seed)."""
    flat = config.model == "lstm"
    return jdl.data.listops.sample_groups(groups, arity=(2, config.arity), flat=flat)


def accuracy_by_depth(result: jdl.Result, config: Config) -> np.ndarray:
    """The accuracy on new expressions of depth 1, 2, ... up to two levels deeper than training."""
    depths = range(1, config.depth + 3)
    groups = {f"depth {d}": (config.fresh, (d, d), 100 + d) for d in depths}
    batch_size = 64 if config.model == "lstm" else 4
    metrics = [
        jdl.evaluate(result, group, batch_size=batch_size)
        for group in expressions(config, **groups).values()
    ]
    return np.array([row["accuracy"] for row in metrics])


def summary_line(accuracy: np.ndarray, config: Config) -> str:
    depth = config.depth
    by_depth = ", ".join(f"{value:.3f}" for value in accuracy)
    return (
        f"accuracy on new expressions, depth 1 to {depth} as in training: "
        f"{accuracy[:depth].mean():.4f} "
        f"(n {depth * config.fresh}); two levels deeper: {accuracy[-1]:.4f} (n {config.fresh}); "
        f"by depth: {by_depth}"
    )


def figures(accuracy: np.ndarray, config: Config) -> dict[str, Any]:
    curve = {config.model: (range(1, len(accuracy) + 1), 100 * accuracy)}
    panel = plots.overlay(
        plots.lines(curve, "ListOps", "depth", "accuracy, %", written="{:.1f}", ylim=(0, 110)),
        plots.shaded_spans({"depths of training": (0.5, config.depth + 0.5)}),
        plots.horizontal_lines({"guessing": 10}),
    )
    return {"accuracy over depth": plots.figure(panel)}


if __name__ == "__main__":
    jdl.main(Config, experiment)
