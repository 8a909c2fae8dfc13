"""Networks trained to judge others: of generated images, and of features learned without labels."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import optax

from jdl.data.prepare import scale
from jdl.data.records import Data
from jdl.learn.learner import learner
from jdl.metrics import frechet_distance
from jdl.models import CNN, MLP, from_linen, layer_outputs
from jdl.run.evaluate import Result, evaluate, predict
from jdl.run.fit import fit
from jdl.run.setup import Options
from jdl.tasks.supervised import classification
from jdl.tasks.transforms import l2

FEATURE_LAYER = "dense_1"


class GenerationMetrics(NamedTuple):
    """The share of each class among images, and their Fréchet distance from the real ones."""

    shares: np.ndarray
    distance: float


class ImageEvaluator(NamedTuple):
    """A classifier of real images that says what generated images show.

    Called with images (n, ...) it returns a `GenerationMetrics`: a share near zero is a class that
    the generator has lost. The distance is that of the last hidden layer's values from those of the
    real test part: zero for the same distribution (Heusel et al. 2017, there by another network).
    """

    network: CNN
    result: Result
    accuracy: float
    """Its own, on the test part."""
    real: np.ndarray
    """Features of the test part."""

    def __call__(self, images: np.ndarray) -> GenerationMetrics:
        """What it makes of images in the range of those that it was trained on."""
        outputs = predict(self.result, images)
        shares = np.bincount(outputs.argmax(-1), minlength=outputs.shape[-1]) / len(outputs)
        return GenerationMetrics(
            shares, frechet_distance(_features(self.network, self.result, images), self.real)
        )

    def report(self, images: np.ndarray, real: np.ndarray) -> str:
        """The verdict on generated images in a line, beside those on noise and on real images."""
        shares, distance = self(images)
        noise = np.random.default_rng(0).uniform(size=real.shape).astype(np.float32)
        percent = " ".join(f"{100 * share:.1f}" for share in shares)
        return (
            f"classes 0 to {len(shares) - 1}, in % of what is drawn: {percent}; "
            f"smallest {100 * shares.min():.1f} %; FID {distance:.1f} "
            f"(noise {self(noise).distance:.1f}, other real images {self(real).distance:.1f}); "
            f"the judge's own test accuracy {self.accuracy:.4f}"
        )


def train_image_evaluator(data: Data, epochs: float, *, seed: int = 0) -> ImageEvaluator:
    """Train a small convolutional network on the training part, to judge generated images."""
    size = min(data.info["shape"][:2])
    padding = "VALID" if size > 9 else "SAME"
    network = CNN((16, 32), (64,), data.info["classes"], padding=padding)
    task = classification(from_linen(network))
    quiet = Options(bar=False)
    result = fit(
        learner(task, optax.adam(2e-3)), data.train,
        batch_size=64, epochs=epochs, seed=seed, options=quiet,
    )  # fmt: skip
    test = data.test()
    real = _features(network, result, test["x"])
    return ImageEvaluator(network, result, evaluate(result, test)["accuracy"], real)


def _features(network: CNN, result: Result, images: np.ndarray) -> np.ndarray:
    """The last hidden layer, after its ReLU: (n, 64)."""
    parts = [
        layer_outputs(network, result.state.params, some, FEATURE_LAYER)
        for some in np.array_split(images, -(-len(images) // 1000))
    ]
    return np.maximum(np.concatenate(parts), 0)


def linear_probe(
    known: Mapping[str, Any],
    judged: Mapping[str, Any],
    encode: Callable[[Any], Any] = np.asarray,
    *,
    penalty: float = 3e-3,
    learning_rate: float = 1e-2, epochs: int = 400,
) -> float:  # fmt: skip
    """The accuracy on `judged` of a linear classifier that is trained on `known`.

    Both hold inputs `x` and labels `y`; `encode` makes features (n, features) of inputs, which are
    standardised by those of `known`. It says how much of the classes lies open in the features of
    a frozen encoder (Alain & Bengio 2017). Every step sees all of `known`; a squared penalty keeps
    the weights small.

    >>> x = np.array([[0.0, 1.0], [1.0, 0.0], [0.1, 1.0], [0.9, 0.2]], np.float32)
    >>> some = {"x": x, "y": np.array([0, 1, 0, 1])}
    >>> linear_probe(some, some, epochs=50)
    1.0
    """
    features, others = encode(known["x"]), encode(judged["x"])
    statistics = scale.standard_scaler.fit(features)
    classes = int(np.max(known["y"])) + 1
    task = classification(from_linen(MLP((), outputs=classes)))
    fitted = fit(
        learner(l2(task, penalty), optax.adam(learning_rate)),
        {"x": scale.standard_scaler.apply(statistics, features), "y": known["y"]},
        batch_size=len(known["y"]),
        epochs=epochs,
        options=Options(bar=False, dispatch="loop"),
    )
    test = {"x": scale.standard_scaler.apply(statistics, others), "y": judged["y"]}
    return evaluate(fitted, test, batch_size=2_000)["accuracy"]
