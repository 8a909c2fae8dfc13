"""Autoencoders on MNIST, or on the embedded 8x8 digits where there is no MNIST.

command   python experiments/autoencoder.py [--data-dir FOLDER] [--kind linear]
data      MNIST's four IDX files in FOLDER (or in JDL_DATA_DIR); else scikit-learn's 1,797 digits
device    CPU, 2 cores
time      TODO
expect    TODO
"""

import dataclasses
import os
from typing import Any, Literal

import numpy as np
import optax

import jdl
from jdl.core.check import within


@dataclasses.dataclass(frozen=True)
class Config:
    """Images through a code of few numbers and back."""

    kind: Literal["dense", "linear", "conv", "denoising"] = "dense"
    """"dense" is 784-32-784; "linear" has no ReLU; "denoising" removes noise of deviation 0.5."""
    data_dir: str | None = None
    """Folder of MNIST's IDX files; JDL_DATA_DIR where left out; without either, the digits."""
    code: int | None = None
    """Numbers in the code; 32 on MNIST, 8 on the digits."""
    epochs: int | None = None
    """Passes over the training set; on MNIST 50 (conv: 5), on the digits 400."""
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
    code = config.code or (32 if folder else 8)
    epochs = config.epochs or (400 if not folder else 5 if config.kind == "conv" else 50)
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
        flat, mean = x.reshape(len(x), -1), data.train["x"].reshape(-1, x[0].size).mean(0)
        return (
            f"test mse {found['mse']:.5f}, loss {found['loss']:.5f}; for comparison the mse of "
            f"{code} principal components {components(data.train['x'], x, code):.5f}, "
            f"of the mean image {((flat - mean[None]) ** 2).mean():.5f}"
        )

    def pictures(result: jdl.Result) -> dict[str, Any]:
        import jax

        x = data.valid["x"][:12]
        rows = {"original": x, "returned": jdl.predict(result, x)}
        if config.kind == "denoising":
            given = np.asarray(spoil(jax.random.key(0), x))
            rows = {"original": x, "given": given, "returned": jdl.predict(result, given)}
        layer = ("encoder", "conv_1") if config.kind == "conv" else ("decoder", "output")
        kernel = np.asarray(result.train.params[layer[0]][layer[1]]["kernel"])
        drawn = kernel[..., 0, :].transpose(2, 0, 1) if config.kind == "conv" else kernel
        drawn = drawn.reshape(len(drawn), *(shape if kernel.ndim == 2 else (3, 3, 1)))[:32]
        what = "First filters" if config.kind == "conv" else "What one unit of the code draws"
        return {
            "reconstructions": mosaic(f"{config.kind}: images and what comes back", rows),
            "filters": mosaic(what, dict(enumerate(np.array_split(drawn, 2))), signed=True),
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


def mosaic(title: str, rows: dict[Any, np.ndarray], signed: bool = False) -> Any:
    """Rows of images (n, height, width, 1); signed ones in blue and red around white."""
    from matplotlib.figure import Figure

    tiles = [np.concatenate([np.pad(i[..., 0], 1) for i in row], 1) for row in rows.values()]
    width = max(tile.shape[1] for tile in tiles)
    whole = np.concatenate([np.pad(t, ((0, 0), (0, width - t.shape[1]))) for t in tiles])
    top = float(abs(whole).max()) if signed else 1.0
    height = tiles[0].shape[0]
    figure = Figure(figsize=(10, 10 * len(whole) / width + 0.6), layout="constrained")
    axis = figure.subplots()
    axis.imshow(whole, cmap="RdBu_r" if signed else "gray", vmin=-top if signed else 0, vmax=top)
    axis.set_yticks([height * (i + 0.5) - 0.5 for i in range(len(rows))])
    axis.set_yticklabels([name if isinstance(name, str) else "" for name in rows])
    axis.tick_params(length=0)
    axis.set(xticks=[], title=title)
    axis.spines[:].set_visible(False)
    axis.grid(False)
    return figure


if __name__ == "__main__":
    jdl.main(Config, experiment)
