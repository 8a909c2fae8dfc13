"""Max pooling of non-overlapping windows, with a cheap gradient."""

from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp

COUNT_TIES_UP_TO_PIXELS = 16
"""Window size in pixels up to which ties are counted pixel by pixel on CPU."""


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def max_of_windows(window: int, x: jax.Array) -> jax.Array:
    """The largest value of each window; tied values share the gradient evenly.

    Images (batch, height, width, channels); rows and columns that fill no window are dropped.
    """
    return split_into_windows(window, x).max((2, 4))


@max_of_windows.defjvp
def _tangent(window: int, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (x,), (dot,) = primals, tangents
    y, windows = max_of_windows(window, x), split_into_windows(window, x)
    count = _count_ties
    if window**2 <= COUNT_TIES_UP_TO_PIXELS:
        count = partial(jax.lax.platform_dependent, cpu=_count_ties_by_pixel, default=_count_ties)
    is_largest = windows == y[:, :, None, :, None]
    return y, jnp.where(is_largest, split_into_windows(window, dot), 0).sum((2, 4)) / count(
        windows, y
    )


def split_into_windows(window: int, x: jax.Array) -> jax.Array:
    """Reshape images to (batch, rows, window, columns, window, channels)."""
    batch, height, width, channels = x.shape
    rows, columns = height // window, width // window
    x = x[:, : rows * window, : columns * window]
    return x.reshape(batch, rows, window, columns, window, channels)


def _count_ties(windows: jax.Array, y: jax.Array) -> jax.Array:
    """Count the pixels of each window that hold its largest value."""
    return (windows == y[:, :, None, :, None]).astype(y.dtype).sum((2, 4))


def _count_ties_by_pixel(windows: jax.Array, y: jax.Array) -> jax.Array:
    """The same count, as arithmetic that XLA on CPU fuses; it would not fuse a sum."""
    window = range(windows.shape[2])
    ties = [(windows[:, :, i, :, j] == y).astype(y.dtype) for i in window for j in window]
    return reduce(jnp.add, ties)
