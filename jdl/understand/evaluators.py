"""Evaluate generated images with a classifier, and learned features with a linear probe."""

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
    """What an `ImageEvaluator` measures on images."""

    shares: np.ndarray
    """The share of each class among the predictions, (classes,)."""
    distance: float
    """Fréchet distance of the features from those of real images; 0 for equal distributions."""


class ImageEvaluator(NamedTuple):
    """A classifier trained on real images, with which you evaluate generated ones.

    Call it with images (n, height, width, channels), scaled like the real ones, for the share of
    each class among its predictions and the Fréchet distance of its features from those of the
    test set. A share near zero shows a class that the generator has lost. The features are the
    last hidden layer of this small network, so compare distances only under the same evaluator.
    `train_image_evaluator` trains one.

    Heusel et al. 2017, "GANs trained by a two time-scale update rule converge to a local Nash
    equilibrium", which uses the features of an Inception network.
    """

    network: CNN
    result: Result
    accuracy: float
    """The classifier's accuracy on the test set."""
    real: np.ndarray
    """Features of the test set, (n, 64)."""

    def __call__(self, images: np.ndarray) -> GenerationMetrics:
        """Class shares and Fréchet distance of images (n, height, width, channels)."""
        outputs = predict(self.result, images)
        shares = np.bincount(outputs.argmax(-1), minlength=outputs.shape[-1]) / len(outputs)
        return GenerationMetrics(
            shares, frechet_distance(_features(self.network, self.result, images), self.real)
        )

    def report(self, images: np.ndarray, real: np.ndarray) -> str:
        """The metrics of generated images in one line, with those of noise and of real images."""
        shares, distance = self(images)
        noise = np.random.default_rng(0).uniform(size=real.shape).astype(np.float32)
        percent = " ".join(f"{100 * share:.1f}" for share in shares)
        return (
            f"classes 0 to {len(shares) - 1} in % of the generated images: {percent}; "
            f"smallest {100 * shares.min():.1f} %; FID {distance:.1f} "
            f"(noise {self(noise).distance:.1f}, other real images {self(real).distance:.1f}); "
            f"test accuracy of the evaluator {self.accuracy:.4f}"
        )


def train_image_evaluator(data: Data, epochs: float, *, seed: int = 0) -> ImageEvaluator:
    """Train a small convolutional classifier on real images, to evaluate generated ones.

    It trains on the training set, images (n, height, width, channels) of at least 8x8 pixels, and
    takes the reference features from the test set:

        evaluator = jdl.train_image_evaluator(jdl.data.load("digits"), epochs=30)
        shares, distance = evaluator(generated_images)
        print(evaluator.report(generated_images, real_images))
    """
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
    """The last hidden layer after its ReLU, (n, 64)."""
    parts = [
        layer_outputs(network, result.state.params, part, FEATURE_LAYER)
        for part in np.array_split(images, -(-len(images) // 1000))
    ]
    return np.maximum(np.concatenate(parts), 0)


def linear_probe(
    known: Mapping[str, Any],
    judged: Mapping[str, Any],
    encode: Callable[[Any], np.ndarray] = np.asarray,
    *,
    penalty: float = 3e-3,
    learning_rate: float = 1e-2, epochs: int = 400,
) -> float:  # fmt: skip
    """Train a linear classifier on the features of a frozen encoder and return its accuracy.

    Trains on `known` and evaluates on `judged`, each with inputs `x` (n, ...) and integer labels
    `y` (n,). `encode` maps inputs to features (n, features), which are standardised with the mean
    and standard deviation of `known`. Each epoch is one step on all of `known`, with an L2 penalty
    of weight `penalty`.

    >>> x = np.array([[0.0, 1.0], [1.0, 0.0], [0.1, 1.0], [0.9, 0.2]], np.float32)
    >>> examples = {"x": x, "y": np.array([0, 1, 0, 1])}
    >>> linear_probe(examples, examples, epochs=50)
    1.0

    Alain and Bengio 2017, "Understanding intermediate layers using linear classifier probes".
    """
    features, others = encode(known["x"]), encode(judged["x"])
    statistics = scale.standardise.fit(features)
    classes = int(np.max(known["y"])) + 1
    task = classification(from_linen(MLP((), outputs=classes)))
    fitted = fit(
        learner(l2(task, penalty), optax.adam(learning_rate)),
        {"x": scale.standardise.apply(statistics, features), "y": known["y"]},
        batch_size=len(known["y"]),
        epochs=epochs,
        options=Options(bar=False, dispatch="loop"),
    )
    test = {"x": scale.standardise.apply(statistics, others), "y": judged["y"]}
    return evaluate(fitted, test, batch_size=2_000)["accuracy"]
