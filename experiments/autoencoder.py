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
import os
from typing import Any, Literal

import jax
import numpy as np
import optax

import jdl
from jdl.core.check import within
from jdl.run.mosaics import mosaic


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
    """Of Adam; it falls to zero by a cosine."""

    def __post_init__(self):
        within("code", self.code, 1)
        within("epochs", self.epochs, 1)
        within("batch_size", self.batch_size, 1)
        within("learning_rate", self.learning_rate, 0)


def experiment(config: Config) -> jdl.Experiment:
    folder = config.data_dir or os.environ.get("JDL_DATA_DIR")
    data = jdl.data.load("mnist" if folder else "digits", dir=folder)
    code = config.code or (32 if folder else 16)
    usual = (50, 5) if folder else (400, 100)
    epochs = config.epochs or usual[config.kind == "conv"]
    shape, linear = data.info["shape"], config.kind == "linear"
    if config.kind == "conv":
        network = jdl.models.ConvAutoencoder(code, shape=shape)
    else:
        activation = "identity" if linear else "relu"
        network = jdl.models.Autoencoder(code, activation=activation, shape=shape)
    task = jdl.tasks.reconstruction(jdl.from_linen(network), "gaussian" if linear else "bernoulli")
    spoil = jdl.tasks.gaussian_noise(0.5)
    if config.kind == "denoising":
        task = jdl.tasks.denoising(task, spoil)
    steps = epochs * len(data.train["x"]) // config.batch_size
    rate = optax.cosine_decay_schedule(config.learning_rate, steps)

    def remark(result: jdl.Result) -> str:
        x, found = data.test()["x"], jdl.evaluate(result, data.test())
        others = {
            f"{code} principal components": components(data.train["x"], x, code),
            "the mean image": float(((x - data.train["x"].mean(0)[None]) ** 2).mean()),
        }
        if config.kind == "denoising":
            others["the noisy image itself"] = 0.5**2
        compared = ", ".join(f"{value:.5f} of {name}" for name, value in others.items())
        return f"test mse {found['mse']:.5f}, loss {found['loss']:.5f}; mse {compared}"

    def pictures(result: jdl.Result) -> dict[str, Any]:
        x = data.valid["x"][:12]
        rows = {"original": x, "returned": jdl.predict(result, x)}
        if config.kind == "denoising":
            given = np.asarray(spoil(jax.random.key(0), x))
            rows = {"original": x, "given": given, "returned": jdl.predict(result, given)}
        if config.kind == "conv":
            kernel = result.train.params["encoder"]["conv_1"]["kernel"]
            drawn, what = np.moveaxis(kernel, -1, 0), "Filters of the first convolution"
        else:
            kernel = result.train.params["decoder"]["output"]["kernel"]
            drawn, what = np.reshape(kernel, (-1, *shape)), "What each unit of the code draws"
        drawn = drawn[: len(drawn) // 2 * 2][:32].reshape(2, -1, *drawn.shape[1:])
        title = f"{config.kind} autoencoder, {code} numbers in the code"
        return {
            "reconstructions": mosaic(np.stack([*rows.values()]), title, list(rows)),
            "filters": mosaic(drawn, what, signed=True),
        }

    return jdl.Experiment(
        name=f"autoencoder_{config.kind}",
        learner=jdl.learner(task, optax.adam(rate)),
        data=data,
        batch_size=config.batch_size,
        epochs=epochs,
        pictures=pictures,
        remark=remark,
    )


def components(train: np.ndarray, test: np.ndarray, count: int) -> float:
    """The squared error of principal components: the best that a linear code can do."""
    train, test = (x.reshape(len(x), -1).astype(np.float64) for x in (train, test))
    mean = train.mean(0)[None]
    axes = np.linalg.eigh(np.cov(train.T))[1][:, -count:]
    return float((((test - mean) - (test - mean) @ axes @ axes.T) ** 2).mean())


if __name__ == "__main__":
    jdl.main(Config, experiment)
