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
from jdl.core.check import within

MODES = 8
CENTRES = jdl.data.generate.ring(MODES)
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
        within("members", self.members, 1)
        within("learning_rate", self.learning_rate, 0)
        within("steps", self.steps, 1)


def ring(n: int, seed: int) -> np.ndarray:
    """Points of the ring, as many from each Gaussian."""
    return jdl.data.generate.gaussians(n, CENTRES, WIDTH, seed)["x"]


def experiment(config: Config) -> jdl.Experiment:
    stable = config.recipe == "stable"
    generator = jdl.from_linen(jdl.models.MLP((128, 128), outputs=2))
    discriminator = jdl.from_linen(jdl.models.MLP((128, 128), outputs=1))
    makes, judges = jdl.tasks.adversarial(
        generator, discriminator, latent=16, r1=0.1 if stable else 0.0
    )
    b1, b2 = (0.5, 0.99) if stable else (0.9, 0.999)
    adam = optax.adam(config.learning_rate, b1, b2)
    pair = jdl.game(
        discriminator=jdl.Player(judges, adam),
        generator=jdl.Player(makes, adam),
    )
    if stable:
        pair = jdl.ema(pair, 0.995)
    points, batch_size = ring(8_192, seed=0), 256
    return jdl.Experiment(
        name="gan_ring",
        learner=jdl.ensemble(pair, config.members),
        data={"x": points},
        batch_size=batch_size,
        epochs=config.steps * batch_size / len(points),
        options=jdl.Options(log_every=100),
        pictures=pictures,
        remark=remark,
    )


def samples(result: jdl.Result, n: int = 4_096) -> np.ndarray:
    """Inventions of every member, [members, n, 2]."""
    z = np.random.default_rng(1).normal(size=(n, 16)).astype(np.float32)
    return jdl.predict(result, {"z": z})


def modes_found(points: np.ndarray) -> int:
    """Gaussians that have at least 2 % of the points within four widths of their centre."""
    distance = np.linalg.norm(points[:, None] - CENTRES[None], axis=-1)
    return int(((distance < 4 * WIDTH).mean(0) >= 0.02).sum())


def remark(result: jdl.Result) -> str:
    found = [modes_found(points) for points in samples(result)]
    return f"modes found by each member, of {MODES}: {found}"


def pictures(result: jdl.Result) -> dict[str, Any]:
    """Every member's points over the real ones."""
    from matplotlib.figure import Figure

    made, real = samples(result, 1_024)[:8], ring(1_024, seed=2)
    figure = Figure(figsize=(10, 5.2), layout="constrained")
    axes = figure.subplots(2, 4, sharex=True, sharey=True).ravel()
    for axis in axes[len(made) :]:
        axis.set_axis_off()
    for index, axis in enumerate(axes[: len(made)]):
        axis.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), aspect="equal", xticks=[], yticks=[])
        axis.scatter(*real.T, s=2, color="0.8", label="real")
        axis.scatter(*made[index].T, s=2, color="tab:blue", label="generated")
        axis.set_title(f"member {index}: {modes_found(made[index])} of {MODES}", fontsize=10)
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=2,
        markerscale=4,
        frameon=False,
    )
    return {"samples": figure}


if __name__ == "__main__":
    jdl.main(Config, experiment)
