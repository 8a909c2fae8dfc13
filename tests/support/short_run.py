"""An experiment of a few seconds on the embedded digits, for programs that are installed.

It is copied out of the checkout, so it needs nothing but jdl.
"""

import dataclasses

import optax

import jdl


@dataclasses.dataclass(frozen=True)
class Config:
    """A convolutional network on the digits, small enough to train in seconds."""

    epochs: int = 1
    batch_size: int = 128
    learning_rate: float = 5e-3


def experiment(config: Config) -> jdl.Experiment:
    data = jdl.data.load("digits")
    network = jdl.models.CNN((8,), (32,), classes=10, padding="SAME", dropout=0.1)
    learner = jdl.learner(
        jdl.classification(jdl.from_linen(network)), optax.adam(config.learning_rate)
    )
    return jdl.Experiment(
        name="short_run",
        learner=jdl.ema(learner, 0.9),
        data=data,
        batch_size=config.batch_size,
        epochs=config.epochs,
        best="max accuracy",
    )


if __name__ == "__main__":
    jdl.main(Config, experiment)
