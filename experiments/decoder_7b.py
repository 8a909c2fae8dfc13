"""A language model of 6.7 billion parameters, planned for 256 TPU chips before there are any.

command   python experiments/decoder_7b.py --tokens FILE.npy --run.mesh data=256 --run.sharding fsdp
plan      jdl plan experiments/decoder_7b.py --topology v5e:16x16 --run.sharding fsdp
data      the tokens of a text as integers below 50,304 (GPT-2's vocabulary, rounded up to a
          multiple of 128) in a .npy file; else tokens drawn by Zipf's law, of which a model learns
          no more than how often each comes
device    TPU v5e or v5p, 256 chips
time      not known: it was compiled for these chips and has not been run on them
expect    it fits: the tables are in docs/tpu.md. No loss was measured

The sizes are those of GPT-3's 6.7 billion (Brown et al. 2020, table 2.1). Weights, moments and
loss are float32, the network computes in bfloat16, and each block is computed again in the
backward pass. The blocks are a scan over stacked weights, so that 32 compile as fast as one.
"""

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
import optax

import jdl


@dataclasses.dataclass(frozen=True)
class Config:
    """A deep decoder, every block alike."""

    tokens: Path | None = None
    """A .npy file of integers, one long line of tokens; drawn by Zipf's law if left out."""
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
    """What is computed again in the backward pass, to save memory."""
    accumulate: int = 1
    """Equal parts that a batch is cut into, one after the other, to save memory."""

    def __post_init__(self):
        jdl.check_fields(self, vocabulary=2, blocks=1, heads=1, width=1, context=1, batch_size=1)
        jdl.check_fields(self, steps=1, learning_rate=0, accumulate=1)


def experiment(config: Config) -> jdl.Experiment:
    network = jdl.models.TransformerDecoder(
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
        init_value=0.0,
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
    """The tokens of the file, or two batches of random ones."""
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
            f"  expected: one long line of integers\n"
            f"  got:      {tokens.dtype} of shape {tokens.shape}\n"
            f"  fix:      save tokens.ravel().astype(numpy.uint16), for example"
        )
    return tokens


if __name__ == "__main__":
    jdl.main(Config, experiment)
