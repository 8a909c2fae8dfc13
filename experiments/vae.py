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
from jdl import plots


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
        jdl.check_fields(self, code=2, hidden=1, epochs=1, batch_size=1, learning_rate=0)


def experiment(config: Config) -> jdl.Experiment:
    data = jdl.data.mnist_or_digits(config.data_dir)
    epochs = config.epochs or (10 if data.info["name"] == "mnist" else 200)
    network = jdl.models.VariationalAutoencoder(
        config.code, hidden=(config.hidden,), shape=data.info["shape"]
    )
    task = jdl.tasks.variational_autoencoding(jdl.from_linen(network))
    steps = data.steps(epochs, config.batch_size)
    learning_rate = optax.cosine_decay_schedule(config.learning_rate, steps)
    return jdl.Experiment(
        name="vae",
        learner=jdl.learner(task, optax.adam(learning_rate)),
        data=data,
        batch_size=config.batch_size,
        epochs=epochs,
        figures=lambda result: figures(result, network, data.valid["x"]),
        summary_line=lambda result: summary_line(result, data),
    )


def summary_line(result: jdl.Result, data: jdl.Data) -> str:
    test = data.test()
    metrics = jdl.evaluate(result, test)
    baseline = jdl.data.baselines.pixel_mean_nats(data.train["x"], test["x"])
    return (
        f"test -ELBO {metrics['loss']:.2f} nats: reconstruction {metrics['reconstruction']:.2f}, "
        f"divergence {metrics['kl']:.2f}; each pixel by its own mean, without a code: "
        f"{baseline:.2f}"
    )


def figures(result: jdl.Result, network: Any, images: np.ndarray) -> dict[str, Any]:
    """Images from random codes, images between two codes, and reconstructions."""
    variables = {"params": result.state.params}

    def decode(codes: np.ndarray) -> np.ndarray:
        """Rows of images from rows of codes, (rows, columns, code)."""
        logits = [network.apply(variables, row, method="decode") for row in codes]
        return 1 / (1 + np.exp(-np.asarray(logits)))

    # Twelve codes along the line between those of two images, for five pairs of images.
    means = np.asarray(network.apply(variables, images[:10], method="encode")[0])
    first, last = means[:5, None], means[5:, None]
    share = np.linspace(0, 1, 12)[None, :, None]
    walk = (1 - share) * first + share * last
    random_codes = np.random.default_rng(0).normal(size=walk.shape)

    samples = plots.image_grid(decode(random_codes), "Images of random codes")
    between = plots.image_grid(decode(walk), "From one image's code to another's")
    rows = {"original": images[:12], "returned": jdl.predict(result, images[:12])}
    reconstructions = plots.image_grid(rows, "Real images, and what came back")
    return {
        "samples": plots.figure(samples),
        "latent walk": plots.figure(between),
        "reconstructions": plots.figure(reconstructions),
    }


if __name__ == "__main__":
    jdl.main(Config, experiment)
