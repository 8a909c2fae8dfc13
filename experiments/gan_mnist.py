"""A generator against a discriminator on MNIST, judged by a classifier trained in the same run.

command   python experiments/gan_mnist.py [--data-dir FOLDER] [--recipe plain] [--kind conv]
data      MNIST's four IDX files in FOLDER (or in JDL_DATA_DIR); else scikit-learn's 1,797 digits
device    CPU, 2 cores
time      4 min of processor time on MNIST, 20 s on the digits
expect    MNIST, 20,000 steps: all ten digits, the rarest 4.6 %; FID 46.2 (noise 561, real 0.9);
          --recipe plain --steps 2000: 60 % are taken for a 3, the rarest 0.1 %; FID 221;
          digits: the rarest 5.8 %; FID 9.6 (plain: 5.4 % and 14.8; noise 127, real 1.3)

The plain pair loses digits. The recipes cure it with batch normalisation in the generator, a
discriminator of bounded slope (spectral normalisation or a gradient penalty), or two time scales.
"FID" is the Frechet distance (Heusel et al. 2017) in the classifier's last hidden layer: zero for
the same distribution.
"""

import dataclasses
import functools
from typing import Any, Literal

import numpy as np
import optax

import jdl
from jdl.core.check import fields_within
from jdl.run import mosaics

LATENT = 100


@dataclasses.dataclass(frozen=True)
class Config:
    """Digits drawn from noise."""

    recipe: Literal["normalised", "plain", "spectral", "wgan_gp", "ttur"] = "normalised"
    """What keeps the pair from collapsing; "plain": nothing does."""
    kind: Literal["dense", "conv"] = "dense"
    """Dense layers, or the convolutions of DCGAN, whose generator is always normalised."""
    data_dir: str | None = None
    """Folder of MNIST's IDX files; JDL_DATA_DIR where left out; without either, the digits."""
    steps: int | None = None
    """20,000 on MNIST (conv: 4,000), 3,000 on the digits."""
    batch_size: int = 64
    learning_rate: float = 2e-4
    """Of Adam(0.5, 0.999); with "ttur" the discriminator's is four times as large."""
    average: float = 0.999
    """Decay of the average of the weights that draws, in all recipes but "plain"."""

    judge_epochs: int | None = None
    """Passes of the judging classifier over the training part; 1 on MNIST, 30 on the digits."""

    def __post_init__(self):
        fields_within(
            self, steps=1, batch_size=1, learning_rate=0, judge_epochs=1, average=(0, 0.999999)
        )


def pair(config: Config, shape: tuple[int, ...]) -> jdl.Learner:
    """The two players by the recipe's rules."""
    recipe, bounded = config.recipe, config.recipe == "spectral"
    if config.kind == "conv":
        makes = jdl.models.ConvGenerator(shape=shape)
        judges = jdl.models.ConvDiscriminator(
            normalisation="spectral" if bounded else "none" if recipe == "wgan_gp" else "batch"
        )
    else:
        makes = jdl.models.DenseGenerator(
            shape=shape, normalised=recipe in ("normalised", "spectral", "ttur")
        )
        judges = jdl.models.DenseDiscriminator(spectral=bounded)
    critic = {"objective": "wasserstein", "gradient_penalty": 10.0} if recipe == "wgan_gp" else {}
    generator, discriminator = jdl.tasks.adversarial(
        jdl.from_linen(makes), jdl.from_linen(judges), LATENT, **critic
    )
    slow = optax.adam(config.learning_rate, b1=0.5)
    fast = optax.adam(4 * config.learning_rate, b1=0.5) if recipe == "ttur" else slow
    players = jdl.game(
        discriminator=jdl.Player(discriminator, fast),
        generator=jdl.Player(generator, slow, every=5 if recipe == "wgan_gp" else 1),
    )
    return players if recipe == "plain" else jdl.ema(players, config.average)


def experiment(config: Config) -> jdl.Experiment:
    data = jdl.data.mnist_or_digits(config.data_dir)
    mnist = data.info["name"] == "mnist"
    steps = config.steps or (3_000 if not mnist else 4_000 if config.kind == "conv" else 20_000)
    x = 2 * data.train["x"] - 1  # the range of tanh

    @functools.cache
    def jury() -> Judge:
        return Judge(data, config.judge_epochs or (1 if mnist else 30))

    def remark(result: jdl.Result) -> str:
        shares, distance = jury()(draw(result, 10_000))
        noise = np.random.default_rng(0).uniform(size=data.train["x"][:10_000].shape)
        real, blind = jury()(data.train["x"][:10_000])[1], jury()(noise.astype(np.float32))[1]
        return (
            f"digits 0 to 9, in % of what is drawn: {' '.join(f'{100 * s:.1f}' for s in shares)}; "
            f"smallest {100 * shares.min():.1f} %; FID {distance:.1f} "
            f"(noise {blind:.1f}, other real digits {real:.1f}); "
            f"the judge's own test accuracy {jury().accuracy:.4f}"
        )

    return jdl.Experiment(
        name=f"gan_mnist_{config.kind}_{config.recipe}",
        learner=pair(config, data.info["shape"]),
        data={"x": x},
        batch_size=config.batch_size,
        epochs=steps * config.batch_size / len(x),
        options=jdl.Options(log_every=100),
        pictures=lambda result: {"samples": picture(config, draw(result, 2_000), jury())},
        remark=remark,
    )


def draw(result: jdl.Result, n: int) -> np.ndarray:
    """Images of random noise, with pixels from 0 to 1."""
    z = np.random.default_rng(1).normal(size=(n, LATENT)).astype(np.float32)
    return (jdl.predict(result, {"z": z}) + 1) / 2


class Judge:
    """A classifier of digits, trained on the training part; it counts what images show."""

    def __init__(self, data: jdl.Data, epochs: int):
        padding = "VALID" if data.info["shape"][0] > 9 else "SAME"
        self.network = jdl.models.CNN((16, 32), (64,), padding=padding)
        task = jdl.classification(jdl.from_linen(self.network))
        quiet = jdl.Options(bar=False)
        learner = jdl.learner(task, optax.adam(2e-3))
        self.result = jdl.fit(
            learner, data.train, batch_size=64, epochs=epochs, seed=0, options=quiet
        )
        test = data.test()
        self.accuracy = jdl.evaluate(self.result, test)["accuracy"]
        self.real = self.features(test["x"])

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, float]:
        """The share of each digit among images, and their distance from the real ones."""
        said = jdl.predict(self.result, images).argmax(-1)
        return np.bincount(said, minlength=10) / len(said), jdl.metrics.frechet(
            self.features(images), self.real
        )

    def features(self, images: np.ndarray) -> np.ndarray:
        """The last hidden layer, (n, 64)."""
        variables = {"params": self.result.train.params}
        hidden = lambda module, _: module.name == "dense_1"
        parts: list[Any] = []
        for some in np.array_split(images, -(-len(images) // 1000)):
            seen: Any = self.network.apply(variables, some, capture_intermediates=hidden)[1]
            parts.append(seen["intermediates"]["dense_1"]["__call__"][0])
        return np.maximum(np.concatenate(parts), 0)


def picture(config: Config, images: np.ndarray, judge: Judge) -> Any:
    """A hundred images, and how often the judge sees each digit."""
    from matplotlib.figure import Figure

    shares, distance = judge(images)
    figure = Figure(figsize=(10, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    grid = images[:100].reshape(10, 10, *images.shape[1:])
    mosaics.draw(left, grid, f"{config.kind} pair, {config.recipe}")
    right.bar(range(10), 100 * shares)
    right.axhline(10, color="0.5", linestyle="--", linewidth=1)
    right.set(xticks=range(10), xlabel="digit, as the judge sees it", ylabel="share in %")
    right.set_title(f"FID {distance:.0f}")
    return figure


if __name__ == "__main__":
    jdl.main(Config, experiment)
