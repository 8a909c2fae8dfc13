"""A vision transformer on MNIST, or on scikit-learn's 8x8 digits without it.

command   python experiments/vit.py [--data-dir FOLDER] [--split 1]
data      MNIST's four IDX files in FOLDER or JDL_DATA_DIR; without them scikit-learn's digits
device    CPU, 2 cores
time      70 s of CPU time on the digits
expect    test accuracy 0.9805 on the digits (the most frequent class: 0.1031)
"""

import dataclasses
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
import optax

import jdl
from jdl import plots


@dataclasses.dataclass(frozen=True)
class Config:
    """A vision transformer on the digits or MNIST."""

    data_dir: str | None = None
    """Folder of MNIST's IDX files; default: JDL_DATA_DIR, or the 8x8 digits if it is not set."""
    split: int = 0
    """Seed of the split."""
    blocks: int = 4
    heads: int = 4
    width: int = 64
    epochs: int | None = None
    """Default 60 on the digits, 5 on MNIST."""
    batch_size: int = 64
    learning_rate: float = 2e-3
    """Peak of the schedule."""
    precision: Literal["float32", "bfloat16"] = "float32"
    remat: Literal["none", "dots", "full"] = "none"

    def __post_init__(self):
        jdl.check_fields(self, blocks=1, epochs=1, batch_size=1, learning_rate=0)


def experiment(config: Config) -> jdl.Experiment:
    data = jdl.data.mnist_or_digits(config.data_dir, config.split)
    mnist = data.info["name"] == "mnist"
    epochs = config.epochs or (5 if mnist else 60)
    network = jdl.models.ViT(
        classes=10,
        patch=4 if mnist else 2,  # 49 tokens of a MNIST image, 16 of a digit
        blocks=config.blocks,
        heads=config.heads,
        width=config.width,
        dropout=0.1,
        remat=config.remat,
    )
    model = jdl.precision(jdl.from_linen(network), config.precision)
    augmentation = jdl.data.augmentations.affine(degrees=10, scale=0.1, shift=1.5 if mnist else 0.7)
    task = jdl.augment(jdl.classification(model), augmentation)

    steps = max(20, data.steps(epochs, config.batch_size))
    learning_rate = jdl.optim.schedule("warmup_cosine", config.learning_rate, steps)
    adam = optax.adamw(learning_rate, weight_decay=0.05, mask=jdl.optim.decay_mask)
    learner = jdl.learner(task, jdl.optim.clip(adam, 1.0))
    return jdl.Experiment(
        name=f"vit_{data.info['name']}",
        learner=jdl.ema(learner, 0.99),
        data=data,
        batch_size=config.batch_size,
        epochs=epochs,
        figures=lambda result: figures(result, network, data.valid),
        summary_line=lambda result: summary_line(data.test()),
    )


def summary_line(test: dict[str, np.ndarray]) -> str:
    baseline = jdl.data.baselines.most_frequent(test["y"])
    return f"always predicting the most frequent class: {baseline:.4f}"


def figures(result: jdl.Result, network: Any, valid: dict[str, np.ndarray]) -> dict[str, Any]:
    """The attention of the class token in the last block, averaged over the heads."""
    images, labels = valid["x"][:8], valid["y"][:8]
    predicted = jdl.predict(result, images).argmax(-1)
    params, _ = result.state.extra.weights  # the averages that `ema` keeps
    weights = jdl.models.attention_weights(network, params, jnp.asarray(images))
    class_token = np.asarray(weights[-1, :, :, 0, 1:].mean(1))  # (images, patches)
    side = round(class_token.shape[-1] ** 0.5)
    maps = class_token.reshape(-1, side, side)

    panels = []
    for image, label, prediction in zip(images, labels, predicted, strict=True):
        panels.append(plots.image(image, f"true {label}, predicted {prediction}"))
    for attention in maps:
        panels.append(plots.image(attention, "attention", colours="magma"))
    title = "Attention of the class token in the last block, mean over heads"
    return {"attention": plots.figure(*panels, columns=len(images), title=title)}


if __name__ == "__main__":
    jdl.main(Config, experiment)
