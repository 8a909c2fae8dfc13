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
from jdl import plots

MODES = 8
CENTRES = jdl.data.synthetic.ring_centers(MODES)
WIDTH = 0.05
LATENT = 16


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
        jdl.check_fields(self, members=1, learning_rate=0, steps=1)


def experiment(config: Config) -> jdl.Experiment:
    stable = config.recipe == "stable"
    generator = jdl.from_linen(jdl.models.MLP((128, 128), outputs=2))
    discriminator = jdl.from_linen(jdl.models.MLP((128, 128), outputs=1))
    generator_task, discriminator_task = jdl.tasks.gan_tasks(
        generator, discriminator, latent=LATENT, r1=0.1 if stable else 0.0
    )
    b1, b2 = (0.5, 0.99) if stable else (0.9, 0.999)
    adam = optax.adam(config.learning_rate, b1, b2)
    learner = jdl.game(
        discriminator=jdl.Player(discriminator_task, adam),
        generator=jdl.Player(generator_task, adam),
    )
    if stable:
        learner = jdl.ema(learner, 0.995)

    points = real_points(8_192, seed=0)
    batch_size = 256
    return jdl.Experiment(
        name="gan_ring",
        learner=jdl.ensemble(learner, config.members),
        data={"x": points},
        batch_size=batch_size,
        epochs=config.steps * batch_size / len(points),
        options=jdl.Options(log_every=100),
        figures=figures,
        summary_line=summary_line,
    )


def real_points(n: int, seed: int) -> np.ndarray:
    """Points of the eight Gaussians, (n, 2)."""
    return jdl.data.synthetic.gaussians(n, CENTRES, WIDTH, seed)["x"]


def generated_points(result: jdl.Result, n: int) -> np.ndarray:
    """Points from every member's generator, (members, n, 2)."""
    z = np.random.default_rng(1).normal(size=(n, LATENT)).astype(np.float32)
    return jdl.predict(result, {"z": z})


def count_modes(points: np.ndarray) -> int:
    return jdl.data.synthetic.count_modes(points, CENTRES, WIDTH)


def summary_line(result: jdl.Result) -> str:
    modes = [count_modes(points) for points in generated_points(result, 4_096)]
    return f"modes found by each member, of {MODES}: {modes}"


def figures(result: jdl.Result) -> dict[str, Any]:
    """Generated points of up to eight members over the real ones."""
    real = plots.scatter(real_points(1_024, seed=2), faint=True)
    panels = []
    for index, points in enumerate(generated_points(result, 1_024)[:8]):
        title = f"Member {index}: {count_modes(points)} of {MODES}"
        panels.append(plots.overlay(plots.plane(1.6), real, plots.scatter(points, title)))
    title = "Generated points, and the real ones in grey"
    return {"samples": plots.figure(*panels, columns=4, title=title)}


if __name__ == "__main__":
    jdl.main(Config, experiment)
