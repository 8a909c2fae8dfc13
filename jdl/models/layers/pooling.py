"""The largest value of windows of an image that lie side by side, and a cheap gradient of it."""

from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp

COUNT_TIES_UP_TO_PLACES = 16
"""Places of a window up to which its ties are counted place by place."""


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def max_of_windows(window: int, x: jax.Array) -> jax.Array:
    """The largest value of each window; values that tie share its gradient evenly.

    Images (batch, height, width, channels); rows and columns that fill no window are dropped.
    """
    return split_into_windows(window, x).max((2, 4))


@max_of_windows.defjvp
def _tangent(window: int, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (x,), (dot,) = primals, tangents
    y, places = max_of_windows(window, x), split_into_windows(window, x)
    counted = _together
    if window**2 <= COUNT_TIES_UP_TO_PLACES:
        counted = partial(jax.lax.platform_dependent, cpu=_place_by_place, default=_together)
    is_largest = places == y[:, :, None, :, None]
    return y, jnp.where(is_largest, split_into_windows(window, dot), 0).sum((2, 4)) / counted(
        places, y
    )


def split_into_windows(window: int, x: jax.Array) -> jax.Array:
    """Images as (batch, down, window, across, window, channels)."""
    batch, height, width, channels = x.shape
    down, across = height // window, width // window
    x = x[:, : down * window, : across * window]
    return x.reshape(batch, down, window, across, window, channels)


def _together(places: jax.Array, y: jax.Array) -> jax.Array:
    """How many places of each window hold its largest value."""
    return (places == y[:, :, None, :, None]).astype(y.dtype).sum((2, 4))


def _place_by_place(places: jax.Array, y: jax.Array) -> jax.Array:
    """The same as arithmetic that XLA on CPU fuses: a sum it would write down first."""
    window = range(places.shape[2])
    held = [(places[:, :, i, :, j] == y).astype(y.dtype) for i in window for j in window]
    return reduce(jnp.add, held)
