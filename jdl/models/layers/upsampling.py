"""Upsampling layers."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from jdl.core.errors import error
from jdl.models.layers import convolution, primitives


class ConvTranspose(nn.Module):
    """The layer of `conv_transpose`, with Flax's parameters: `kernel` (k, k, features, c)."""

    features: int
    window: int
    stride: int
    use_bias: bool
    kernel_init: primitives.Initializer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the larger image."""
        shape = (self.window, self.window, self.features, x.shape[-1])
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        x, kernel = promote_dtype(x, kernel)
        y = convolution.transposed_convolution(
            x, kernel, self.stride, (self.window - self.stride) // 2
        )
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
            y = y + bias[None, None, None]
        return y


def conv_transpose(
    features: int,
    window: int = 4,
    *,
    stride: int = 2,
    use_bias: bool = True,
    kernel_init: primitives.Initializer | None = None,
    name: str | None = None,
) -> ConvTranspose:
    r"""Build a transposed convolution that makes an image `stride` times larger.

    See Dumoulin & Visin 2016. Images (batch, height, width, channels) become (batch, height s,
    width s, features). Every input pixel adds a multiple of the kernel to the output,
    $y_{n,\,si+u-p,\,sj+v-p,\,f} \mathrel{+}= x_{n,i,j,c}\,W_{u,v,f,c}$ with $p = (k - s)/2$: the
    gradient of a convolution of window k, stride s and padding p with respect to its input.

    Raises `InputError` unless the window is a multiple of the stride with an even difference:
    otherwise the kernels overlap unevenly and the image shows a chequerboard.
    """
    if window % stride or (window - stride) % 2:
        raise error(
            "conv_transpose",
            expected="a window that is a multiple of the stride, with an even difference",
            got=f"window {window} and stride {stride}",
            fix="pass window=4 and stride=2, which are common",
        )
    kernel_init = kernel_init or _by_contributions(window, stride)
    return ConvTranspose(features, window, stride, use_bias, kernel_init, name=name)


def _by_contributions(window: int, stride: int) -> primitives.Initializer:
    """He's rule with the number of inputs that reach an output."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        inputs = shape[-1] * (window // stride) ** 2
        return jax.random.normal(key, shape, dtype) * (2 / inputs) ** 0.5

    return init
