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
from typing import Any

import numpy as np
import optax

import jdl
from jdl import pictures as draw
from jdl.core.check import check_fields
from jdl.data.baselines import pixel_means


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
        check_fields(self, code=2, hidden=1, epochs=1, batch_size=1, learning_rate=0)


def experiment(config: Config) -> jdl.Experiment:
    data = jdl.data.mnist_or_digits(config.data_dir)
    epochs = config.epochs or (10 if data.info["name"] == "mnist" else 200)
    shape = data.info["shape"]
    network = jdl.models.VariationalAutoencoder(config.code, (config.hidden,), shape=shape)
    rate = optax.cosine_decay_schedule(config.learning_rate, data.steps(epochs, config.batch_size))
    return jdl.Experiment(
        name="vae",
        learner=jdl.learner(jdl.tasks.variational(jdl.from_linen(network)), optax.adam(rate)),
        data=data,
        batch_size=config.batch_size,
        epochs=epochs,
        pictures=lambda result: pictures(result, network, data.valid["x"]),
        remark=lambda result: remark(result, data),
    )


def remark(result: jdl.Result, data: jdl.Data) -> str:
    test = data.test()
    found, blind = jdl.evaluate(result, test), pixel_means(data.train["x"], test["x"])
    return (
        f"test -ELBO {found['loss']:.2f} nats: reconstruction {found['reconstruction']:.2f}, "
        f"divergence {found['kl']:.2f}; each pixel by its own mean, without a code: {blind:.2f}"
    )


def pictures(result: jdl.Result, network: Any, x: np.ndarray) -> dict[str, Any]:
    """Images from random codes, and along lines between the codes of real images."""
    variables = {"params": result.state.params}
    ends = np.asarray(network.apply(variables, x[:10], method="encode")[0])
    share = np.linspace(0, 1, 12)[None, :, None]
    walk = (1 - share) * ends[:5, None] + share * ends[5:, None]
    drawn = np.random.default_rng(0).normal(size=walk.shape)
    logits = [network.apply(variables, codes, method="decode") for codes in (*drawn, *walk)]
    images = 1 / (1 + np.exp(-np.asarray(logits)))
    both = {"original": x[:12], "returned": jdl.predict(result, x[:12])}
    return {
        "samples": draw.figure(draw.mosaic(images[:5], "Images of random codes")),
        "latent walk": draw.figure(draw.mosaic(images[5:], "From one image's code to another's")),
        "reconstructions": draw.figure(draw.mosaic(both, "Real images, and what came back")),
    }


if __name__ == "__main__":
    jdl.main(Config, experiment)
