"""Metrics of a step as values on the host."""

from typing import Any

import jax

from jdl.core.types import Metrics


def compute(metrics: Metrics) -> dict[str, Any]:
    """Compute metrics as Python numbers and lists, with one transfer from the device.

    >>> import jax.numpy as jnp
    >>> from jdl.core.types import Mean
    >>> compute({"loss": Mean(jnp.float32(3), jnp.float32(2)), "steps": jnp.int32(7)})
    {'loss': 1.5, 'steps': 7}
    """
    return _plain(jax.device_get(metrics))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if hasattr(value, "compute"):
        return _plain(value.compute())
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    return value.tolist() if hasattr(value, "tolist") else value
