"""How far back in time an output looks."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jdl.run.evaluate import Result, predict


def receptive_field(
    result: Result, data: Mapping[str, Any], *, step: int, back: int, symbols: int, most: int = 200
) -> np.ndarray:
    """How much the outputs of one step change with the symbol 0, 1, ... `back` - 1 steps before.

    `data["x"]` (n, time) holds symbols from 0 to `symbols` - 1, outputs are (n, time, k). One
    symbol is raised by one, modulo `symbols`, and the mean absolute change at `step` is returned,
    (back,): zero beyond the receptive field of a causal network. The first `most` sequences count.
    """
    data = {name: np.asarray(value)[:most] for name, value in data.items()}
    before, changes = predict(result, data), []
    for steps in range(back):
        other = data["x"].copy()
        other[:, step - steps] = (other[:, step - steps] + 1) % symbols
        apart = predict(result, {**data, "x": other}) - before
        changes.append(np.abs(apart[:, step]).mean())
    return np.array(changes)
