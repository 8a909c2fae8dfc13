"""Activations, initializers, basic layers and pooling."""

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
    """An activation function, and the name of the initializer that suits it."""

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
    """Return the activation of that name, with its matching initializer.

    Raises `InputError` for an unknown name.

    >>> activation("relu").initializer
    'he'
    """
    return ACTIVATIONS[check_one_of("activation", name, ACTIVATIONS)]


def initializer(name: str, activation_name: str) -> Initializer:
    """Return the initializer of a layer's weights.

    `"matched"` is the one that preserves the variance of the signal through the activation that
    follows the layer. With n inputs and m outputs:

    - `"he"`, normal with variance $2/n$, for ReLU and its relatives (He et al. 2015);
    - `"glorot"`, uniform with variance $2/(n+m)$, for tanh and sigmoid (Glorot & Bengio 2010);
    - `"lecun"`, normal with variance $1/n$, for linear and SELU layers (LeCun et al. 1998);
    - `"orthogonal"` (Saxe et al. 2014) and `"zeros"`, by name only.

    Raises `InputError` for an unknown name.
    """
    check_one_of("initializer", name, ["matched", *INITIALIZERS])
    return INITIALIZERS[activation(activation_name).initializer if name == "matched" else name]


def gelu(x: jax.Array) -> jax.Array:
    r"""The exact GELU, $x\,\Phi(x) = \frac{x}{2}(1 + \mathrm{erf}(x/\sqrt 2))$.

    Hendrycks & Gimpel 2016. As in PyTorch it uses erf, computed in float32 or wider because 1 + erf
    cancels below zero; the absolute error is below 1e-6. `jax.nn.gelu` uses erfc, which is more
    precise for large negative inputs and takes twice as long on CPU.

    >>> print([f"{x:.4f}" for x in gelu(jnp.array([-1.0, 0.0, 1.0]))])
    ['-0.1587', '0.0000', '0.8413']
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return (0.5 * wide * (1 + jax.lax.erf(wide * math.sqrt(0.5)))).astype(x.dtype)


class Dense(nn.Dense):
    """A dense layer on the last axis, computed as one product of two matrices.

    Inputs (..., n), outputs (..., features). Leading axes are flattened around the product, because
    products of higher rank are slower on CPU.
    """

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Return the product with the kernel, plus the bias."""
        leading = inputs.shape[:-1]
        flat = inputs.reshape(math.prod(leading), inputs.shape[-1])
        return super().__call__(flat).reshape(*leading, self.features)


ONE_HOT_UP_TO_VECTORS = 1024
"""Size of an embedding up to which a GPU or TPU computes it as a product."""


class Embed(nn.Embed):
    """An embedding of integers from 0 to `num_embeddings` - 1: (...) to (..., features).

    Any other integer gives nan, which training reports; Flax counts negative ones from the end. A
    GPU or TPU computes up to `ONE_HOT_UP_TO_VECTORS` vectors as a product with a one-hot matrix:
    the gradient of a lookup adds rows one after the other, in no fixed order, which takes a GPU
    several times as long as the rest of a transformer.
    """

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Return the vectors (..., features)."""
        is_small = self.num_embeddings <= ONE_HOT_UP_TO_VECTORS and jnp.issubdtype(
            inputs.dtype, jnp.integer
        )
        if lowering.platform() == "cpu" or not is_small:
            return super().__call__(jnp.where(inputs < 0, self.num_embeddings, inputs))
        in_range = (inputs >= 0) & (inputs < self.num_embeddings)
        promoted: Any = self.promote_dtype(self.embedding, dtype=self.dtype, inexact=False)
        (table,) = promoted
        ones = jax.nn.one_hot(inputs, self.num_embeddings, dtype=table.dtype)
        # The highest precision gives exactly the vectors, in float32 too.
        vectors = jnp.matmul(ones.reshape(-1, len(table)), table, precision="highest")
        return jnp.where(in_range[..., None], vectors.reshape(*inputs.shape, -1), jnp.nan)


class Conv(nn.Conv):
    """Flax's convolution layer, computed by `jdl.models.layers.convolution.convolution`."""

    conv_general_dilated: Any = convolution


class BatchNorm(nn.BatchNorm):
    """Batch normalisation over all axes but the last (Ioffe & Szegedy 2015).

    Training uses the batch's own mean and (biased) variance and updates the running averages, which
    evaluation uses. With `axis_name` the statistics cover the batches of all devices on that axis.
    There is no mask: padded rows would count as data.

    In training the outputs equal PyTorch's. The variance is the mean squared deviation, because a
    difference of squares would lose its digits for inputs far from zero. The running variance is
    biased; PyTorch's is unbiased, larger by n / (n - 1) for n values per channel. Raises
    `InputError` if `axis_name` is not mapped.
    """

    use_fast_variance: bool = False

    def __call__(self, x: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
        """Return the normalised inputs, scaled and shifted."""
        try:
            return super().__call__(x, *args, **kwargs)
        except NameError as cause:
            if self.axis_name is None or str(self.axis_name) not in str(cause):
                raise
            raise error(
                f"BatchNorm axis_name {self.axis_name!r}",
                expected="a step mapped over a device axis of this name, as by jdl.pmap",
                got="a step without this axis",
                fix="leave axis_name out: under jit and shard the statistics already cover the "
                "whole batch",
            ) from cause


class MaxPool(nn.Module):
    """`max_pool` as a layer with a name, for summaries and error messages."""

    window: int = 2
    stride: int | None = None
    padding: str | Pairs = "VALID"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the pooled image."""
        return max_pool(x, self.window, self.stride, self.padding)


class AvgPool(nn.Module):
    """`avg_pool` as a layer with a name."""

    window: int = 2
    stride: int | None = None
    padding: str | Pairs = "VALID"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the pooled image."""
        return avg_pool(x, self.window, self.stride, self.padding)


class AdaptiveAvgPool(nn.Module):
    """`adaptive_avg_pool` as a layer with a name."""

    size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the pooled image."""
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
    r"""Build a two-dimensional convolution layer (a cross-correlation, as in PyTorch and Flax).

    $y_{n,i,j,f} = b_f + \sum_{u,v,c} x_{n,\,i+u,\,j+v,\,c}\,W_{u,v,c,f}$ for images
    (batch, height, width, channels) and kernels (height, width, channels, features). `"VALID"`
    keeps the positions where the window lies inside the image, `"SAME"` pads with zeros. Raises
    `InputError` for another `padding` string.
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
    not fill a window are dropped. This case shares the gradient evenly among tied values; the
    general case (and PyTorch) gives it to the first. After ReLU both agree, because a tie at zero
    has no gradient. NaN in a window gives NaN; compiled for CPU, `flax.linen.max_pool` may lose it.

    >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0]
    Array([[ 5.,  7.],
           [13., 15.]], dtype=float32)
    """
    if stride in (None, window) and padding == "VALID":
        return pooling.max_of_windows(window, x)
    stride = stride or window
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(x.shape[1:3], [window] * 2, [stride] * 2, padding)
    return pooling.max_of_strided_windows(window, stride, tuple(map(tuple, padding)), x)


def avg_pool(
    x: jax.Array, window: int = 2, stride: int | None = None, padding: str | Pairs = "VALID"
) -> jax.Array:
    """The mean of each window of an image (batch, height, width, channels).

    Output shapes are those of `max_pool`. With `"SAME"` padding the zeros outside the image count.

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
    r"""Average pool an image (batch, height, width, channels) to (batch, size, size, channels).

    Window i of an axis of n pixels is $[\lfloor in/s \rfloor, \lceil (i+1)n/s \rceil)$, as in
    PyTorch: windows may overlap by a pixel, and pixels of a smaller image are repeated.

    >>> adaptive_avg_pool(jnp.arange(16.0).reshape(1, 4, 4, 1), 2)[0, :, :, 0]
    Array([[ 2.5,  4.5],
           [10.5, 12.5]], dtype=float32)
    """

    def averaging_matrix(length: int) -> jax.Array:
        edges = [(i * length // size, -(-(i + 1) * length // size)) for i in range(size)]
        rows = [[(low <= j < high) / (high - low) for j in range(length)] for low, high in edges]
        return jnp.array(rows, x.dtype).reshape(size, length)

    if x.shape[1:3] == (size, size):
        return x
    rows, columns = averaging_matrix(x.shape[1]), averaging_matrix(x.shape[2])
    return jnp.einsum("bhwc,ih,jw->bijc", x, rows, columns, precision="highest")


def flatten(x: jax.Array) -> jax.Array:
    """Flatten all axes after the first: (batch, ...) to (batch, n)."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def check_rate(rate: float) -> None:
    """Raise `InputError` unless a dropout rate is in [0, 1)."""
    if not 0 <= rate < 1:
        raise error(
            "dropout",
            expected="a rate of at least 0 and below 1",
            got=repr(rate),
            fix="pass a rate in that range; 0.1 to 0.5 is common",
        )


def check_images(inputs: Any) -> None:
    """Raise `InputError` unless `inputs` is one array (batch, height, width, channels)."""
    shape = getattr(inputs, "shape", None)
    if shape is not None and len(shape) == 4:
        return
    lacks_channels = shape is not None and len(shape) == 3
    raise error(
        "images",
        expected="an array of shape (batch, height, width, channels)",
        got=f"shape {shape}" if shape is not None else type(inputs).__name__,
        fix="add a channel axis with x[..., None]"
        if lacks_channels
        else "reshape the images to four axes",
    )
