"""A variational autoencoder on MNIST, or on scikit-learn's 8x8 digits without it.

command   python experiments/vae.py [--data-dir FOLDER]
data      MNIST's four IDX files in FOLDER or JDL_DATA_DIR; without them scikit-learn's digits
device    CPU, 2 cores
time      75 s of CPU time on MNIST (3 min on a busy machine), 30 s on the digits
expect    test -ELBO 105.34 nats per image on MNIST (independent pixels with their mean values:
          205.8); 24.40 on the digits (27.12)

The -ELBO bounds the negative log-likelihood of an image from above. It is the sum of the
reconstruction loss and the KL divergence of the code from its prior.
"""

import dataclasses
from typing import Any

import numpy as np
import optax

import jdl
from jdl import plots


@dataclasses.dataclass(frozen=True)
class Config:
    """A variational autoencoder with a normal prior."""

    data_dir: str | None = None
    """Folder of MNIST's IDX files; default: JDL_DATA_DIR, or the 8x8 digits if it is not set."""
    code: int = 20
    """Dimensions of the code."""
    hidden: int = 400
    """Hidden units of the encoder, and of the decoder."""
    epochs: int | None = None
    """Default 10 on MNIST, 200 on the digits."""
    batch_size: int = 128
    learning_rate: float = 2e-3
    """Initial learning rate of Adam; it decays to zero along a cosine."""

    def __post_init__(self):
        jdl.check_fields(self, code=2, hidden=1, epochs=1, batch_size=1, learning_rate=0)


def experiment(config: Config) -> jdl.Experiment:
    data = jdl.data.mnist_or_digits(config.data_dir)
    epochs = config.epochs or (10 if data.info["name"] == "mnist" else 200)
    network = jdl.models.VariationalAutoencoder(
        config.code, hidden=(config.hidden,), shape=data.info["shape"]
    )
    task = jdl.tasks.variational(jdl.from_linen(network))
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
        f"KL divergence {metrics['kl']:.2f}; independent pixels with their mean values: "
        f"{baseline:.2f}"
    )


def figures(result: jdl.Result, network: Any, images: np.ndarray) -> dict[str, Any]:
    """Images from random codes, images between two codes, and reconstructions."""
    variables = {"params": result.state.params}

    def decode(codes: np.ndarray) -> np.ndarray:
        """Rows of images from rows of codes, (rows, columns, code)."""
        logits = [network.apply(variables, row, method="decode") for row in codes]
        return 1 / (1 + np.exp(-np.asarray(logits)))

    # Twelve codes on the line between the codes of two images, for five pairs of images.
    means = np.asarray(network.apply(variables, images[:10], method="encode")[0])
    first, last = means[:5, None], means[5:, None]
    share = np.linspace(0, 1, 12)[None, :, None]
    walk = (1 - share) * first + share * last
    random_codes = np.random.default_rng(0).normal(size=walk.shape)

    samples = plots.image_grid(decode(random_codes), "Images of random codes")
    between = plots.image_grid(decode(walk), "Interpolation between the codes of two images")
    rows = {"original": images[:12], "reconstruction": jdl.predict(result, images[:12])}
    reconstructions = plots.image_grid(rows, "Images and their reconstructions")
    return {
        "samples": plots.figure(samples),
        "latent walk": plots.figure(between),
        "reconstructions": plots.figure(reconstructions),
    }


if __name__ == "__main__":
    jdl.main(Config, experiment)
