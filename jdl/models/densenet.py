"""Densely connected convolutional networks."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from jdl.models.layers import conv_blocks, normalization, primitives


class NormConv(nn.Module):
    """Normalisation, ReLU and a convolution without bias: layers `norm` and `conv`."""

    features: int
    window: int
    norm: str = "batch"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Return outputs (batch, height, width, features)."""
        x = normalization.norm(self.norm, train=train, axis_name=self.axis_name, name="norm")(x)
        return primitives.conv(self.features, self.window, use_bias=False, name="conv")(nn.relu(x))


class DenseBlock(nn.Module):
    """Layers that each receive the outputs of all earlier ones (Huang et al. 2017).

    $x_{i+1} = [x_i, F_i(x_i)]$, where F is a 1x1 convolution to 4 `growth` channels and a 3x3 one
    to `growth`, each after normalisation and ReLU. Maps images (batch, height, width, channels) to
    (batch, height, width, channels + count · growth). Layers are `reduce_1`, `grow_1`, ...

    >>> block = DenseBlock(2, growth=3)
    >>> block.init_with_output(jax.random.key(0), jnp.ones((1, 5, 5, 4)))[0].shape
    (1, 5, 5, 10)
    """

    count: int
    growth: int = 32
    norm: str = "batch"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Return the inputs, followed by the new channels."""
        norm_options = {"norm": self.norm, "axis_name": self.axis_name}
        for index in range(1, self.count + 1):
            new = NormConv(4 * self.growth, 1, **norm_options, name=f"reduce_{index}")(x, train)
            new = NormConv(self.growth, 3, **norm_options, name=f"grow_{index}")(new, train)
            x = jnp.concatenate([x, new], axis=-1)
        return x


class DenseNet(nn.Module):
    """Dense blocks, global average pooling and a dense layer (Huang et al. 2017).

    Between blocks, a transition halves the channels with a 1x1 convolution, and height and width
    with an average pool. Inputs (batch, height, width, channels), outputs (batch, classes) logits.
    The defaults are DenseNet-121 with 7,978,856 parameters. For 8x8 digits use
    `DenseNet((2, 2), growth=8, features=16, classes=10, stem="small")`.

    `stem` is `"large"` for photographs or `"small"`; `norm` and `axis_name` are as in `CNN`.
    Layers are `stem`, `block_1`, `transition_1`, `pool_1`, ..., `norm`, `output`.

    Raises `InputError` at `init` for inputs of another rank, images too small for the pools, and an
    unknown `stem` or `norm`.

    >>> from jdl.core import tree
    >>> from jdl.models import from_linen
    >>> model = from_linen(DenseNet((1, 1), growth=2, features=4, classes=3, stem="small"))
    >>> images = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)
    >>> tree.count(jax.eval_shape(model.init, jax.random.key(0), images)[0])
    492
    """

    stages: Sequence[int] = (6, 12, 24, 16)
    growth: int = 32
    features: int = 64
    classes: int = 1000
    stem: str = "large"
    norm: str = "batch"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        """Return the logits (batch, classes)."""
        primitives.check_images(inputs)
        norm_options = {"norm": self.norm, "axis_name": self.axis_name}
        x = conv_blocks.Stem(self.features, self.stem, **norm_options, name="stem")(inputs, train)
        for index, count in enumerate(self.stages, start=1):
            x = DenseBlock(count, self.growth, **norm_options, name=f"block_{index}")(x, train)
            if index < len(self.stages):
                half = x.shape[-1] // 2
                x = NormConv(half, 1, **norm_options, name=f"transition_{index}")(x, train)
                x = primitives.AvgPool(name=f"pool_{index}")(x)
        x = normalization.norm(self.norm, train=train, axis_name=self.axis_name, name="norm")(x)
        return conv_blocks.classify(nn.relu(x).mean((1, 2)), self.classes)
