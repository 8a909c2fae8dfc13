"""An encoder that learns from images without labels, then reads digits from 100 labels.

command   python experiments/self_supervised.py --data-dir FOLDER [--pretext rotation] --run.seeds 3
data      MNIST's four IDX files in FOLDER (or in JDL_DATA_DIR); else scikit-learn's 1,797 digits
device    CPU, 2 cores
time      not measured yet
expect    not measured yet

The encoder's 64 features are frozen and a linear classifier is trained on 10 labelled images of
each class. The baseline is the same classifier on the same encoder before training.
"""

import dataclasses
import functools
import os
from typing import Any, Literal

import jax
import numpy as np
import optax
from flax import linen as nn

import jdl
from jdl.core.check import fields_within


@dataclasses.dataclass(frozen=True)
class Config:
    """Learning without labels, judged by a linear classifier of 100 labels."""

    data_dir: str | None = None
    """Folder of MNIST's IDX files; JDL_DATA_DIR where left out; without either, the digits."""
    pretext: Literal["contrastive", "rotation", "masked"] = "contrastive"
    """Two views of an image are alike; by how much an image is turned; what hidden squares show."""
    steps: int = 1_500
    batch_size: int = 128
    learning_rate: float = 2e-3

    def __post_init__(self):
        fields_within(self, steps=1, batch_size=1, learning_rate=0)


def encoder() -> jdl.models.CNN:
    """Images to 64 features."""
    return jdl.models.CNN((16, 32), hidden=(), classes=64, padding="SAME", name="encoder")


class Net(nn.Module):
    """The encoder, and a head that is thrown away after training."""

    shape: tuple[int, ...]

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        features = encoder()(images)
        head = jdl.models.MLP((128,), outputs=int(np.prod(self.shape)), name="head")
        return head(nn.relu(features)).reshape(len(images), *self.shape)


@functools.cache
def load(folder: str | None) -> jdl.Data:
    folder = folder or os.environ.get("JDL_DATA_DIR")
    return jdl.data.load("mnist" if folder else "digits", dir=folder)


def pretext(config: Config, shape: tuple[int, ...]) -> Any:
    """The task, which knows no labels."""
    large = shape[0] > 8
    if config.pretext == "rotation":
        return jdl.tasks.rotation(jdl.from_linen(Net((4,))))
    if config.pretext == "masked":
        model = jdl.from_linen(Net(shape))
        return jdl.tasks.masked_reconstruction(model, patch=4 if large else 2, share=0.5)
    affine = jdl.data.augment.affine(
        degrees=20, scale=0.3 if large else 0.15, shift=3.0 if large else 1.0
    )
    return jdl.tasks.contrastive(jdl.from_linen(Net((64,))), affine, temperature=0.3)


def experiment(config: Config) -> jdl.Experiment:
    data = load(config.data_dir)
    images = data.train["x"]
    rate = jdl.optim.schedule("warmup_cosine", config.learning_rate, config.steps)
    return jdl.Experiment(
        name=f"self_supervised_{config.pretext}",
        learner=jdl.learner(pretext(config, images.shape[1:]), optax.adam(rate)),
        data={"x": images},
        valid={"x": data.valid["x"]},
        batch_size=config.batch_size,
        epochs=config.steps * config.batch_size / len(images),
        options=jdl.Options(evaluate_every=max(1, config.steps // 4)),
        pictures=functools.partial(pictures, config),
        remark=functools.partial(remark, config),
    )


def features(params: Any, images: np.ndarray) -> np.ndarray:
    """What the encoder makes of images."""
    encode = jax.jit(lambda part: encoder().apply({"params": params}, part))
    return np.concatenate([encode(images[i : i + 2_000]) for i in range(0, len(images), 2_000)])


def encoders(config: Config, result: jdl.Result) -> dict[str, Any]:
    """The encoder as trained, and one as it was drawn before any training."""
    draw = jax.random.fold_in(result.train.key, 1)
    images = load(config.data_dir).train["x"][:1]
    return {
        "random": jax.jit(encoder().init)(draw, images)["params"],
        config.pretext: result.train.params["encoder"],
    }


def labelled(y: np.ndarray, each: int = 10) -> np.ndarray:
    """The first ten training images of every class."""
    return np.concatenate([np.flatnonzero(y == label)[:each] for label in np.unique(y)])


def probe(params: Any, train: dict[str, Any], judged: dict[str, Any]) -> float:
    """Accuracy of a linear classifier that has seen the features of the labelled images."""
    chosen = labelled(train["y"])
    known, others = features(params, train["x"][chosen]), features(params, judged["x"])
    statistics = jdl.data.scale.standardise.fit(known)
    known, others = (jdl.data.scale.standardise.apply(statistics, z) for z in (known, others))
    linear = jdl.classification(jdl.from_linen(jdl.models.MLP((), outputs=10)))
    fitted = jdl.fit(
        jdl.learner(jdl.l2(linear, 3e-3), optax.adam(1e-2)),
        {"x": known, "y": train["y"][chosen]},
        batch_size=len(chosen),
        epochs=400,
        options=jdl.Options(bar=False, dispatch="loop"),
    )
    return jdl.evaluate(fitted, {"x": others, "y": judged["y"]}, batch_size=2_000)["accuracy"]


def remark(config: Config, result: jdl.Result) -> str:
    data = load(config.data_dir)
    test = data.test()
    found = {name: probe(p, data.train, test) for name, p in encoders(config, result).items()}
    random, learned = found["random"], found[config.pretext]
    return (
        f"test accuracy from 100 labels: {learned:.4f} ({config.pretext}), {random:.4f} (random "
        f"encoder): {100 * (learned - random):+.1f} points"
    )


def pictures(config: Config, result: jdl.Result) -> dict[str, Any]:
    """Features of validation images, on their two main axes, before and after training."""
    from matplotlib.figure import Figure

    valid = load(config.data_dir).valid
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, (name, params) in zip(axes, encoders(config, result).items(), strict=True):
        z = features(params, valid["x"][:1_500])
        z = z / np.linalg.norm(z, axis=-1, keepdims=True)
        z = z - z.mean(0)
        places = z @ np.linalg.svd(z, full_matrices=False)[2][:2].T
        axis.scatter(*places.T, c=valid["y"][:1_500], cmap="tab10", s=8, vmin=-0.5, vmax=9.5)
        axis.set(xticks=[], yticks=[], xlabel="first main axis", ylabel="second main axis")
        axis.set_title(f"{name} encoder" if name == "random" else f"learned: {name}")
    figure.colorbar(axes[1].collections[0], ax=list(axes), label="class", ticks=range(10))
    return {"embeddings": figure}


if __name__ == "__main__":
    jdl.main(Config, experiment)
