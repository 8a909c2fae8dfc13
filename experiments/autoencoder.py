"""Autoencoders on MNIST, or on scikit-learn's 8x8 digits without it.

command   python experiments/autoencoder.py [--data-dir FOLDER] [--kind linear]
data      MNIST's four IDX files in FOLDER or JDL_DATA_DIR; without them scikit-learn's digits
device    CPU, 2 cores
time      26 s on the digits, 3.5 min on MNIST, on a busy machine
expect    on MNIST binary cross-entropy 0.0911 and MSE 0.00950 (32 principal components: 0.01683);
          test MSE on the digits: dense 0.00888, conv 0.00875, linear 0.01146 (16 principal
          components: 0.01120); denoising 0.03580 (noisy images: 0.25)
"""

import dataclasses
from typing import Any, Literal

import jax
import optax

import jdl
from jdl import plots

NOISE = 0.5
"""Standard deviation of the noise that "denoising" removes."""


@dataclasses.dataclass(frozen=True)
class Config:
    """An autoencoder with a small code."""

    kind: Literal["dense", "linear", "conv", "denoising"] = "dense"
    """"dense" is 784-32-784; "linear" has no ReLU; "denoising" removes noise of deviation 0.5."""
    data_dir: str | None = None
    """Folder of MNIST's IDX files; default: JDL_DATA_DIR, or the 8x8 digits if it is not set."""
    code: int | None = None
    """Dimensions of the code; default 32 on MNIST, 16 on the digits."""
    epochs: int | None = None
    """Default 50 on MNIST (conv: 5), 400 on the digits (conv: 100)."""
    batch_size: int = 128
    learning_rate: float = 2e-3

    def __post_init__(self):
        jdl.check_fields(self, code=1, epochs=1, batch_size=1, learning_rate=0)


def experiment(config: Config) -> jdl.Experiment:
    data = jdl.data.mnist_or_digits(config.data_dir)
    shape = data.info["shape"]
    mnist = data.info["name"] == "mnist"
    conv = config.kind == "conv"
    linear = config.kind == "linear"
    if mnist:
        default_code = 32
        default_epochs = 5 if conv else 50
    else:
        default_code = 16
        default_epochs = 100 if conv else 400
    code = config.code or default_code
    epochs = config.epochs or default_epochs

    if conv:
        network = jdl.models.ConvAutoencoder(code, shape=shape)
    else:
        activation = "identity" if linear else "relu"
        network = jdl.models.Autoencoder(code, activation=activation, shape=shape)
    likelihood = "gaussian" if linear else "bernoulli"
    task = jdl.tasks.reconstruction(jdl.from_linen(network), likelihood)
    noise = None
    if config.kind == "denoising":
        noise = jdl.tasks.gaussian_noise(NOISE)
        task = jdl.tasks.denoising(task, noise)

    steps = data.steps(epochs, config.batch_size)
    learning_rate = optax.cosine_decay_schedule(config.learning_rate, steps)
    return jdl.Experiment(
        name=f"autoencoder_{config.kind}",
        learner=jdl.learner(task, optax.adam(learning_rate)),
        data=data,
        batch_size=config.batch_size,
        epochs=epochs,
        figures=lambda result: figures(result, data.valid["x"][:12], conv, noise),
        summary_line=lambda result: summary_line(result, data, code, noise is not None),
    )


def summary_line(result: jdl.Result, data: jdl.Data, code: int, noisy: bool) -> str:
    train, test = data.train, data.test()
    metrics = jdl.evaluate(result, test)
    components = jdl.data.baselines.pca_error(train["x"], test["x"], code)
    mean_image = jdl.data.baselines.pca_error(train["x"], test["x"], 0)
    line = (
        f"test mse {metrics['mse']:.5f}, loss {metrics['loss']:.5f}; "
        f"for comparison {components:.5f} with {code} principal components, {mean_image:.5f} with "
        "the mean image"
    )
    if noisy:
        line += f", {NOISE**2:.5f} with the noisy image"
    return line


def figures(result: jdl.Result, images: Any, conv: bool, noise: Any) -> dict[str, Any]:
    """Images next to their reconstructions, and the weights of the first or last layer."""
    inputs = images if noise is None else noise(jax.random.key(0), images)
    rows = {"original": images}
    if noise is not None:
        rows["noisy"] = inputs
    rows["reconstruction"] = jdl.predict(result, inputs)
    part, layer = ("encoder", "conv_1") if conv else ("decoder", "output")
    kernel = result.state.params[part][layer]["kernel"]
    weights = plots.kernels(kernel, images.shape[1:], f"Weights of {part}/{layer}")
    return {
        "reconstructions": plots.figure(plots.image_grid(rows, "Images and their reconstructions")),
        "filters": plots.figure(weights),
    }


if __name__ == "__main__":
    jdl.main(Config, experiment)
