"""Eight ways against over-fitting, on 300 handwritten digits of which a fifth is labelled wrongly.

command   python experiments/regularisation.py [--split 1]
data      embedded digits: 300 of the training part, the validation part for early stopping only
device    CPU, 2 cores
time      55 s
expect    test accuracy / loss over the splits 0 to 4, five seeds each: none 0.745 / 1.12,
          plain L1 0.839 / 0.68, proximal L1 0.815 / 0.76 (81 % of weights are zero),
          L2 0.822 / 0.64, decoupled decay 0.825 / 0.68, dropout 0.844 / 0.60,
          label smoothing 0.753 / 0.86, mixup 0.769 / 0.81, early stopping 0.849 / 0.62

Strengths were chosen by the validation part of split 9. "plain L1" is the penalty's subgradient,
"proximal L1" soft thresholding after the step: only this one makes exact zeros.
"""

import dataclasses
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jdl
from jdl.core import tree
from jdl.core.check import fields_within
from jdl.optim import decay_mask, soft_threshold

RATE = 2e-3
Method = Literal[
    "none", "plain L1", "proximal L1", "L2", "decoupled decay",
    "dropout", "label smoothing", "mixup", "early stopping",
]  # fmt: skip
METHODS = get_args(Method)


@dataclasses.dataclass(frozen=True)
class Config:
    """One network on few digits with wrong labels among them, regularised in eight ways."""

    split: int = 0
    examples: int = 300
    """Training examples."""
    wrong: float = 0.2
    """Share of them whose label is replaced by one drawn at random."""
    hidden: int = 128
    seeds: int = 5
    steps: int = 1_500
    methods: tuple[Method, ...] = METHODS
    """Which of them to compare; "none" is always among them."""

    def __post_init__(self):
        fields_within(self, examples=64, wrong=(0, 1), seeds=1, steps=1)


def methods(network: Any, valid: Any) -> dict[str, jdl.Learner]:
    """Each regularisation as a learner."""
    adam = optax.adam(RATE)
    task = jdl.classification(jdl.from_linen(network))
    dropped = jdl.classification(jdl.from_linen(network.clone(dropout=0.8)))
    return {
        "none": jdl.learner(task, adam),
        "plain L1": jdl.learner(jdl.l1(task, 3e-3), adam),
        "proximal L1": jdl.learner(task, optax.chain(adam, soft_threshold(RATE * 0.3))),
        "L2": jdl.learner(jdl.l2(task, 3e-3), adam),
        "decoupled decay": jdl.learner(task, optax.adamw(RATE, weight_decay=1, mask=decay_mask)),
        "dropout": jdl.learner(dropped, adam),
        "label smoothing": jdl.learner(jdl.label_smoothing(task, 0.1), adam),
        "mixup": jdl.learner(jdl.mixup(task, 0.3), adam),
        "early stopping": keep_best(jdl.learner(task, adam), valid, every=20),
    }


def keep_best(inner: jdl.Learner, valid: Any, every: int) -> jdl.Learner:
    """Evaluate and predict with the weights that had the lowest validation loss."""

    def init(key: Any, batch: Any) -> jdl.TrainState:
        train = inner.init(key, batch)
        return train.replace(extra={"best": {"params": train.params, "loss": jnp.float32(jnp.inf)}})

    def step(train: jdl.TrainState, batch: Any, *, axis: Any = None) -> Any:
        best = train.extra["best"]
        after, metrics = inner.step(train.replace(extra={}), batch, axis=axis)
        loss = jax.lax.cond(
            after.step % every == 0,
            lambda: inner.evaluate(after, valid)["loss"].value,
            lambda: jnp.float32(jnp.inf),
        )
        seen = {"params": after.params, "loss": loss}
        return after.replace(extra={"best": tree.where(loss < best["loss"], seen, best)}), metrics

    def at_best(train: jdl.TrainState) -> jdl.TrainState:
        return train.replace(params=train.extra["best"]["params"], extra={})

    def evaluate(train: jdl.TrainState, batch: Any) -> Any:
        return inner.evaluate(at_best(train), batch)

    return jdl.Learner(init, step, evaluate, lambda t, batch: inner.predict(at_best(t), batch))


def experiment(config: Config) -> jdl.Experiment:
    data = jdl.data.load("digits", seed=config.split)
    few = {name: value[: config.examples] for name, value in data.train.items()}
    draw = np.random.default_rng(config.split)
    drawn = draw.integers(0, 10, config.examples, dtype=np.int32)
    few["y"] = np.where(draw.random(config.examples) < config.wrong, drawn, few["y"])
    choice = methods(jdl.models.MLP((config.hidden,), outputs=10), data.valid)
    grid = {"method": compared(config)}
    return jdl.Experiment(
        name="regularisation",
        learner=jdl.sweep(lambda method: choice[method], grid, config.seeds),
        data=data._replace(train=few),
        batch_size=64,
        epochs=config.steps * 64 / config.examples,
        options=jdl.Options(log_every=100),
        pictures=lambda result: pictures(result, config),
        remark=lambda result: remark(result, config),
    )


def compared(config: Config) -> list[str]:
    """The methods in the order of the learner's members."""
    return list(dict.fromkeys(("none", *config.methods)))


def scores(result: jdl.Result, config: Config) -> dict[str, dict[str, np.ndarray]]:
    """Test accuracy, test loss and share of weights that are zero, [seeds] for each method."""
    counts = jdl.evaluate(result, jdl.data.load("digits", seed=config.split).test())
    found = {name: np.array(counts[name]) for name in ("accuracy", "loss")}
    split = {name: value.reshape(-1, config.seeds) for name, value in found.items()}
    answers = {}
    for row, method in enumerate(compared(config)):
        params = tree.flatten(result.train.params[f"method={method}"])
        kernels = [
            w.reshape(config.seeds, -1) for path, w in params.items() if path.endswith("kernel")
        ]
        zero = {"zeros": (np.concatenate(kernels, 1) == 0).mean(1)}
        answers[method] = {name: value[row] for name, value in split.items()} | zero
    return answers


def remark(result: jdl.Result, config: Config) -> str:
    lines = [f"{'method':<16}  test accuracy      test loss          weights that are zero"]
    for method, found in scores(result, config).items():
        cells = [f"{found[name].mean():.4f} ± {found[name].std():.4f}" for name in found]
        lines.append(f"{method:<16}  " + "    ".join(cells))
    return "\n".join(lines)


def pictures(result: jdl.Result, config: Config) -> dict[str, Any]:
    """Accuracy and loss of every seed, by method; the band is the net without regularisation."""
    from matplotlib.figure import Figure

    found = scores(result, config)
    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, name in zip(axes, ("accuracy", "loss"), strict=True):
        plain = found["none"][name]
        low, high = plain.mean() - plain.std(), plain.mean() + plain.std()
        axis.axvspan(low, high, color="0.88", lw=0)
        for row, values in enumerate(found.values()):
            axis.plot(values[name], [row] * config.seeds, ".", color="0.6", ms=5)
            axis.plot(values[name].mean(), row, "D", color="tab:blue", ms=6)
        axis.set(xlabel=f"test {name}", yticks=range(len(found)), yticklabels=[*found])
        axis.grid(axis="x", color="0.9")
    axes[0].invert_yaxis()
    figure.suptitle(
        f"{config.examples} examples, {config.wrong:.0%} of labels drawn at random; "
        f"blue: mean of {config.seeds} seeds"
    )
    return {"methods": figure}


if __name__ == "__main__":
    jdl.main(Config, experiment)
