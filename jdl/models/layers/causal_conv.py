"""Causal convolutions over time."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from jdl.core.errors import error
from jdl.models.layers import primitives


class CausalConv(nn.Module):
    r"""A convolution over time whose window ends at the current step.

    $y_{n,t} = b + \sum_{j=0}^{k-1} x_{n,\,t-(k-1-j)d}\,W_j$ with window k and dilation d; steps
    before the first count as zero. Inputs (batch, time, channels), outputs (batch, time, features),
    kernel (k, channels, features). The shifted inputs are concatenated and multiplied as one
    matrix, which is faster than a convolution on CPU, especially inside a loop. Raises `InputError`
    for a window or dilation below 1.

    >>> layer = CausalConv(4, window=2, dilation=3)
    >>> layer.init_with_output(jax.random.key(0), jnp.zeros((1, 8, 2)))[0].shape
    (1, 8, 4)
    """

    features: int
    window: int = 2
    dilation: int = 1
    use_bias: bool = True
    kernel_init: primitives.Initializer = primitives.INITIALIZERS["glorot"]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the outputs (batch, time, features)."""
        check_dilations(self.window, (self.dilation,))
        batch, steps, inputs = x.shape
        kernel = self.param(
            "kernel", self.kernel_init, (self.window, inputs, self.features), jnp.float32
        )
        shifted = [_shift(x, (self.window - 1 - j) * self.dilation) for j in range(self.window)]
        flat = jnp.concatenate(shifted, axis=-1).reshape(batch * steps, self.window * inputs)
        out = flat @ kernel.reshape(self.window * inputs, self.features)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
            out = out + bias[None]
        return out.reshape(batch, steps, self.features)


def _shift(x: jax.Array, steps: int) -> jax.Array:
    """Shift the sequence `steps` later, with zeros before it."""
    if steps == 0:
        return x
    head = x[:, : max(0, x.shape[1] - steps)]
    return jnp.pad(head, ((0, 0), (x.shape[1] - head.shape[1], 0), (0, 0)))


def receptive_field(window: int, dilations: Sequence[int]) -> int:
    r"""The number of steps an output of stacked causal convolutions sees, $1 + \sum_i (k-1)\,d_i$.

    >>> receptive_field(2, (1, 2, 4, 8))
    16
    """
    check_dilations(window, dilations)
    return 1 + sum((window - 1) * dilation for dilation in dilations)


def check_dilations(window: int, dilations: Sequence[int]) -> None:
    """Raise `InputError` unless window and dilations are at least 1."""
    if window < 1 or any(dilation < 1 for dilation in dilations):
        raise error(
            "causal convolution",
            expected="a window and dilations of at least 1",
            got=f"window {window}, dilations {tuple(dilations)}",
            fix="pass window=2 with dilations 1, 2, 4, ..., which double the receptive field",
        )
