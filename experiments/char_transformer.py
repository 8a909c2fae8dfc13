"""A transformer that writes text letter by letter.

command   python experiments/char_transformer.py --data-dir FOLDER
data      tinyshakespeare.txt in FOLDER (or any .txt file: --data-dir FILE); else the reference
          texts of Python's own help; the first 90 % for training, the rest for validation
device    CPU, 2 cores
time      5 min beside other programs
expect    validation loss 1.799, 2.595 bits per character (counts of 2, 3 and 4 characters: 2.490,
          2.063, 1.805), one seed; 1.905 at nanoGPT's learning rate of 1e-3

nanoGPT's small configuration for CPU: 804,096 parameters. The loss is that of the whole
validation part, every character predicted once.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

import jdl
from jdl.core.check import within
from jdl.data import text, tokenizers

SHOWN = 24


@dataclasses.dataclass(frozen=True)
class Config:
    """A decoder over characters."""

    data_dir: Path | None = None
    """Folder of tinyshakespeare.txt, or a text file; the texts of Python's help if left out."""
    blocks: int = 4
    heads: int = 4
    width: int = 128
    context: int = 64
    """Characters that a prediction can look back on."""
    dropout: float = 0.0
    steps: int = 2_000
    batch_size: int = 12
    learning_rate: float = 2e-3

    def __post_init__(self):
        within("blocks", self.blocks, 1)
        within("context", self.context, 1)
        within("dropout", self.dropout, 0, 0.99)
        within("steps", self.steps, 1)
        within("batch_size", self.batch_size, 1)
        within("learning_rate", self.learning_rate, 0)


@functools.cache
def parts(source: Path | None) -> tuple[tokenizers.Characters, np.ndarray, np.ndarray]:
    """The tokenizer, and the tokens of the training and the validation part."""
    if source is None:
        from pydoc_data.topics import topics

        whole = "\n".join(topics[name] for name in sorted(topics))
    else:
        whole = text.read_text(source / "tinyshakespeare.txt" if source.is_dir() else source)
    tokenizer = tokenizers.characters(whole)
    train, valid = map(tokenizer.encode, text.split_text(whole))
    return tokenizer, train, valid


def network(config: Config) -> jdl.models.Decoder:
    size = parts(config.data_dir)[0].size
    c = config
    return jdl.models.Decoder(size, c.context, c.blocks, c.heads, c.width, c.dropout)


def experiment(config: Config) -> jdl.Experiment:
    _, train, valid = parts(config.data_dir)
    model = jdl.from_linen(network(config))
    rise, steps, top = min(100, config.steps // 2), config.steps, config.learning_rate
    rate = optax.warmup_cosine_decay_schedule(0.0, top, rise, steps, end_value=top / 10)
    adam = optax.adamw(rate, b2=0.99, weight_decay=0.1, mask=jdl.optim.decay_mask)
    windows = text.windows(train, 2 * config.context, step=config.context)
    return jdl.Experiment(
        name="char_transformer",
        learner=jdl.learner(
            jdl.tasks.language_model(model, context=config.context), jdl.optim.clip(adam, 1.0)
        ),
        data={"x": windows},
        valid=text.predicted_once(valid, config.context),
        batch_size=config.batch_size,
        epochs=config.steps * config.batch_size / len(windows),
        options=jdl.Options(evaluate_every=max(1, steps // 8)),
        pictures=functools.partial(pictures, config),
        remark=functools.partial(remark, config),
    )


def baselines(config: Config) -> dict[str, float]:
    """Validation loss of counts of up to four characters."""
    tokenizer, train, valid = parts(config.data_dir)
    orders = range(1, 5 if tokenizer.size < 100 else 4)
    said = {n: text.ngram(train, valid, tokenizer.size, n) for n in orders}
    return {f"{n}-gram": float(-np.log(p[1:]).mean()) for n, p in said.items()}


def remark(config: Config, result: jdl.Result) -> str:
    valid = [row for row in result.history if row["split"] == "valid"][-1]
    said = ", ".join(f"{name} {loss:.3f}" for name, loss in baselines(config).items())
    tokenizer = parts(config.data_dir)[0]
    prompt = tokenizer.encode("\n")[None]
    made = jdl.models.generate(
        network(config), result.train.params, prompt, jax.random.key(0), 400, temperature=0.8
    )
    return (
        f"validation loss {valid['loss']:.4f}, {valid['bits_per_token']:.3f} bits per character "
        f"(counts of characters: {said})\n{tokenizer.decode(np.asarray(made[0]))}\n"
    )


def pictures(config: Config, result: jdl.Result) -> dict[str, Any]:
    """The loss over the steps, and where each head of the last block looks."""
    from matplotlib.figure import Figure

    tokenizer, _, valid = parts(config.data_dir)
    tokens = valid[None, : min(SHOWN, config.context)].astype(np.int32)
    weights = jdl.models.attention_weights(network(config), result.train.params, tokens)[-1, 0]
    letters = [{"\n": "↵", " ": "·"}.get(c, c) for c in tokenizer.decode(tokens[0])]
    figure = Figure(figsize=(11, 7), layout="constrained")
    axes = figure.subplot_mosaic("LAB;LCD", width_ratios=(1.2, 1, 1))
    for split in ("train", "valid"):
        rows = [row for row in result.history if row["split"] == split]
        axes["L"].plot([r["step"] for r in rows], [r["loss"] for r in rows], label=split)
    for (name, loss), style in zip(baselines(config).items(), ("-", "--", "-.", ":"), strict=False):
        axes["L"].axhline(loss, color="0.6", linestyle=style, linewidth=1, label=name)
    axes["L"].set(xlabel="step", ylabel="nats per character", title="loss")
    axes["L"].legend(framealpha=1, edgecolor="none")
    for head, axis in zip(weights, [axes[name] for name in "ABCD"], strict=False):
        axis.imshow(np.asarray(head), cmap="Blues", vmin=0, vmax=1)
        axis.set_xticks(range(len(letters)), letters, fontsize=7, family="monospace")
        axis.set_yticks(range(len(letters)), letters, fontsize=7, family="monospace")
        axis.tick_params(length=0)
    for index, name in enumerate("ABCD"):
        axes[name].set_title(f"last block, head {index + 1}", fontsize=10)
        axes[name].set_visible(index < len(weights))
    axes["C"].set(xlabel="looks at", ylabel="from")
    return {"loss and attention": figure}


if __name__ == "__main__":
    jdl.main(Config, experiment)
