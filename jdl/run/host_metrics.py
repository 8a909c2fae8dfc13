"""The memory of metrics that need all examples of an evaluation at once."""

from typing import Any

import jax
import numpy as np

from jdl.core.errors import error
from jdl.core.types import Metrics, is_samples

HOST_BYTES = 2**30
"""Most bytes of `Samples` that an evaluation gathers on the host."""


def gathered_bytes(metrics: Metrics) -> dict[str, int]:
    """The bytes of the `Samples` of one batch, arrays or their shapes, by metric.

    >>> from jdl.core.types import Mean, Samples
    >>> scores = Samples({"score": np.zeros((3, 8), np.float32)})
    >>> gathered_bytes({"loss": Mean(1.0, 2.0), "auc": scores})
    {'auc': 96}
    """
    sizes = {}
    for name, metric in metrics.items():
        samples = [x for x in jax.tree.leaves(metric, is_leaf=is_samples) if is_samples(x)]
        arrays: list[Any] = jax.tree.leaves(samples)
        if arrays:
            sizes[name] = sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in arrays)
    return sizes


def check_gathered(sizes: dict[str, int], where: str) -> None:
    """Raise `InputError` if the metrics of whole sets, bytes by name, exceed `HOST_BYTES`."""
    needed = sum(sizes.values())
    if needed > HOST_BYTES:
        share = HOST_BYTES / needed
        raise error(
            where,
            expected=f"at most {HOST_BYTES / 2**30:.3g} GiB for metrics that gather all examples",
            got=f"{needed / 2**30:.3g} GiB for {', '.join(map(repr, sizes))}",
            fix=f"evaluate on at most {share:.1%} of these examples, or leave out such metrics",
        )
