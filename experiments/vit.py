"""A vision transformer on the embedded 8x8 digits, or on MNIST.

command   python experiments/vit.py [--data-dir FOLDER] [--split 1]
data      MNIST's four IDX files in FOLDER (or in JDL_DATA_DIR); else scikit-learn's 1,797 digits
device    CPU, 2 cores
time      70 s of processor time on the digits
expect    test accuracy 0.9805 on the digits (the most frequent class: 0.1031)
"""

import dataclasses
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
import optax

import jdl
from jdl import pictures as draw
from jdl.core.check import check_fields
from jdl.data.baselines import most_frequent


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
    precision: Literal["float32", "bfloat16"] = "float32"
    remat: Literal["none", "dots", "full"] = "none"

    def __post_init__(self):
        check_fields(self, blocks=1, epochs=1, batch_size=1, learning_rate=0)


def experiment(config: Config) -> jdl.Experiment:
    data = jdl.data.mnist_or_digits(config.data_dir, config.split)
    mnist = data.info["name"] == "mnist"
    epochs = config.epochs or (5 if mnist else 60)
    # Squares of 2x2 pixels make 16 tokens of a digit, those of 4x4 make 49 of a MNIST image.
    patch = 4 if mnist else 2
    sizes = (10, patch, config.blocks, config.heads, config.width)
    network = jdl.models.ViT(*sizes, dropout=0.1, remat=config.remat)
    shifted = jdl.data.augment.affine(degrees=10, scale=0.1, shift=1.5 if mnist else 0.7)
    model = jdl.precision(jdl.from_linen(network), config.precision)
    task = jdl.augment(jdl.classification(model), shifted)
    steps = max(20, data.steps(epochs, config.batch_size))
    rate = jdl.optim.schedule("warmup_cosine", config.learning_rate, steps)
    adam = optax.adamw(rate, weight_decay=0.05, mask=jdl.optim.decay_mask)
    return jdl.Experiment(
        name=f"vit_{data.info['name']}",
        learner=jdl.ema(jdl.learner(task, jdl.optim.clip(adam, 1.0)), 0.99),
        data=data,
        batch_size=config.batch_size,
        epochs=epochs,
        pictures=lambda result: pictures(result, network, data.valid),
        remark=lambda _: f"always the most frequent class: {most_frequent(data.test()['y']):.4f}",
    )


def pictures(result: jdl.Result, network: Any, valid: dict[str, np.ndarray]) -> dict[str, Any]:
    """Where the class token looks in the last block, mean over the heads, on validation images."""
    images, labels = valid["x"][:8], valid["y"][:8]
    said = jdl.predict(result, images).argmax(-1)
    averaged = result.state.extra["ema"]["average"][0]
    weights = jdl.models.attention_weights(network, averaged, jnp.asarray(images))
    side = round((weights.shape[-1] - 1) ** 0.5)
    maps = np.asarray(weights[-1, :, :, 0, 1:].mean(1)).reshape(-1, side, side)
    titles = [f"true {y}, said {answer}" for y, answer in zip(labels, said, strict=True)]
    shown = [draw.image(image, title) for image, title in zip(images, titles, strict=True)]
    shown += [draw.image(one, "attention", colours="magma") for one in maps]
    title = "Where the class token looks in the last block (mean of its heads)"
    return {"attention": draw.figure(*shown, columns=len(images), title=title)}


if __name__ == "__main__":
    jdl.main(Config, experiment)
