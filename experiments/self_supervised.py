"""An encoder that learns from images without labels, then reads digits from 100 labels.

command   python experiments/self_supervised.py --data-dir FOLDER [--pretext rotation]
data      MNIST's four IDX files in FOLDER (or in JDL_DATA_DIR); else scikit-learn's 1,797 digits
device    CPU, 2 cores
time      5 min beside other programs
expect    test accuracy from 100 labels of MNIST: contrastive 0.8380; --pretext masked --steps 3000
          0.7294; --pretext rotation --steps 600 0.7007; random encoder 0.5170

The encoder ends, as SimCLR's, in means over the image. Its 64 features are frozen and a linear
classifier is trained on 10 labelled images of each class. The baseline is the same classifier on
the same encoder before training.
"""

import dataclasses
from typing import Any, Literal

import jax
import optax

import jdl
from jdl import pictures as draw
from jdl.core.check import check_fields

ENCODER = jdl.models.VGG(((16,), (32,), (64,)), hidden=(), pooled=1, classes=64, norm="group")


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
        check_fields(self, steps=1, batch_size=1, learning_rate=0)


def pretext(config: Config, shape: tuple[int, ...]) -> jdl.Task:
    """The task, which knows no labels."""
    patch, scale, shift = (4, 0.3, 3.0) if shape[0] > 8 else (2, 0.15, 1.0)
    head = {"rotation": (4,), "masked": shape, "contrastive": (64,)}[config.pretext]
    model = jdl.from_linen(jdl.models.Headed(ENCODER, head))
    if config.pretext == "rotation":
        return jdl.tasks.rotation(model)
    if config.pretext == "masked":
        return jdl.tasks.masked_reconstruction(model, patch=patch, share=0.5)
    affine = jdl.data.augment.affine(degrees=20, scale=scale, shift=shift)
    return jdl.tasks.contrastive(model, affine, temperature=0.3)


def experiment(config: Config) -> jdl.Experiment:
    data = jdl.data.mnist_or_digits(config.data_dir)
    images = data.train["x"]
    shown = {name: value[:1_500] for name, value in data.valid.items()}
    rate = jdl.optim.schedule("warmup_cosine", config.learning_rate, config.steps)
    return jdl.Experiment(
        name=f"self_supervised_{config.pretext}",
        learner=jdl.learner(pretext(config, images.shape[1:]), optax.adam(rate)),
        data={"x": images},
        valid={"x": data.valid["x"]},
        batch_size=config.batch_size,
        epochs=config.steps * config.batch_size / len(images),
        options=jdl.Options(evaluate_every=max(1, config.steps // 4)),
        pictures=lambda result: {"embeddings": draw.embeddings(encoders(result, data), **shown)},
        remark=lambda result: remark(encoders(result, data), data, config.pretext),
    )


def encoders(result: jdl.Result, data: jdl.Data) -> dict[str, Any]:
    """The encoder as it was drawn before any training, and as trained."""
    key, image = jax.random.fold_in(result.state.key, 1), data.train["x"][:1]
    drawn = jax.jit(ENCODER.init)(key, image)["params"]
    params = {"random": drawn, "learned": result.state.params["encoder"]}
    return {name: jdl.models.encoder_of(ENCODER, weights) for name, weights in params.items()}


def remark(encoders: dict[str, Any], data: jdl.Data, name: str) -> str:
    few, test = jdl.data.balance.first_of_each(data.train, 10), data.test()
    found = {name: jdl.linear_probe(few, test, encode) for name, encode in encoders.items()}
    learned, random = found["learned"], found["random"]
    said = f"test accuracy from 100 labels: {learned:.4f} ({name}), {random:.4f} (random encoder)"
    return f"{said}: {100 * (learned - random):+.1f} points"


if __name__ == "__main__":
    jdl.main(Config, experiment)
