"""A transformer that writes text letter by letter.

command   python experiments/char_transformer.py --data-dir FOLDER
data      tinyshakespeare.txt in FOLDER (or any .txt file: --data-dir FILE); else the reference
          texts of Python's own help; the first 90 % for training, the rest for validation
device    CPU, 2 cores
time      97 s on an Intel Xeon (AVX-512), where the loss is 1.801
expect    validation loss 1.799, 2.595 bits per character (counts of 2, 3 and 4 characters: 2.490,
          2.063, 1.805), one seed; 1.905 at nanoGPT's learning rate of 1e-3

nanoGPT's small configuration for CPU: 804,096 parameters. The loss is that of the whole
validation part, every character predicted once.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import jax
import optax

import jdl
from jdl import pictures as draw
from jdl.core.check import check_fields
from jdl.data import text, tokenizers


@dataclasses.dataclass(frozen=True)
class Config:
    """A decoder over characters."""

    data_dir: Path | None = None
    """Folder of tinyshakespeare.txt, or a text file; the texts of Python's help if left out."""
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
        check_fields(self, context=1, dropout=(0, 0.99), steps=1, batch_size=1, learning_rate=0)


def experiment(config: Config) -> jdl.Experiment:
    corpus, c = tokenizers.corpus(config.data_dir), config
    sizes = (corpus.tokenizer.size, c.context, c.blocks, c.heads, c.width)
    network = jdl.models.Decoder(*sizes, c.dropout, remat=c.remat)
    rise, top = min(100, c.steps // 2), c.learning_rate
    rate = optax.warmup_cosine_decay_schedule(0.0, top, rise, c.steps, end_value=top / 10)
    adam = optax.adamw(rate, b2=0.99, weight_decay=0.1, mask=jdl.optim.decay_mask)
    model = jdl.precision(jdl.from_linen(network), c.precision)
    task = jdl.tasks.language_model(model, context=c.context)
    windows = text.windows(corpus.train, 2 * c.context, step=c.context)
    return jdl.Experiment(
        name="char_transformer",
        learner=jdl.learner(task, jdl.optim.clip(adam, 1.0)),
        data={"x": windows},
        valid=text.predicted_once(corpus.valid, c.context),
        batch_size=c.batch_size,
        epochs=c.steps * c.batch_size / len(windows),
        options=jdl.Options(evaluate_every=max(1, c.steps // 8)),
        pictures=lambda result: pictures(result, network, corpus),
        remark=lambda result: remark(result, network, corpus),
    )


def remark(result: jdl.Result, network: Any, corpus: tokenizers.Corpus) -> str:
    last = [row for row in result.history if row["split"] == "valid"][-1]
    counts = ", ".join(f"{name} {loss:.3f}" for name, loss in corpus.ngrams().items())
    prompt, key = corpus.tokenizer.encode("\n")[None], jax.random.key(0)
    made = jdl.models.generate(network, result.state.params, prompt, key, 400, temperature=0.8)
    line = f"validation loss {last['loss']:.4f}, {last['bits_per_token']:.3f} bits per character"
    return f"{line} (counts of characters: {counts})\n{corpus.tokenizer.decode(made[0].tolist())}\n"


def pictures(result: jdl.Result, network: Any, corpus: tokenizers.Corpus) -> dict[str, Any]:
    """The loss over the steps, and where each head of the last block looks."""
    loss = draw.history(result.history, "loss", "Loss", "nats per character")
    tokens = corpus.valid[None, : min(24, network.context)].astype("int32")
    heads = jdl.models.attention_weights(network, result.state.params, tokens)[-1, 0]
    return {
        "loss": draw.figure(draw.overlay(loss, draw.levels(corpus.ngrams()))),
        "attention": draw.attention(heads, corpus.tokenizer.decode(tokens[0]), "The last block"),
    }


if __name__ == "__main__":
    jdl.main(Config, experiment)
