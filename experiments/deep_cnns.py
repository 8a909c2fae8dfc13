"""Classic deep convolutional networks, each in a small version.

command   python experiments/deep_cnns.py --model resnet [--data-dir FOLDER]
data      MNIST's four IDX files in FOLDER or JDL_DATA_DIR; without them scikit-learn's digits
device    CPU, 2 cores
time      20 s of CPU time for the residual network on the digits
expect    test accuracy on the digits, over the splits 0 to 2 with seeds 0 to 2: vgg 0.992 ± 0.003,
          densenet 0.990 ± 0.007, googlenet 0.990 ± 0.004, resnet 0.989 ± 0.000,
          alexnet 0.981 ± 0.003
"""

import dataclasses
from typing import Any, Literal

import jax
import numpy as np
import optax

import jdl
from jdl import plots

NETWORKS = {
    "alexnet": jdl.models.AlexNet(
        features=(16, 32, 48, 32, 32),
        windows=(3, 3, 3, 3, 3),
        stride=1,
        pools=(1, 5),
        hidden=(64, 64),
        pooled=1,
        classes=10,
        dropout=0.2,
    ),
    "vgg": jdl.models.VGG(((16, 16), (32, 32)), hidden=(64,), pooled=2, classes=10, dropout=0.2),
    "googlenet": jdl.models.GoogLeNet(
        groups=(((8, 8, 16, 4, 8, 8),), ((16, 8, 16, 4, 8, 8),)),
        features=16,
        classes=10,
        stem="small",
    ),
    "resnet": jdl.models.ResNet((1, 1), features=16, classes=10, stem="small"),
    "densenet": jdl.models.DenseNet((2, 2), growth=8, features=16, classes=10, stem="small"),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """A small deep convolutional network on the digits or MNIST."""

    model: Literal["alexnet", "vgg", "googlenet", "resnet", "densenet"] = "resnet"
    data_dir: str | None = None
    """Folder of MNIST's IDX files; default: JDL_DATA_DIR, or the 8x8 digits if it is not set."""
    split: int = 0
    """Seed of the split."""
    epochs: int | None = None
    """Default 30 on the digits, 3 on MNIST."""
    batch_size: int = 64
    learning_rate: float = 3e-3
    """Initial learning rate of Adam; it decays to zero along a cosine."""

    def __post_init__(self):
        jdl.check_fields(self, learning_rate=0, batch_size=1, epochs=1)


def experiment(config: Config) -> jdl.Experiment:
    data = jdl.data.mnist_or_digits(config.data_dir, config.split)
    epochs = config.epochs or (3 if data.info["name"] == "mnist" else 30)
    task = jdl.classification(jdl.from_linen(NETWORKS[config.model]))
    steps = data.steps(epochs, config.batch_size)
    learning_rate = optax.cosine_decay_schedule(config.learning_rate, steps)
    return jdl.Experiment(
        name=f"{config.model}_{data.info['name']}",
        learner=jdl.learner(task, optax.adam(learning_rate)),
        data=data,
        batch_size=config.batch_size,
        epochs=epochs,
        figures=lambda result: figures(result, data.valid["x"][:3]),
        summary_line=lambda result: summary_line(result, config.model),
    )


def summary_line(result: jdl.Result, model: str) -> str:
    parameters = sum(leaf.size for leaf in jax.tree.leaves(result.state.params))
    return f"{model}: {parameters:,} parameters"


def figures(result: jdl.Result, images: np.ndarray) -> dict[str, Any]:
    """The filters of the first convolution, and their feature maps for three digits."""
    kernel = next(
        leaf
        for leaf in jax.tree.leaves(result.state.params)
        if leaf.ndim == 4 and leaf.shape[2] == images.shape[-1]
    )
    return {"filters": plots.activations(kernel, images)}


if __name__ == "__main__":
    jdl.main(Config, experiment)
