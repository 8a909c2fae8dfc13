"""A vision transformer on the embedded 8x8 digits, or on MNIST.

command   python experiments/vit.py [--data-dir FOLDER] [--split 1]
data      MNIST's four IDX files in FOLDER (or in JDL_DATA_DIR); else scikit-learn's 1,797 digits
device    CPU, 2 cores
time      not measured yet
expect    not measured yet
"""

import dataclasses
import functools
import os
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

import jdl
from jdl.core.check import within


@dataclasses.dataclass(frozen=True)
class Config:
    """A vision transformer on the digits or MNIST."""

    data_dir: str | None = None
    """Folder of MNIST's IDX files; JDL_DATA_DIR where left out; without either, the digits."""
    split: int = 0
    """Seed of the split."""
    blocks: int = 4
    heads: int = 4
    width: int = 64
    epochs: int | None = None
    """Passes over the training set; 60 on digits, 5 on MNIST."""
    batch_size: int = 64
    learning_rate: float = 2e-3
    """At the top of its schedule."""

    def __post_init__(self):
        within("blocks", self.blocks, 1)
        within("epochs", self.epochs, 1)
        within("batch_size", self.batch_size, 1)
        within("learning_rate", self.learning_rate, 0)


def load(config: Config) -> tuple[jdl.Data, bool]:
    """The data, and whether it is MNIST."""
    folder = config.data_dir or os.environ.get("JDL_DATA_DIR")
    name = "mnist" if folder else "digits"
    return jdl.data.load(name, dir=folder, seed=config.split), bool(folder)


def network(config: Config, mnist: bool) -> jdl.models.ViT:
    """Squares of 2x2 pixels make 16 tokens of a digit, those of 4x4 make 49 of a MNIST image."""
    return jdl.models.ViT(10, 4 if mnist else 2, config.blocks, config.heads, config.width, 0.1)


def experiment(config: Config) -> jdl.Experiment:
    data, mnist = load(config)
    epochs = config.epochs or (5 if mnist else 60)
    steps = max(20, epochs * len(data.train["x"]) // config.batch_size)
    task = jdl.classification(jdl.from_linen(network(config, mnist)))
    task = jdl.augment(
        task, jdl.data.augment.affine(degrees=10, scale=0.1, shift=1.5 if mnist else 0.7)
    )
    rate = jdl.optim.schedule("warmup_cosine", config.learning_rate, steps)
    adam = optax.adamw(rate, weight_decay=0.05, mask=jdl.optim.decay_mask)
    return jdl.Experiment(
        name="vit_mnist" if mnist else "vit_digits",
        learner=jdl.ema(jdl.learner(task, jdl.optim.clip(adam, 1.0)), 0.99),
        data=data,
        batch_size=config.batch_size,
        epochs=epochs,
        pictures=functools.partial(pictures, config),
        remark=functools.partial(remark, config),
    )


def remark(config: Config, result: jdl.Result) -> str:
    labels = load(config)[0].test()["y"]
    share = np.bincount(labels).max() / len(labels)
    return f"always the most frequent class: {share:.4f}"


def pictures(config: Config, result: jdl.Result) -> dict[str, Any]:
    """Where the class token looks in the last block, mean over the heads, on validation images."""
    from matplotlib.figure import Figure

    data, mnist = load(config)
    images, said = data.valid["x"][:8], jdl.predict(result, data.valid["x"][:8]).argmax(-1)
    averaged = result.train.extra["ema"]["average"][0]
    weights = jdl.models.attention_weights(network(config, mnist), averaged, jnp.asarray(images))
    side = round((weights.shape[-1] - 1) ** 0.5)
    maps = np.asarray(weights[-1, :, :, 0, 1:].mean(1)).reshape(-1, side, side)
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    axes = figure.subplots(2, len(images))
    for index, image in enumerate(images):
        top, below = axes[:, index]
        top.imshow(image[..., 0], cmap="gray_r")
        top.set_title(f"true {data.valid['y'][index]}, said {said[index]}", fontsize=10)
        below.imshow(maps[index], cmap="magma", vmin=0)
    for axis in axes.ravel():
        axis.set(xticks=[], yticks=[])
    axes[0, 0].set_ylabel("image")
    axes[1, 0].set_ylabel("attention")
    figure.suptitle("where the class token looks in the last block (mean of its heads)")
    return {"attention": figure}


if __name__ == "__main__":
    jdl.main(Config, experiment)
