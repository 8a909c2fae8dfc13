"""Autoencoders, and generators against discriminators."""

import jax.numpy as jnp
import optax

from jdl import tasks
from jdl.learn.game import Player, game
from jdl.models import (
    Autoencoder,
    ConvAutoencoder,
    ConvDiscriminator,
    ConvGenerator,
    DenseDiscriminator,
    DenseGenerator,
    VariationalAutoencoder,
    from_linen,
)
from tests.support.contract_rows import DENSE, IMAGES, MASKS, Row, recorded, task_row

SIZE = (6, 6, 1)
# Pixels from 0 to 1.
UNIT = {**DENSE, "x": 1 / (1 + jnp.exp(-DENSE["x"]))}
WIDE = {**IMAGES, "x": jnp.pad(IMAGES["x"], ((0, 0), (1, 1), (1, 1), (0, 0)))}
NOISE = {"z": jnp.linspace(-1, 1, 16 * 3).reshape(16, 3)}
DENSE_PAIR = from_linen(DenseGenerator((4,), (4,))), from_linen(DenseDiscriminator((4,)))


def _pair(name, generator, discriminator, batch, options=None, **more):
    """Two players, each of which records its gradients."""
    makes, judges = tasks.gan_tasks(generator, discriminator, 3, **(options or {}))

    def build(around):
        players = {"discriminator": Player(judges, recorded(optax.sgd(0.05)))}
        players["generator"] = Player(makes, recorded(optax.sgd(0.05)))
        return around(game(**players))

    return Row(name, build, {**batch, **NOISE}, **{"without": MASKS, **more})


_DENSE = tasks.reconstruction(from_linen(Autoencoder(3, activation="tanh", shape=(4,))))

ROWS = [
    task_row("dense autoencoder", _DENSE, UNIT, double=True),
    task_row(
        "denoising",
        tasks.denoising(_DENSE, tasks.gaussian_noise(0.3)),
        UNIT,
        without=MASKS,
    ),
    task_row(
        "convolutional autoencoder",
        tasks.reconstruction(from_linen(ConvAutoencoder(3, (2, 2), (8, 8, 1))), "gaussian"),
        WIDE, eager=1, tolerance=1e-4,
    ),
    task_row(
        "variational autoencoder",
        tasks.variational(from_linen(VariationalAutoencoder(2, (5,), "tanh", (4,)))),
        UNIT, without=MASKS,
    ),
    _pair("dense pair", *DENSE_PAIR, DENSE),
    _pair(
        "WGAN-GP", *DENSE_PAIR, DENSE, {"objective": "wasserstein", "gradient_penalty": 10.0},
        without={**MASKS, "gradients": "a difference of two outputs does not see their bias"},
    ),
    _pair(
        "normalised generator, spectral discriminator",
        from_linen(DenseGenerator((4,), (4,), normalised=True)),
        from_linen(DenseDiscriminator((4,), spectral=True)),
        DENSE, eager=2,
    ),
    _pair(
        "DCGAN", from_linen(ConvGenerator((2,), SIZE)), from_linen(ConvDiscriminator((2, 2))),
        {"x": IMAGES["x"]}, eager=1, tolerance=1e-4,
        without={"pmap equals shard": "each device draws for itself and normalises by itself"},
    ),
]  # fmt: skip
