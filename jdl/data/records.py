"""What loading gives."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Arrays = dict[str, np.ndarray]


class Data(NamedTuple):
    """Three parts of a data set, and what is known about it.

    `train` and `valid` are dicts of arrays, {"x": float32 [n, ...], "y": int32 [n]} or, for
    regression, y float32 [n, k]. `test` is a function that returns such a dict, so that the test
    part is read only where the program says so. `info` holds `name`, `classes` (None for
    regression), `shape` (of one example), `sizes`, `scaler`, `source`, `licence` and `seed`.
    """

    train: Arrays
    valid: Arrays
    test: Callable[[], Arrays]
    info: dict[str, Any]
