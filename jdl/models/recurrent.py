"""Recurrent networks: simple, LSTM, GRU and minimal gated units over sequences of true lengths."""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jdl.core.errors import check_one_of, error
from jdl.models.layers import primitives, recurrent_cells

READS = ("last", "mean", "each")


class RNN(nn.Module):
    r"""Recurrent layers, one on the other, then a dense layer (Elman 1990).

    Inputs are sequences (batch, time, n), or a pair of them and their true lengths (batch,):
    then padded steps change nothing, whatever they hold. `cell` is `"rnn"`, `"lstm"`, `"gru"` or
    `"mgu"`; their equations, gate senses and first weights are in
    `jdl.models.layers.recurrent_cells`. One layer for each of `features`; with `bidirectional` two,
    one of them from the end to the start, whose outputs are joined (Schuster & Paliwal 1997).

    `read` says what the dense layer sees: `"last"` the state after the last true step (of the
    backward layer the one after the first step), `"mean"` the mean of the outputs over true steps,
    `"each"` every output. Outputs are (batch, outputs), or for `"each"` (batch, time, outputs).
    `dropout` is the share of numbers removed between layers in training (Zaremba et al. 2014).
    `memory` is the number of steps that the units start out to remember (see `cells.Recurrent`).

    A layer of m units on n inputs has $b\,(n + m + 1)\,m$ parameters, with b = 1, 4, 3, 2 for
    the four cells, and the GRU m more: LSTM(128) twice and 10 outputs on 10 inputs have
    71,168 + 131,584 + 1,290 = 204,042. Layers are `forward_1`, `backward_1`, ..., `output`.

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
    def __call__(self, inputs: Any, train: bool = False) -> jax.Array:
        """The outputs of a batch of sequences."""
        primitives.check_rate(self.dropout)
        self._check()
        x, mask = recurrent_cells.true_steps(inputs)
        last = x[:, 0]
        for index, units in enumerate(self.features, start=1):
            if index > 1:
                x = self._dropout(train, f"dropout_{index - 1}")(x)
            x, last = self._layer(index, units, x, mask)
        seen = last if self.read == "last" else _mean(x, mask) if self.read == "mean" else x
        seen = self._dropout(train, "dropout")(seen)
        kernel = primitives.initializer("matched", "identity")
        return primitives.Dense(self.outputs, kernel_init=kernel, name="output")(seen)

    def _layer(
        self, index: int, units: int, x: jax.Array, mask: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Outputs and last state of one layer, of both directions side by side."""
        directions = ("forward", "backward") if self.bidirectional else ("forward",)
        parts = [
            recurrent_cells.Recurrent(
                units, self.cell, way == "backward", self.memory, name=f"{way}_{index}"
            )
            for way in directions
        ]
        outputs, states = zip(*(part(x, mask) for part in parts), strict=True)
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
                fix="features=(128,)",
            )


class TokenLSTM(nn.Module):
    """The classes of a row of tokens, from an LSTM's state after the last one.

    Inputs {"x": tokens (batch, time), "lengths": (batch,)}, outputs (batch, outputs). Layers are
    `embed` and `network`, an `RNN` of one layer (Hochreiter & Schmidhuber 1997).

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
    def __call__(self, inputs: Any) -> jax.Array:
        """The outputs of a batch of rows."""
        x = primitives.Embed(self.vocabulary, self.embedding, name="embed")(inputs["x"])
        return RNN((self.features,), self.outputs, name="network")((x, inputs["lengths"]))


def _mean(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """The mean over true steps; outputs are zero at the others."""
    if mask is None:
        return x.mean(1)
    return x.sum(1) / mask.sum(1, dtype=x.dtype)[:, None]
