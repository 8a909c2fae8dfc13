"""Self-supervised pretraining of an encoder, evaluated by a linear probe on 100 labels.

command   python experiments/self_supervised.py --data-dir FOLDER [--pretext rotation]
data      MNIST's four IDX files in FOLDER or JDL_DATA_DIR; without them scikit-learn's digits
device    CPU, 2 cores
time      5 min on a busy machine
expect    test accuracy from 100 labels of MNIST: contrastive 0.8380; masked with --steps 3000
          0.7294; rotation with --steps 600 0.7007; random encoder 0.5170

Like SimCLR's, the encoder ends with global average pooling. Its 64 features are frozen, and a
linear classifier is trained on 10 labelled images of each class. The baseline is the same
classifier on an encoder with random weights.
"""

import dataclasses
from typing import Any, Literal

import jax
import optax

import jdl
from jdl import plots

ENCODER = jdl.models.VGG(((16,), (32,), (64,)), hidden=(), pooled=1, classes=64, norm="group")


@dataclasses.dataclass(frozen=True)
class Config:
    """Self-supervised pretraining, evaluated by a linear probe."""

    data_dir: str | None = None
    """Folder of MNIST's IDX files; default: JDL_DATA_DIR, or the 8x8 digits if it is not set."""
    pretext: Literal["contrastive", "rotation", "masked"] = "contrastive"
    """Match two views of an image, predict its rotation, or reconstruct masked patches."""
    steps: int = 1_500
    batch_size: int = 128
    learning_rate: float = 2e-3

    def __post_init__(self):
        jdl.check_fields(self, steps=1, batch_size=1, learning_rate=0)


def experiment(config: Config) -> jdl.Experiment:
    data = jdl.data.mnist_or_digits(config.data_dir)
    images = data.train["x"]
    task = pretext_task(config, images.shape[1:])
    learning_rate = jdl.optim.schedule("warmup_cosine", config.learning_rate, config.steps)
    return jdl.Experiment(
        name=f"self_supervised_{config.pretext}",
        learner=jdl.learner(task, optax.adam(learning_rate)),
        data={"x": images},
        valid={"x": data.valid["x"]},
        batch_size=config.batch_size,
        epochs=config.steps * config.batch_size / len(images),
        options=jdl.Options(evaluate_every=max(1, config.steps // 4)),
        figures=lambda result: figures(result, data),
        summary_line=lambda result: summary_line(result, data, config.pretext),
    )


def pretext_task(config: Config, shape: tuple[int, ...]) -> jdl.Task:
    """The task from which the encoder learns without labels."""
    large = shape[0] > 8
    if config.pretext == "rotation":
        return jdl.tasks.rotation_prediction(with_head((4,)))
    if config.pretext == "masked":
        patch = 4 if large else 2
        return jdl.tasks.masked_reconstruction(with_head(shape), patch=patch, share=0.5)
    augmentation = jdl.data.augmentations.affine(
        degrees=20, scale=0.3 if large else 0.15, shift=3.0 if large else 1.0
    )
    return jdl.tasks.contrastive(with_head((64,)), augmentation, temperature=0.3)


def with_head(shape: tuple[int, ...]) -> jdl.Model:
    """The encoder with a head whose outputs have the given shape."""
    return jdl.from_linen(jdl.models.EncoderWithHead(ENCODER, shape))


def encoders(result: jdl.Result, data: jdl.Data) -> dict[str, Any]:
    """The encoder with random weights and with the learned weights."""
    key = jax.random.fold_in(result.state.key, 1)
    random_params = jax.jit(ENCODER.init)(key, data.train["x"][:1])["params"]
    return {
        "random": jdl.models.batched_encoder(ENCODER, random_params),
        "learned": jdl.models.batched_encoder(ENCODER, result.state.params["encoder"]),
    }


def summary_line(result: jdl.Result, data: jdl.Data, pretext: str) -> str:
    labelled = jdl.data.balance.first_per_class(data.train, 10)
    accuracy = {
        name: jdl.linear_probe(labelled, data.test(), encode)
        for name, encode in encoders(result, data).items()
    }
    gain = 100 * (accuracy["learned"] - accuracy["random"])
    return (
        f"test accuracy from 100 labels: {accuracy['learned']:.4f} ({pretext}), "
        f"{accuracy['random']:.4f} (random encoder): {gain:+.1f} points"
    )


def figures(result: jdl.Result, data: jdl.Data) -> dict[str, Any]:
    """The principal components of the features of 1,500 validation images."""
    images, labels = data.valid["x"][:1_500], data.valid["y"][:1_500]
    return {"embeddings": plots.embeddings(encoders(result, data), images, labels)}


if __name__ == "__main__":
    jdl.main(Config, experiment)
