"""The primitives that all families share: activations, initial weights, layers, pooling."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jdl.core import lowering
from jdl.core.errors import check_one_of, did_you_mean, error
from jdl.models.layers import pooling
from jdl.models.layers.convolution import Pairs, convolution

Initializer = Callable[..., jax.Array]
Padding = str | int | Pairs


class Activation(NamedTuple):
    """A non-linearity and the name of the initialisation that keeps its signal's size."""

    function: Callable[[jax.Array], jax.Array]
    initializer: str


ACTIVATIONS = {
    "elu": Activation(nn.elu, "he"),
    "gelu": Activation(nn.gelu, "he"),
    "identity": Activation(lambda x: x, "lecun"),
    "leaky_relu": Activation(nn.leaky_relu, "he"),
    "relu": Activation(nn.relu, "he"),
    "selu": Activation(nn.selu, "lecun"),
    "sigmoid": Activation(nn.sigmoid, "glorot"),
    "silu": Activation(nn.silu, "he"),
    "softplus": Activation(nn.softplus, "he"),
    "tanh": Activation(jnp.tanh, "glorot"),
}

INITIALIZERS: dict[str, Initializer] = {
    "glorot": nn.initializers.glorot_uniform(),
    "he": nn.initializers.he_normal(),
    "lecun": nn.initializers.lecun_normal(),
    "orthogonal": nn.initializers.orthogonal(),
    "zeros": nn.initializers.zeros_init(),
}


def activation(name: str) -> Activation:
    """The activation of that name: its function and the initialisation matched to it.

    >>> activation("relu").initializer
    'he'
    """
    return ACTIVATIONS[check_one_of("activation", name, ACTIVATIONS)]


def initializer(name: str, activation_name: str) -> Initializer:
    r"""The function that draws a layer's first weights.

    `"matched"` takes the one that keeps the variance of the signal through the activation
    which follows the layer; n is the number of inputs of a unit, m of its outputs:

    - `"he"`, normal with variance $2/n$, for ReLU and its relatives (He et al. 2015);
    - `"glorot"`, uniform with variance $2/(n+m)$, for tanh and sigmoid (Glorot & Bengio 2010);
    - `"lecun"`, normal with variance $1/n$, for linear and SELU layers (LeCun et al. 1998);
    - `"orthogonal"` (Saxe et al. 2014) and `"zeros"` on request.
    """
    check_one_of("initializer", name, ["matched", *INITIALIZERS])
    return INITIALIZERS[activation(activation_name).initializer if name == "matched" else name]


def gelu(x: jax.Array) -> jax.Array:
    r"""The exact GELU, $x\,\Phi(x) = \frac{x}{2}(1 + \mathrm{erf}(x/\sqrt 2))$.

    With erf, as here and in PyTorch, a value is within 1e-6 of the true one; it is computed in
    float32 at least, as 1 + erf cancels below zero. `jax.nn.gelu` takes erfc, whose digits hold far
    down the negative side and which costs twice as much on CPU (Hendrycks & Gimpel 2016).

    >>> print([f"{x:.4f}" for x in gelu(jnp.array([-1.0, 0.0, 1.0]))])
    ['-0.1587', '0.0000', '0.8413']
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return (0.5 * wide * (1 + jax.lax.erf(wide * math.sqrt(0.5)))).astype(x.dtype)


class Dense(nn.Dense):
    """A dense layer on the last axis, computed as one product of two matrices.

    Inputs (..., n), outputs (..., features). All leading axes are flattened around the product:
    on CPU products of two matrices are markedly faster than those of higher rank.
    """

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """The product with the kernel, plus the bias."""
        leading = inputs.shape[:-1]
        flat = inputs.reshape(math.prod(leading), inputs.shape[-1])
        return super().__call__(flat).reshape(*leading, self.features)


ONE_HOT_UP_TO_VECTORS = 1024
"""Vectors of an embedding up to which a GPU or TPU finds them by a product."""


class Embed(nn.Embed):
    """A vector for each number from 0 to `num_embeddings` - 1.

    Any other number gives nan, which training refuses; Flax counts negative ones from the end.
    Up to `ONE_HOT_UP_TO_VECTORS` are found on a GPU or TPU by a product with a matrix of zeros and
    ones: looked up, many examples add to the same few rows of the gradient, one after the other and
    in any order, which takes a GPU several times as long as all the rest of a transformer.
    """

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """The vectors, (..., features)."""
        is_few = self.num_embeddings <= ONE_HOT_UP_TO_VECTORS and jnp.issubdtype(
            inputs.dtype, jnp.integer
        )
        if lowering.platform() == "cpu" or not is_few:
            return super().__call__(jnp.where(inputs < 0, self.num_embeddings, inputs))
        known = (inputs >= 0) & (inputs < self.num_embeddings)
        promoted: Any = self.promote_dtype(self.embedding, dtype=self.dtype, inexact=False)
        (table,) = promoted
        ones = jax.nn.one_hot(inputs, self.num_embeddings, dtype=table.dtype)
        # Exactly the vectors, in float32 too.
        found = jnp.matmul(ones.reshape(-1, len(table)), table, precision="highest")
        return jnp.where(known[..., None], found.reshape(*inputs.shape, -1), jnp.nan)


class Conv(nn.Conv):
    """Flax's convolution layer, computed by `jdl.models.layers.convolution.convolution`."""

    conv_general_dilated: Any = convolution


class BatchNorm(nn.BatchNorm):
    """Batch normalisation over all axes but the last (Ioffe & Szegedy 2015).

    In training it uses the batch's own mean and (biased) variance and moves its running ones
    towards them; otherwise it uses the running ones. With `axis_name` the batch is that of all
    devices mapped under this name. It cannot see a mask: padded rows would count as data.

    In training its outputs are PyTorch's. The running variance is the biased one, PyTorch's the
    unbiased: larger by n / (n - 1), for n numbers a channel.
    """

    def __call__(self, x: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
        """The normalised inputs, scaled and shifted."""
        try:
            return super().__call__(x, *args, **kwargs)
        except NameError as cause:
            if self.axis_name is None or str(self.axis_name) not in str(cause):
                raise
            raise error(
                f"BatchNorm axis_name {self.axis_name!r}",
                expected="a step that is mapped over devices under this name, as by jdl.pmap",
                got="a step that is not",
                fix="leave axis_name out: under jit and shard the statistics are those of the "
                "whole batch already",
            ) from cause


class MaxPool(nn.Module):
    """`max_pool` as a named layer, so that summaries and messages can point at it."""

    window: int = 2
    stride: int | None = None
    padding: str | Pairs = "VALID"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The pooled image."""
        return max_pool(x, self.window, self.stride, self.padding)


class AvgPool(nn.Module):
    """`avg_pool` as a named layer."""

    window: int = 2
    stride: int | None = None
    padding: str | Pairs = "VALID"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The pooled image."""
        return avg_pool(x, self.window, self.stride, self.padding)


class AdaptiveAvgPool(nn.Module):
    """`adaptive_avg_pool` as a named layer."""

    size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The pooled image."""
        return adaptive_avg_pool(x, self.size)


def conv(
    features: int,
    window: int = 3,
    *,
    stride: int = 1,
    padding: Padding = "SAME",
    use_bias: bool = True,
    kernel_init: Initializer | None = None,
    name: str | None = None,
) -> Conv:
    r"""A two-dimensional convolution layer; as everywhere in the field, a cross-correlation.

    $y_{n,i,j,f} = b_f + \sum_{u,v,c} x_{n,\,i+u,\,j+v,\,c}\,W_{u,v,c,f}$ for images
    (batch, height, width, channels) and kernels (height, width, channels, features). `"VALID"`
    keeps the positions where the window lies inside the image, `"SAME"` pads with zeros.
    """
    if isinstance(padding, str) and padding not in ("VALID", "SAME"):
        raise error(
            "padding",
            expected='"VALID" or "SAME"',
            got=repr(padding),
            fix=did_you_mean(padding.upper(), ["VALID", "SAME"]),
        )
    return Conv(
        features,
        (window, window),
        strides=stride,
        padding=padding,
        use_bias=use_bias,
        kernel_init=kernel_init or INITIALIZERS["he"],
        name=name,
    )


def max_pool(
    x: jax.Array, window: int = 2, stride: int | None = None, padding: str | Pairs = "VALID"
) -> jax.Array:
    """The largest value of each window of an image (batch, height, width, channels).

    With `stride` equal to `window` (the default) and `"VALID"` padding, rows and columns that do
    not fill a window are dropped. This case is computed by `jdl.models.layers.pooling`, in a fifth
    of the time of a general window's on CPU. Where several values of a window tie, it shares the
    gradient evenly among them; the general case (and PyTorch) gives it to the first. After ReLU
    both agree, because a tie at zero passes no gradient on.

    >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0]
    Array([[ 5.,  7.],
           [13., 15.]], dtype=float32)
    """
    if stride in (None, window) and padding == "VALID":
        return pooling.max_of_windows(window, x)
    stride = stride or window
    sizes, strides = (window, window), (stride, stride)
    return nn.max_pool(x, sizes, strides, padding)  # pyright: ignore[reportArgumentType]


def avg_pool(
    x: jax.Array, window: int = 2, stride: int | None = None, padding: str | Pairs = "VALID"
) -> jax.Array:
    """The mean of each window of an image (batch, height, width, channels).

    Shapes are those of `max_pool`. With `"SAME"` padding the zeros outside the image count.

    >>> avg_pool(jnp.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0]
    Array([[ 2.5,  4.5],
           [10.5, 12.5]], dtype=float32)
    """
    if stride in (None, window) and padding == "VALID":
        return pooling.split_into_windows(window, x).mean((2, 4))
    stride = stride or window
    sizes, strides = (window, window), (stride, stride)
    return nn.avg_pool(x, sizes, strides, padding)  # pyright: ignore[reportArgumentType]


def adaptive_avg_pool(x: jax.Array, size: int) -> jax.Array:
    r"""The means of `size` x `size` windows that cover an image (batch, height, width, channels).

    Window i of an axis of n pixels is $[\lfloor in/s \rfloor, \lceil (i+1)n/s \rceil)$, as in
    PyTorch: windows may overlap by a pixel, and a smaller image is repeated.

    >>> adaptive_avg_pool(jnp.arange(16.0).reshape(1, 4, 4, 1), 2)[0, :, :, 0]
    Array([[ 2.5,  4.5],
           [10.5, 12.5]], dtype=float32)
    """

    def shares(length: int) -> jax.Array:
        edges = [(i * length // size, -(-(i + 1) * length // size)) for i in range(size)]
        rows = [[(low <= j < high) / (high - low) for j in range(length)] for low, high in edges]
        return jnp.array(rows, x.dtype).reshape(size, length)

    if x.shape[1:3] == (size, size):
        return x
    down, across = shares(x.shape[1]), shares(x.shape[2])
    return jnp.einsum("bhwc,ih,jw->bijc", x, down, across, precision="highest")


def flatten(x: jax.Array) -> jax.Array:
    """All axes after the first as one, the last varying fastest: (batch, ...) to (batch, n)."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def check_rate(rate: float) -> None:
    """Raise unless `rate`, the share of units that dropout removes, is in [0, 1)."""
    if not 0 <= rate < 1:
        raise error(
            "dropout",
            expected="a share of units to remove, at least 0 and below 1",
            got=repr(rate),
            fix="0.1 to 0.5 is usual",
        )


def check_images(inputs: Any) -> None:
    """Raise unless `inputs` is one array (batch, height, width, channels)."""
    shape = getattr(inputs, "shape", None)
    if shape is not None and len(shape) == 4:
        return
    grey = shape is not None and len(shape) == 3
    raise error(
        "images",
        expected="an array of shape (batch, height, width, channels)",
        got=f"shape {shape}" if shape is not None else type(inputs).__name__,
        fix="give grey images a channel axis: x[..., None]"
        if grey
        else "reshape the images to four axes",
    )
