"""Convolutions, computed in the way that is fastest on the device."""

import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jdl.core.lowering import is_single_step

Pairs = Sequence[tuple[int, int]]

ONE_PRODUCT_BELOW_ROW_ELEMENTS = 16
"""Elements in one row of a window below which one product computes the whole window."""

PRODUCTS_UP_TO_COPIES = 2.5
"""Windows that share an input element, up to which single-step programs use products too."""

MAX_WINDOW_BYTES = 2**27
"""Bytes of the matrix of windows above which XLA's convolution is used."""


def convolution(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: str | Pairs,
    *,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    precision: Any = None,
) -> jax.Array:
    r"""A convolution with channels last, as by `jax.lax.conv_general_dilated`; fast on CPU.

    Inputs (batch, ..., c), kernel (..., c, features). On CPU the windows become rows of a matrix
    $P_u$ for each row u of the kernel, and $Y = \sum_u P_u(x)\,W_u$ (Chellapilla, Puri & Simard
    2006). The backward pass recomputes them. In a loop this takes a third of the time of XLA's
    convolution or less, which computes gradients on one core there. In a single-step program
    (`jdl.core.lowering`) XLA's is faster except for narrow inputs and small windows. XLA's also
    computes grouped convolutions, very large windows and those on other devices. Both agree up to
    rounding, in every derivative.

    >>> x, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 5))
    >>> convolution(x, kernel, (1, 1), "VALID").shape
    (1, 2, 2, 5)
    """
    dilation = tuple(rhs_dilation or [1] * (x.ndim - 2))
    extents = [(size - 1) * d + 1 for size, d in zip(kernel.shape[:-2], dilation, strict=True)]
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:-1], extents, strides, padding)
    window = Window(tuple(strides), tuple((int(a), int(b)) for a, b in padding), dilation)
    numbers = dimension_numbers or _channels_last(x.ndim)
    if (
        feature_group_count == 1
        and all(d == 1 for d in lhs_dilation or ())
        and numbers == _channels_last(x.ndim)
        and 0 < _window_bytes(x, kernel, window) <= MAX_WINDOW_BYTES
        and (not is_single_step() or _has_small_windows(kernel, window))
    ):
        return _by_platform(x, kernel, window, precision)
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        window.pads,
        lhs_dilation=lhs_dilation,
        rhs_dilation=dilation,
        dimension_numbers=numbers,
        feature_group_count=feature_group_count,
        precision=precision,
    )


@partial(jax.jit, static_argnums=(2, 3), inline=True)
def transposed_convolution(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """The transpose of a convolution: its gradient with respect to the inputs.

    Inputs (batch, ..., features), kernel (..., c, features); an axis of n becomes
    (n - 1) stride + k - 2 padding. XLA's own transpose takes 3 to 20 times as long on CPU.

    >>> transposed_convolution(jnp.ones((1, 3, 3, 5)), jnp.ones((4, 4, 2, 5)), 2, 1).shape
    (1, 6, 6, 2)
    """
    rank = x.ndim - 2
    sizes = [
        (n - 1) * stride + k - 2 * padding
        for n, k in zip(x.shape[1:-1], kernel.shape[:-2], strict=True)
    ]
    larger = jax.ShapeDtypeStruct((x.shape[0], *sizes, kernel.shape[-2]), x.dtype)
    window = Window((stride,) * rank, ((padding, padding),) * rank, (1,) * rank)
    return jax.linear_transpose(lambda z: _by_platform(z, kernel, window, None), larger)(x)[0]


class Window(NamedTuple):
    """Strides, padding and dilation of a kernel on each spatial axis."""

    strides: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]

    def outputs(self, sizes: Sequence[int], kernel: Sequence[int]) -> list[int]:
        """Output sizes for padded axes of these sizes."""
        axes = zip(sizes, kernel, self.strides, self.dilation, strict=True)
        return [max(0, (size - (k - 1) * d - 1) // s + 1) for size, k, s, d in axes]


# Jitted, so that calls outside a compiled program compile both branches once.
@partial(jax.jit, static_argnums=(2, 3), inline=True)
def _by_platform(x: jax.Array, kernel: jax.Array, window: Window, precision: Any) -> jax.Array:
    def xla(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            x,
            kernel,
            *window[:2],
            rhs_dilation=window.dilation,
            dimension_numbers=_channels_last(x.ndim),
            precision=precision,
        )

    # The windows are several times as large as the inputs: recompute them in the backward pass.
    products = jax.checkpoint(partial(_by_products, window=window, precision=precision))
    return lax.platform_dependent(x, kernel, cpu=products, default=xla)


def _by_products(x: jax.Array, kernel: jax.Array, window: Window, precision: Any) -> jax.Array:
    x = jnp.pad(x, [(0, 0), *window.pads, (0, 0)])
    sizes = kernel.shape[:-2]
    outputs = window.outputs(x.shape[1:-1], sizes)
    starts = list(itertools.product(*map(range, sizes)))
    if math.prod(kernel.shape[1:-1]) < ONE_PRODUCT_BELOW_ROW_ELEMENTS:
        groups = [starts]
    else:
        groups = [[start for start in starts if start[0] == row] for row in range(sizes[0])]

    def inputs_at(start: Sequence[int]) -> jax.Array:
        """The inputs that one kernel element multiplies: (batch, *outputs, c)."""
        low = [at * d for at, d in zip(start, window.dilation, strict=True)]
        high = [a + (n - 1) * s + 1 for a, n, s in zip(low, outputs, window.strides, strict=True)]
        return lax.slice(x, (0, *low, 0), (x.shape[0], *high, x.shape[-1]), (1, *window.strides, 1))

    total: Any = 0
    for group in groups:
        windows = jnp.concatenate([inputs_at(start) for start in group], axis=-1)
        matrix = jnp.concatenate([kernel[start] for start in group])
        rows = windows.reshape(-1, matrix.shape[0])
        total = total + jnp.dot(rows, matrix, precision=precision)
    return total.reshape(x.shape[0], *outputs, kernel.shape[-1])


def _has_small_windows(kernel: jax.Array, window: Window) -> bool:
    """Whether the windows are small, or not much larger than the inputs."""
    copies = math.prod(kernel.shape[:-2]) / math.prod(window.strides)
    return (
        math.prod(kernel.shape[1:-1]) < ONE_PRODUCT_BELOW_ROW_ELEMENTS
        or copies <= PRODUCTS_UP_TO_COPIES
    )


def _window_bytes(x: jax.Array, kernel: jax.Array, window: Window) -> int:
    """Bytes of the windows of one product; 0 if the kernel fits nowhere."""
    sizes = [n + a + b for n, (a, b) in zip(x.shape[1:-1], window.pads, strict=True)]
    rows = x.shape[0] * math.prod(window.outputs(sizes, kernel.shape[:-2]))
    return rows * math.prod(kernel.shape[1:-1]) * x.dtype.itemsize


def _channels_last(rank: int) -> lax.ConvDimensionNumbers:
    axes = tuple(range(1, rank - 1))
    kernel = (rank - 1, rank - 2, *range(rank - 2))
    return lax.ConvDimensionNumbers((0, rank - 1, *axes), kernel, (0, rank - 1, *axes))
