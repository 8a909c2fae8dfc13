"""Layers that make images larger."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jdl.core.check import error
from jdl.models import layers


def conv_transpose(
    features: int,
    window: int = 4,
    *,
    stride: int = 2,
    use_bias: bool = True,
    kernel_init: layers.Initializer | None = None,
    name: str | None = None,
) -> nn.ConvTranspose:
    r"""A layer that makes an image `stride` times larger: the transpose of a convolution.

    Images (batch, height, width, channels) become (batch, height s, width s, features). Every
    input pixel adds its multiple of the kernel to the output,
    $y_{n,\,si+u-p,\,sj+v-p,\,f} \mathrel{+}= x_{n,i,j,c}\,W_{u,v,f,c}$ with $p = (k - s)/2$: the
    gradient of a convolution of window k, stride s and padding p in its input
    (Dumoulin & Visin 2016). The window must be a multiple of the stride, else the outputs
    overlap unevenly and a chequerboard shows.
    """
    if window % stride or (window - stride) % 2:
        raise error(
            "conv_transpose",
            expected="a window that is a multiple of the stride, with an even difference",
            got=f"window {window} and stride {stride}",
            fix="4 and 2 are usual",
        )
    return nn.ConvTranspose(
        features,
        (window, window),
        strides=(stride, stride),
        padding="SAME",
        use_bias=use_bias,
        kernel_init=kernel_init or _by_contributions(window, stride),
        transpose_kernel=True,
        name=name,
    )


def _by_contributions(window: int, stride: int) -> layers.Initializer:
    """He's rule, counting the inputs that reach an output: every stride-th of a window."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        inputs = shape[-1] * (window // stride) ** 2
        return jax.random.normal(key, shape, dtype) * (2 / inputs) ** 0.5

    return init
