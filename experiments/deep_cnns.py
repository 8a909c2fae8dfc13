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
from typing import Any, Literal

import numpy as np
import optax

import jdl
from jdl import models
from jdl import pictures as draw
from jdl.core import tree
from jdl.core.check import check_fields

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
        check_fields(self, learning_rate=0, batch_size=1, epochs=1)


def experiment(config: Config) -> jdl.Experiment:
    data = jdl.data.mnist_or_digits(config.data_dir, config.split)
    mnist = data.info["name"] == "mnist"
    epochs = config.epochs or (3 if mnist else 30)
    steps = data.steps(epochs, config.batch_size) + 1
    rate = optax.cosine_decay_schedule(config.learning_rate, steps)
    task = jdl.classification(jdl.from_linen(NETWORKS[config.model]()))
    return jdl.Experiment(
        name=f"{config.model}_{data.info['name']}",
        learner=jdl.learner(task, optax.adam(rate)),
        data=data,
        batch_size=config.batch_size,
        epochs=epochs,
        pictures=lambda result: pictures(result, data.valid["x"][:3]),
        remark=lambda result: f"{config.model}: {tree.count(result.state.params):,} parameters",
    )


def pictures(result: jdl.Result, images: np.ndarray) -> dict[str, Any]:
    """The filters of the first convolution, and where they respond in three digits."""
    leaves = tree.flatten(result.state.params).values()
    kernel = next(leaf for leaf in leaves if leaf.ndim == 4 and leaf.shape[2] == images.shape[-1])
    return {"filters": draw.responses(kernel, images)}


if __name__ == "__main__":
    jdl.main(Config, experiment)
