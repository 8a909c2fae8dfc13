"""Recurrent networks, and causal convolutions over time."""

import jax
import jax.numpy as jnp
import numpy as np

from jdl import tasks
from jdl.models import CNN1D, RNN, TokenLSTM, WaveNet, from_linen
from tests.support.contract_rows import DENSE, MASKS, task_row


def _sequences() -> dict:
    rng = np.random.default_rng(1)
    x, lengths = rng.normal(size=(16, 4, 2)), rng.integers(1, 5, 16)
    x[np.arange(4)[None] >= lengths[:, None]] = np.nan
    batch = {"x": x.astype("float32"), "lengths": lengths.astype("int32")}
    return jax.tree.map(jnp.asarray, batch)


SEQUENCES = {**DENSE, **_sequences()}
# A label and no mask for each step: the mask of the steps comes from the lengths.
STEPS = {**_sequences(), "y": jnp.asarray(np.arange(64, dtype="int32").reshape(16, 4) % 3)}
REAL = {**SEQUENCES, "y": SEQUENCES["x"][:, 0, :1]}


def _net(cell: str = "lstm", outputs: int = 3, **options) -> object:
    return from_linen(RNN((3,), outputs, cell, **options))


def _row(name: str, task: object, batch: dict = SEQUENCES, **more) -> object:
    return task_row(name, task, batch, eager=1, **more)


ROWS = [
    _row("LSTM", tasks.sequence_classification(_net()), double=True),
    _row(
        "GRU, both ways, regression",
        tasks.sequence_regression(_net("gru", 1, bidirectional=True)),
        REAL,
    ),
    _row(
        "minimal gated unit, labelling", tasks.sequence_labelling(_net("mgu", read="each")), STEPS
    ),
    _row(
        "simple RNN with dropout, mean",
        tasks.sequence_classification(_net("rnn", read="mean", dropout=0.5)),
        without=MASKS,
    ),
    task_row(
        "CNN1D",
        tasks.classification(from_linen(CNN1D((2,), 3, width=3))),
        {**DENSE, "x": DENSE["x"][..., None]},
        eager=1,
        tolerance=1e-4,
    ),
    _row(
        "LSTM over tokens",
        tasks.classification(from_linen(TokenLSTM(4, 3, 3, embedding=2)), inputs=dict),
        {**STEPS, "x": STEPS["y"], "y": DENSE["y"]},
    ),
    _row("WaveNet", tasks.sequence_labelling(from_linen(WaveNet(3, 4, (1, 2), 3))), STEPS),
]
