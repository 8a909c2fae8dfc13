"""The architectures that made convolutional networks deep, each in a small form.

command   python experiments/deep_cnns.py --model resnet [--data-dir FOLDER]
data      MNIST's four IDX files in FOLDER (or in JDL_DATA_DIR); else scikit-learn's 1,797 digits
device    CPU, 2 cores
time      20 s of processor time for the residual network on the digits
expect    test accuracy on the digits, over the splits 0 to 2 with seeds 0 to 2: vgg 0.992 ± 0.003,
          densenet 0.990 ± 0.007, googlenet 0.990 ± 0.004, resnet 0.989 ± 0.000,
          alexnet 0.981 ± 0.003
"""

import dataclasses
import os
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jdl
from jdl import models
from jdl.core import tree
from jdl.core.check import within

NETWORKS = {
    "alexnet": lambda: models.AlexNet(
        (16, 32, 48, 32, 32), (3,) * 5, stride=1, pools=(1, 5), hidden=(64, 64), pooled=1,
        classes=10, dropout=0.2,
    ),
    "vgg": lambda: models.VGG(
        ((16, 16), (32, 32)), hidden=(64,), pooled=2, classes=10, dropout=0.2
    ),
    "googlenet": lambda: models.GoogLeNet(
        (((8, 8, 16, 4, 8, 8),), ((16, 8, 16, 4, 8, 8),)), features=16, classes=10, stem="small"
    ),
    "resnet": lambda: models.ResNet((1, 1), features=16, classes=10, stem="small"),
    "densenet": lambda: models.DenseNet((2, 2), growth=8, features=16, classes=10, stem="small"),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    """A small deep convolutional network on the digits or MNIST."""

    model: Literal["alexnet", "vgg", "googlenet", "resnet", "densenet"] = "resnet"
    data_dir: str | None = None
    """Folder of MNIST's IDX files; JDL_DATA_DIR where left out; without either, the digits."""
    split: int = 0
    """Seed of the split."""
    epochs: int | None = None
    """Passes over the training set; 30 on the digits, 3 on MNIST."""
    batch_size: int = 64
    learning_rate: float = 3e-3
    """Of Adam at the start; it falls to zero along a cosine."""

    def __post_init__(self):
        within("learning_rate", self.learning_rate, 0)
        within("batch_size", self.batch_size, 1)
        within("epochs", self.epochs, 1)


def experiment(config: Config) -> jdl.Experiment:
    folder = config.data_dir or os.environ.get("JDL_DATA_DIR")
    data = jdl.data.load("mnist" if folder else "digits", dir=folder, seed=config.split)
    epochs = config.epochs or (3 if folder else 30)
    steps = epochs * len(data.train["x"]) // config.batch_size + 1
    rate = optax.cosine_decay_schedule(config.learning_rate, steps)
    task = jdl.classification(jdl.from_linen(NETWORKS[config.model]()))
    return jdl.Experiment(
        name=f"{config.model}_{data.info['name']}",
        learner=jdl.learner(task, optax.adam(rate)),
        data=data,
        batch_size=config.batch_size,
        epochs=epochs,
        pictures=lambda result: {"filters": filters(result, data.valid["x"])},
        remark=lambda result: f"{config.model}: {tree.count(result.train.params):,} parameters",
    )


def filters(result: jdl.Result, images: np.ndarray) -> Any:
    """The filters of the first convolution, and where they respond in three digits."""
    from matplotlib.figure import Figure

    leaves = tree.flatten(result.train.params).values()
    kernel = np.asarray(next(w for w in leaves if w.ndim == 4 and w.shape[2] == images.shape[-1]))
    chosen, shown = jnp.asarray(images[:3]), min(12, kernel.shape[-1])
    maps = jax.lax.conv_general_dilated(
        chosen, jnp.asarray(kernel), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    figure = Figure(figsize=(0.85 * (shown + 1), 4.0), layout="constrained")
    axes = figure.subplots(4, shown + 1)
    for axis in axes.ravel():
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for column in range(shown):
        weights, responses = kernel[:, :, 0, column], np.asarray(maps[..., column])
        axes[0, column + 1].imshow(
            weights, "RdBu_r", vmin=-abs(kernel).max(), vmax=abs(kernel).max()
        )
        for row, response in enumerate(responses, start=1):
            limit = abs(responses).max()
            axes[row, column + 1].imshow(response, "RdBu_r", vmin=-limit, vmax=limit)
    for row, image in enumerate(chosen, start=1):
        axes[row, 0].imshow(image[..., 0], "gray_r")
    axes[0, 0].text(0.5, 0.5, "filters", ha="center", va="center", transform=axes[0, 0].transAxes)
    figure.suptitle("First convolution: red responds to ink, blue is silenced by it", fontsize=11)
    return figure


if __name__ == "__main__":
    jdl.main(Config, experiment)
