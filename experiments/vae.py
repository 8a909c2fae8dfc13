"""A variational autoencoder on MNIST, or on the embedded 8x8 digits where there is no MNIST.

command   python experiments/vae.py [--data-dir FOLDER]
data      MNIST's four IDX files in FOLDER (or in JDL_DATA_DIR); else scikit-learn's 1,797 digits
device    CPU, 2 cores
time      75 s of processor time on MNIST (3 min on a busy machine), 30 s on the digits
expect    test -ELBO 105.34 nats an image on MNIST (the pixels' means alone: 205.8);
          24.40 on the digits (27.12)

-ELBO, in nats an image, is an upper bound of what it takes to tell the images to someone who has
the network: the divergence tells the code, the reconstruction the pixels, given the code.
"""

import dataclasses
import os
from typing import Any

import numpy as np
import optax

import jdl
from jdl.core.check import within
from jdl.run.mosaics import mosaic


@dataclasses.dataclass(frozen=True)
class Config:
    """Images explained by a normal code."""

    data_dir: str | None = None
    """Folder of MNIST's IDX files; JDL_DATA_DIR where left out; without either, the digits."""
    code: int = 20
    """Numbers in the code."""
    hidden: int = 400
    """Units between image and code, and between code and image."""
    epochs: int | None = None
    """Passes over the training set; 10 on MNIST, 200 on the digits."""
    batch_size: int = 128
    learning_rate: float = 2e-3
    """Of Adam; it falls to zero by a cosine."""

    def __post_init__(self):
        within("code", self.code, 2)
        within("hidden", self.hidden, 1)
        within("epochs", self.epochs, 1)
        within("batch_size", self.batch_size, 1)
        within("learning_rate", self.learning_rate, 0)


def experiment(config: Config) -> jdl.Experiment:
    folder = config.data_dir or os.environ.get("JDL_DATA_DIR")
    data = jdl.data.load("mnist" if folder else "digits", dir=folder)
    epochs = config.epochs or (10 if folder else 200)
    network = jdl.models.VariationalAutoencoder(
        config.code, (config.hidden,), shape=data.info["shape"]
    )
    steps = epochs * len(data.train["x"]) // config.batch_size
    rate = optax.cosine_decay_schedule(config.learning_rate, steps)

    def remark(result: jdl.Result) -> str:
        found, blind = jdl.evaluate(result, data.test()), pixels_alone(data)
        return (
            f"test -ELBO {found['loss']:.2f} nats: reconstruction {found['reconstruction']:.2f}, "
            f"divergence {found['kl']:.2f}; each pixel by its own mean, without a code: {blind:.2f}"
        )

    def pictures(result: jdl.Result) -> dict[str, Any]:
        """Images from random codes, and along lines between the codes of real images."""
        variables, x = {"params": result.train.params}, data.valid["x"]
        ends = np.asarray(network.apply(variables, x[:10], method="encode")[0])
        share = np.linspace(0, 1, 12)[None, :, None]
        walk = (1 - share) * ends[:5, None] + share * ends[5:, None]
        drawn = np.random.default_rng(0).normal(size=(5, 12, config.code))
        logits = [network.apply(variables, c, method="decode") for c in (*drawn, *walk)]
        images = 1 / (1 + np.exp(-np.asarray(logits)))
        return {
            "samples": mosaic(images[:5], "Images of random codes"),
            "latent walk": mosaic(images[5:], "From the code of one image to that of another"),
            "reconstructions": mosaic(
                np.stack([x[:12], jdl.predict(result, x[:12])]), rows=["original", "returned"]
            ),
        }

    return jdl.Experiment(
        name="vae",
        learner=jdl.learner(jdl.tasks.variational(jdl.from_linen(network)), optax.adam(rate)),
        data=data,
        batch_size=config.batch_size,
        epochs=epochs,
        pictures=pictures,
        remark=remark,
    )


def pixels_alone(data: jdl.Data) -> float:
    """Nats an image where every pixel is told on its own, by the training part's mean."""
    mean = np.clip(data.train["x"].mean(0, dtype=np.float64), 1e-4, 1 - 1e-4)[None]
    x = data.test()["x"]
    return float(-(x * np.log(mean) + (1 - x) * np.log(1 - mean)).sum() / len(x))


if __name__ == "__main__":
    jdl.main(Config, experiment)
