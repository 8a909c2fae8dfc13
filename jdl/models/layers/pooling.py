"""Max pooling that keeps NaN; for non-overlapping windows also with a cheap gradient.

Compiled for CPU, XLA's own reduction and window reduction lose NaN in large arrays: the maximum of
NaNs is a finite number. So on CPU the maximum is taken value by value, which is also faster.
"""

from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

COUNT_TIES_UP_TO_PIXELS = 16
"""Window size in pixels up to which ties are counted pixel by pixel on CPU."""


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def max_of_windows(window: int, x: jax.Array) -> jax.Array:
    """The largest value of each window; tied values share the gradient evenly.

    Images (batch, height, width, channels); rows and columns that fill no window are dropped.
    """
    return jax.lax.platform_dependent(
        x,
        cpu=lambda x: _max_by_value(x, window, window),
        default=lambda x: split_into_windows(window, x).max((2, 4)),
    )


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


@partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def max_of_strided_windows(
    window: int, stride: int, padding: tuple[tuple[int, int], ...], x: jax.Array
) -> jax.Array:
    """The largest value of each window, `stride` pixels apart; the first of tied values counts.

    `padding` has the pixels before and after the rows, then before and after the columns.
    """
    (top, bottom), (left, right) = padding
    edges = ((0, 0, 0), (top, bottom, 0), (left, right, 0), (0, 0, 0))
    return jax.lax.platform_dependent(
        x,
        cpu=lambda x: _max_by_value(jax.lax.pad(x, _lowest(x), edges), window, stride),
        default=lambda x: _max_of_reduction(window, stride, padding, x),
    )


@max_of_strided_windows.defjvp
def _strided_tangent(
    window: int, stride: int, padding: Any, primals: Any, tangents: Any
) -> tuple[jax.Array, jax.Array]:
    reduction = partial(_max_of_reduction, window, stride, padding)
    tangent = jax.jvp(reduction, primals, tangents)[1]
    return max_of_strided_windows(window, stride, padding, *primals), tangent


def _max_of_reduction(window: int, stride: int, padding: Any, x: jax.Array) -> jax.Array:
    return nn.max_pool(x, (window, window), (stride, stride), padding)


def _max_by_value(x: jax.Array, window: int, stride: int) -> jax.Array:
    """The same maximum, first over the rows of each window and then over its columns."""
    for axis in (1, 2):
        # The index after the last window's first pixel; no window, no pixel.
        end = max(0, (x.shape[axis] - window) // stride * stride + 1)
        starts = range(window) if end else [0]
        parts = [jax.lax.slice_in_dim(x, i, i + end, stride, axis) for i in starts]
        x = reduce(jnp.maximum, parts)
    return x


def _lowest(x: jax.Array) -> jax.Array:
    is_float = jnp.issubdtype(x.dtype, jnp.floating)
    return jnp.array(-jnp.inf if is_float else jnp.iinfo(x.dtype).min, x.dtype)


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
