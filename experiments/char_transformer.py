"""A character-level transformer language model.

command   python experiments/char_transformer.py --data-dir FOLDER
data      tinyshakespeare.txt in FOLDER (or any text file: --data-dir FILE); by default the texts of
          Python's help; the first 90 % for training, the rest for validation
device    CPU, 2 cores
time      97 s on an Intel Xeon (AVX-512), where the loss is 1.801
expect    validation loss 1.799 nats, 2.595 bits per character (n-gram models of 2, 3 and 4
          characters: 2.490, 2.063, 1.805 nats), one seed; 1.905 at nanoGPT's learning rate of 1e-3

This is nanoGPT's small configuration for CPU, with 804,096 parameters. The validation loss counts
every character of the validation text once.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import jax
import optax

import jdl
from jdl import plots


@dataclasses.dataclass(frozen=True)
class Config:
    """A transformer decoder over characters."""

    data_dir: Path | None = None
    """Folder of tinyshakespeare.txt, or a text file; default: the texts of Python's help."""
    blocks: int = 4
    heads: int = 4
    width: int = 128
    context: int = 64
    dropout: float = 0.0
    steps: int = 2_000
    batch_size: int = 12
    learning_rate: float = 2e-3
    precision: Literal["float32", "bfloat16"] = "float32"
    remat: Literal["none", "dots", "full"] = "none"

    def __post_init__(self):
        jdl.check_fields(self, context=1, dropout=(0, 0.99), steps=1, batch_size=1, learning_rate=0)


def experiment(config: Config) -> jdl.Experiment:
    corpus = jdl.data.tokenizers.character_corpus(config.data_dir)
    network = jdl.models.Decoder(
        vocabulary=corpus.tokenizer.size,
        context=config.context,
        blocks=config.blocks,
        heads=config.heads,
        width=config.width,
        dropout=config.dropout,
        remat=config.remat,
    )
    model = jdl.precision(jdl.from_linen(network), config.precision)
    task = jdl.tasks.language_model(model, context=config.context)

    warmup_steps = min(100, config.steps // 2)
    learning_rate = optax.warmup_cosine_decay_schedule(
        init_value=config.learning_rate / (warmup_steps + 1),
        peak_value=config.learning_rate,
        warmup_steps=warmup_steps,
        decay_steps=config.steps,
        end_value=config.learning_rate / 10,
    )
    tx = optax.adamw(learning_rate, b2=0.99, weight_decay=0.1, mask=jdl.optim.decay_mask)

    windows = jdl.data.text.windows(corpus.train, 2 * config.context, step=config.context)
    return jdl.Experiment(
        name="char_transformer",
        learner=jdl.learner(task, jdl.optim.clip(tx, 1.0)),
        data={"x": windows},
        valid=jdl.data.text.evaluation_windows(corpus.valid, config.context),
        batch_size=config.batch_size,
        epochs=config.steps * config.batch_size / len(windows),
        options=jdl.Options(evaluate_every=max(1, config.steps // 8)),
        figures=lambda result: figures(result, network, corpus),
        summary_line=lambda result: summary_line(result, network, corpus),
    )


def summary_line(result: jdl.Result, network: Any, corpus: Any) -> str:
    """The last validation loss, and a sample of 400 characters."""
    last = [row for row in result.history if row["split"] == "valid"][-1]
    counts = ", ".join(f"{name} {loss:.3f}" for name, loss in corpus.ngrams().items())
    prompt = corpus.tokenizer.encode("\n")[None]
    tokens = jdl.models.generate(
        network, result.state.params, prompt, jax.random.key(0), 400, temperature=0.8
    )
    text = corpus.tokenizer.decode(tokens[0].tolist())
    return (
        f"validation loss {last['loss']:.4f}, {last['bits_per_token']:.3f} bits per character "
        f"(n-gram models: {counts})\n{text}\n"
    )


def figures(result: jdl.Result, network: Any, corpus: Any) -> dict[str, Any]:
    """The loss over the steps, and the attention of each head of the last block."""
    loss = plots.history(result.history, "loss", "Loss", "nats per character")
    tokens = corpus.valid[None, : min(24, network.context)].astype("int32")
    weights = jdl.models.attention_weights(network, result.state.params, tokens)
    characters = corpus.tokenizer.decode(tokens[0])
    return {
        "loss": plots.figure(plots.overlay(loss, plots.horizontal_lines(corpus.ngrams()))),
        "attention": plots.attention(weights[-1, 0], characters, "The last block"),
    }


if __name__ == "__main__":
    jdl.main(Config, experiment)
