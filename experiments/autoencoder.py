"""Autoencoders on MNIST, or on the embedded 8x8 digits where there is no MNIST.

command   python experiments/autoencoder.py [--data-dir FOLDER] [--kind linear]
data      MNIST's four IDX files in FOLDER (or in JDL_DATA_DIR); else scikit-learn's 1,797 digits
device    CPU, 2 cores
time      26 s on the digits, 3.5 min on MNIST, beside other programs
expect    on MNIST binary cross-entropy 0.0911 and MSE 0.00950 (32 principal components: 0.01683);
          test MSE on the digits, where 16 principal components have 0.01120: dense 0.00888,
          conv 0.00875, linear 0.01146; denoising 0.03580 (the noisy images themselves: 0.25)
"""

import dataclasses
from typing import Any, Literal

import jax
import optax

import jdl
from jdl import pictures as draw
from jdl.core.check import check_fields
from jdl.data.baselines import principal_components


@dataclasses.dataclass(frozen=True)
class Config:
    """Images through a code of few numbers and back."""

    kind: Literal["dense", "linear", "conv", "denoising"] = "dense"
    """"dense" is 784-32-784; "linear" has no ReLU; "denoising" removes noise of deviation 0.5."""
    data_dir: str | None = None
    """Folder of MNIST's IDX files; JDL_DATA_DIR where left out; without either, the digits."""
    code: int | None = None
    """Numbers in the code; 32 on MNIST, 16 on the digits."""
    epochs: int | None = None
    """Passes over the training set; on MNIST 50 (conv: 5), on the digits 400 (conv: 100)."""
    batch_size: int = 128
    learning_rate: float = 2e-3

    def __post_init__(self):
        check_fields(self, code=1, epochs=1, batch_size=1, learning_rate=0)


def experiment(config: Config) -> jdl.Experiment:
    data = jdl.data.mnist_or_digits(config.data_dir)
    mnist, conv = data.info["name"] == "mnist", config.kind == "conv"
    epochs = config.epochs or ((50, 5) if mnist else (400, 100))[conv]
    code, shape = config.code or (32 if mnist else 16), data.info["shape"]
    unit, loss = ("identity", "gaussian") if config.kind == "linear" else ("relu", "bernoulli")
    network = jdl.models.Autoencoder(code, activation=unit, shape=shape)
    if conv:
        network = jdl.models.ConvAutoencoder(code, shape=shape)
    task = jdl.tasks.reconstruction(jdl.from_linen(network), loss)
    spoil = jdl.tasks.gaussian_noise(0.5) if config.kind == "denoising" else None
    task = jdl.tasks.denoising(task, spoil) if spoil else task
    rate = optax.cosine_decay_schedule(config.learning_rate, data.steps(epochs, config.batch_size))
    return jdl.Experiment(
        name=f"autoencoder_{config.kind}",
        learner=jdl.learner(task, optax.adam(rate)),
        data=data,
        batch_size=config.batch_size,
        epochs=epochs,
        pictures=lambda result: pictures(result, data.valid["x"][:12], conv, spoil),
        remark=lambda result: remark(result, data, code, bool(spoil)),
    )


def remark(result: jdl.Result, data: jdl.Data, code: int, noisy: bool) -> str:
    train, test, found = data.train["x"], data.test()["x"], jdl.evaluate(result, data.test())
    line = f"test mse {found['mse']:.5f}, loss {found['loss']:.5f}; mse "
    line += f"{principal_components(train, test, code):.5f} of {code} principal components, "
    line += f"{principal_components(train, test, 0):.5f} of the mean image"
    return line + (f", {0.5**2:.5f} of the noisy image itself" if noisy else "")


def pictures(result: jdl.Result, x: Any, conv: bool, spoil: Any) -> dict[str, Any]:
    """Images beside what came back, and the weights that read or draw them."""
    given = {"given": spoil(jax.random.key(0), x)} if spoil else {"original": x}
    rows = {"original": x, **given, "returned": jdl.predict(result, *given.values())}
    part, layer = ("encoder", "conv_1") if conv else ("decoder", "output")
    kernel = result.state.params[part][layer]["kernel"]
    return {
        "reconstructions": draw.figure(draw.mosaic(rows, "Images and their reconstructions")),
        "filters": draw.figure(draw.kernels(kernel, x.shape[1:], f"Weights of {part}/{layer}")),
    }


if __name__ == "__main__":
    jdl.main(Config, experiment)
