"""A language model of 6.7 billion parameters for 256 TPU chips, compiled without the chips.

command   python experiments/decoder_7b.py --tokens FILE.npy --run.mesh data=256 --run.sharding fsdp
plan      jdl plan experiments/decoder_7b.py --topology v5e:16x16 --run.sharding fsdp
data      the tokens of a text as integers below 50,304 (GPT-2's vocabulary, rounded up to a
          multiple of 128) in a .npy file; by default random tokens with Zipf frequencies, from
          which a model can learn only these frequencies
device    TPU v5e or v5p, 256 chips
time      not measured: the program was compiled for these chips but not run
expect    it fits in memory (see docs/scale/plan.md); no loss was measured

The sizes are those of GPT-3 6.7B (Brown et al. 2020, table 2.1). Weights, moments and loss are
float32, the network computes in bfloat16, and each block is recomputed in the backward pass. The
blocks are a scan over stacked weights, so that 32 blocks compile as fast as one.
"""

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
import optax

import jdl


@dataclasses.dataclass(frozen=True)
class Config:
    """A deep transformer decoder."""

    tokens: Path | None = None
    """A .npy file with a 1-D array of integer tokens; default: random tokens."""
    vocabulary: int = 50_304
    blocks: int = 32
    heads: int = 32
    width: int = 4096
    context: int = 2048
    batch_size: int = 256
    steps: int = 100_000
    learning_rate: float = 1.2e-4
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    remat: Literal["none", "dots", "full"] = "full"
    """What the backward pass recomputes to save memory."""
    accumulate: int = 1
    """Micro-batches per batch, processed one after the other to save memory."""

    def __post_init__(self):
        jdl.check_fields(self, vocabulary=2, blocks=1, heads=1, width=1, context=1, batch_size=1)
        jdl.check_fields(self, steps=1, learning_rate=0, accumulate=1)


def experiment(config: Config) -> jdl.Experiment:
    network = jdl.models.Decoder(
        vocabulary=config.vocabulary,
        context=config.context,
        blocks=config.blocks,
        heads=config.heads,
        width=config.width,
        remat=config.remat,
        scan=True,
    )
    model = jdl.precision(jdl.from_linen(network), config.precision)
    task = jdl.tasks.language_model(model, context=config.context)

    warmup_steps = max(1, min(2_000, config.steps // 2))
    learning_rate = optax.warmup_cosine_decay_schedule(
        init_value=config.learning_rate / (warmup_steps + 1),
        peak_value=config.learning_rate,
        warmup_steps=warmup_steps,
        decay_steps=max(config.steps, warmup_steps + 1),
        end_value=config.learning_rate / 10,
    )
    adam = optax.adamw(learning_rate, b2=0.95, weight_decay=0.1, mask=jdl.optim.decay_mask)
    tx = jdl.optim.clip(adam, 1.0)

    windows = jdl.data.text.windows(load_tokens(config), config.context + 1, step=config.context)
    return jdl.Experiment(
        name="decoder_7b",
        learner=jdl.learner(task, tx, jdl.accumulate(config.accumulate)),
        data={"x": windows},
        batch_size=config.batch_size,
        epochs=config.steps * config.batch_size / len(windows),
    )


def load_tokens(config: Config) -> np.ndarray:
    """The tokens of the file, or two batches of random tokens."""
    if config.tokens is None:
        frequency = 1 / np.arange(1, config.vocabulary + 1)
        count = 2 * config.batch_size * config.context + 1
        generator = np.random.default_rng(0)
        tokens = generator.choice(config.vocabulary, count, p=frequency / frequency.sum())
        return tokens.astype(np.int32)
    tokens = jdl.data.read_npy(config.tokens)
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        raise jdl.InputError(
            f"--tokens {config.tokens}\n"
            f"  expected: integers of shape (tokens,)\n"
            f"  got:      {tokens.dtype} of shape {tokens.shape}\n"
            f"  fix:      save tokens.ravel().astype(numpy.uint16)"
        )
    return tokens


if __name__ == "__main__":
    jdl.main(Config, experiment)
