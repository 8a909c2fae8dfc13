"""Recurrent networks: simple RNN, LSTM, GRU and minimal gated units."""

from collections.abc import Mapping, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jdl.core.errors import check_one_of, error
from jdl.models.layers import primitives, recurrent_cells

READS = ("last", "mean", "each")


class RNN(nn.Module):
    """Stacked recurrent layers, then a dense layer (Elman 1990).

    Inputs are sequences (batch, time, features), or a pair of them and their lengths (batch,); with
    lengths, the padding changes nothing, whatever it holds. `cell` is `"rnn"`, `"lstm"`, `"gru"` or
    `"mgu"`; `jdl.models.layers.recurrent_cells` has their equations and initial weights.
    `features` are the widths of the layers. With `bidirectional`, each layer also runs from the end
    to the start, and the outputs of both directions are concatenated (Schuster & Paliwal 1997).

    `read` selects what the dense layer receives: `"last"`, the final state of each direction;
    `"mean"`, the mean of the outputs over time; or `"each"`, every output. Outputs are
    (batch, outputs), or (batch, time, outputs) for `"each"`. `dropout` is the rate between layers
    in training (Zaremba et al. 2014). `memory`, in steps, initialises the gates for dependencies
    of that length (see `jdl.models.layers.recurrent_cells.Recurrent`). Layers are `forward_1`,
    `backward_1`, ..., `output`.

    Raises `InputError` at `init` for inputs of another rank, lengths that do not fit them, no
    `features`, an unknown `cell` or `read`, a `memory` below 2, and a `dropout` outside [0, 1).

    >>> from jdl.core import tree
    >>> from jdl.models import from_linen
    >>> model = from_linen(RNN((128, 128)))
    >>> params, _ = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 10, 10)))
    >>> tree.count(params)
    204042
    """

    features: Sequence[int] = (128,)
    outputs: int = 10
    cell: str = "lstm"
    bidirectional: bool = False
    read: Literal["last", "mean", "each"] = "last"
    dropout: float = 0.0
    memory: int | None = None

    @nn.compact
    def __call__(self, inputs: recurrent_cells.Sequences, train: bool = False) -> jax.Array:
        """Return the outputs (batch, outputs) or (batch, time, outputs)."""
        primitives.check_rate(self.dropout)
        self._check()
        x, mask = recurrent_cells.true_steps(inputs)
        last = x[:, 0]
        for index, units in enumerate(self.features, start=1):
            if index > 1:
                x = self._dropout(train, f"dropout_{index - 1}")(x)
            x, last = self._layer(index, units, x, mask)
        x = last if self.read == "last" else _mean(x, mask) if self.read == "mean" else x
        x = self._dropout(train, "dropout")(x)
        kernel = primitives.initializer("matched", "identity")
        return primitives.Dense(self.outputs, kernel_init=kernel, name="output")(x)

    def _layer(
        self, index: int, units: int, x: jax.Array, mask: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Outputs and last state of one layer, with both directions concatenated."""
        directions = ("forward", "backward") if self.bidirectional else ("forward",)
        layers = [
            recurrent_cells.Recurrent(
                units, self.cell, name == "backward", self.memory, name=f"{name}_{index}"
            )
            for name in directions
        ]
        outputs, states = zip(*(layer(x, mask) for layer in layers), strict=True)
        last = [state[0] for state in states]
        return jnp.concatenate(outputs, axis=-1), jnp.concatenate(last, axis=-1)

    def _dropout(self, train: bool, name: str) -> nn.Dropout:
        return nn.Dropout(self.dropout, deterministic=not train, name=name)

    def _check(self) -> None:
        check_one_of("read", self.read, READS)
        if not self.features:
            raise error(
                "features",
                expected="the width of at least one layer",
                got=repr(tuple(self.features)),
                fix="pass features=(128,)",
            )


class TokenLSTM(nn.Module):
    """A classifier of token sequences: embedding, LSTM, dense (Hochreiter & Schmidhuber 1997).

    Inputs are a dict of `x`, integer tokens (batch, time), and `lengths` (batch,). Outputs are
    (batch, outputs), from the state after the last token. Layers are `embed` and `network`, an
    `RNN` with one layer. Raises `InputError` at `init` for lengths that do not fit the tokens.

    >>> module = TokenLSTM(vocabulary=5, features=4, outputs=3)
    >>> batch = {"x": jnp.zeros((2, 6), int), "lengths": jnp.array([6, 2])}
    >>> jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), batch)[0]).shape
    (2, 3)
    """

    vocabulary: int
    features: int = 128
    outputs: int = 10
    embedding: int = 16

    @nn.compact
    def __call__(self, inputs: Mapping[str, jax.Array]) -> jax.Array:
        """Return the outputs (batch, outputs)."""
        x = primitives.Embed(self.vocabulary, self.embedding, name="embed")(inputs["x"])
        return RNN((self.features,), self.outputs, name="network")((x, inputs["lengths"]))


def _mean(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """The mean over true steps; outputs are zero at padded ones."""
    if mask is None:
        return x.mean(1)
    return x.sum(1) / mask.sum(1, dtype=x.dtype)[:, None]
