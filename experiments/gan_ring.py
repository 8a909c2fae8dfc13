"""A generator against a discriminator, on a ring of eight Gaussians.

command   python experiments/gan_ring.py [--recipe plain]
data      generated: eight Gaussians of width 0.05 on a circle of radius 1
device    CPU, 2 cores
time      90 s (plain: 75 s)
expect    all 8 Gaussians found by all 8 members (plain: from 0 to 8, five on average)

`--recipe plain` is the pair as it was first published, with Adam's own moments: it loses some of
the eight. The R1 penalty, faster moments and averaged weights find them all.
"""

import dataclasses
from typing import Any, Literal

import numpy as np
import optax

import jdl
from jdl import pictures as draw
from jdl.core.check import check_fields
from jdl.data.generate import gaussians, modes_found, ring

MODES = 8
CENTRES = ring(MODES)
WIDTH = 0.05


@dataclasses.dataclass(frozen=True)
class Config:
    """Eight Gaussians, and several members that try to find them all."""

    recipe: Literal["stable", "plain"] = "stable"
    """"stable": R1 penalty 0.1, Adam (0.5, 0.99), averaged weights; "plain": none of them."""
    members: int = 8
    """Pairs trained side by side, each from its own seed."""
    learning_rate: float = 1e-3
    steps: int = 5_000

    def __post_init__(self):
        check_fields(self, members=1, learning_rate=0, steps=1)


def experiment(config: Config) -> jdl.Experiment:
    stable = config.recipe == "stable"
    networks = [jdl.from_linen(jdl.models.MLP((128, 128), outputs)) for outputs in (2, 1)]
    makes, judges = jdl.tasks.adversarial(*networks, latent=16, r1=0.1 if stable else 0.0)
    b1, b2 = (0.5, 0.99) if stable else (0.9, 0.999)
    adam = optax.adam(config.learning_rate, b1, b2)
    pair = jdl.game(discriminator=jdl.Player(judges, adam), generator=jdl.Player(makes, adam))
    points, batch_size = gaussians(8_192, CENTRES, WIDTH, seed=0)["x"], 256
    return jdl.Experiment(
        name="gan_ring",
        learner=jdl.ensemble(jdl.ema(pair, 0.995) if stable else pair, config.members),
        data={"x": points},
        batch_size=batch_size,
        epochs=config.steps * batch_size / len(points),
        options=jdl.Options(log_every=100),
        pictures=pictures,
        remark=remark,
    )


def samples(result: jdl.Result, n: int) -> np.ndarray:
    """Inventions of every member, [members, n, 2]."""
    z = np.random.default_rng(1).normal(size=(n, 16)).astype(np.float32)
    return jdl.predict(result, {"z": z})


def remark(result: jdl.Result) -> str:
    found = [modes_found(points, CENTRES, WIDTH) for points in samples(result, 4_096)]
    return f"modes found by each member, of {MODES}: {found}"


def pictures(result: jdl.Result) -> dict[str, Any]:
    """The points of up to eight members over the real ones."""
    real = draw.dots(gaussians(1_024, CENTRES, WIDTH, seed=2)["x"], faint=True)
    panels = []
    for index, made in enumerate(samples(result, 1_024)[:8]):
        title = f"Member {index}: {modes_found(made, CENTRES, WIDTH)} of {MODES}"
        panels.append(draw.overlay(draw.plane(1.6), real, draw.dots(made, title)))
    title = "Generated points, and the real ones in grey"
    return {"samples": draw.figure(*panels, columns=4, title=title)}


if __name__ == "__main__":
    jdl.main(Config, experiment)
