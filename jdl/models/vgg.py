"""AlexNet and VGG: convolutions and pools, then wide dense layers."""

from collections.abc import Sequence

import jax
from flax import linen as nn

from jdl.models.layers import conv_blocks, primitives


class AlexNet(nn.Module):
    """Five convolutions and two wide dense layers (Krizhevsky, Sutskever & Hinton 2012).

    The single-tower version of Krizhevsky (2014) and torchvision, without local response
    normalisation: 61,100,840 parameters by default. Convolution i has `features[i]` channels and
    a window of `windows[i]`; the first has the `stride`. A 3x3 max pool of stride 2 follows the
    convolutions listed in `pools`, counted from 1. An adaptive average pool to `pooled` x `pooled`
    follows, then dropout and a dense layer with ReLU for each of `hidden`. Inputs (batch, height,
    width, channels), outputs (batch, classes) logits. For 8x8 digits use `AlexNet((16, 32, 48, 32,
    32), (3,) * 5, stride=1, pools=(1, 5), hidden=(64, 64), pooled=1, classes=10)`.

    Layers are `conv_1`, `pool_1`, ..., `pool`, `dense_1`, ..., `output`.

    Raises `InputError` at `init` for inputs of another rank, images too small for the pools, and a
    `dropout` outside [0, 1).

    >>> import jax.numpy as jnp
    >>> from jdl.core import tree
    >>> from jdl.models import from_linen
    >>> images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    >>> tree.count(jax.eval_shape(from_linen(AlexNet()).init, jax.random.key(0), images)[0])
    61100840
    """

    features: Sequence[int] = (64, 192, 384, 256, 256)
    windows: Sequence[int] = (11, 5, 3, 3, 3)
    stride: int = 4
    pools: Sequence[int] = (1, 2, 5)
    hidden: Sequence[int] = (4096, 4096)
    pooled: int = 6
    classes: int = 1000
    dropout: float = 0.5

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        """Return the logits (batch, classes)."""
        primitives.check_rate(self.dropout)
        primitives.check_images(inputs)
        x = inputs
        sizes = zip(self.features, self.windows, strict=True)
        for index, (width, window) in enumerate(sizes, start=1):
            stride = self.stride if index == 1 else 1
            padding = min(window // 2, 2)
            x = primitives.conv(
                width, window, stride=stride, padding=padding, name=f"conv_{index}"
            )(x)
            x = nn.relu(x)
            if index in self.pools:
                x = primitives.MaxPool(3, 2, name=f"pool_{index}")(x)
        x = primitives.AdaptiveAvgPool(self.pooled, name="pool")(x)
        rates = [self.dropout] * len(self.hidden) + [0.0]
        return _classify_dense(x, self.hidden, self.classes, rates, train)


class VGG(nn.Module):
    """Stages of 3x3 convolutions, each ending in a 2x2 max pool (Simonyan & Zisserman 2015).

    An adaptive average pool to `pooled` x `pooled` follows, then a dense layer with ReLU and
    dropout for each of `hidden`. The default is VGG-16, with thirteen convolutions and 138,357,544
    parameters. Inputs (batch, height, width, channels), outputs (batch, classes) logits. For 8x8
    digits use `VGG(((16, 16), (32, 32)), hidden=(64,), pooled=2, classes=10)`.

    `norm` adds a normalisation after each convolution (the original has none); it and `axis_name`
    are as in `CNN`. Layers are `stage_1_unit_1`, ..., `pool_1`, ..., `pool`, `dense_1`, ...,
    `output`.

    Raises `InputError` at `init` for inputs of another rank, images too small for the pools, an
    unknown `norm`, and a `dropout` outside [0, 1).

    >>> import jax.numpy as jnp
    >>> from jdl.core import tree
    >>> from jdl.models import from_linen
    >>> images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    >>> tree.count(jax.eval_shape(from_linen(VGG()).init, jax.random.key(0), images)[0])
    138357544
    """

    stages: Sequence[Sequence[int]] = (
        (64, 64),
        (128, 128),
        (256, 256, 256),
        (512, 512, 512),
        (512, 512, 512),
    )
    hidden: Sequence[int] = (4096, 4096)
    pooled: int = 7
    classes: int = 1000
    dropout: float = 0.5
    norm: str = "none"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        """Return the logits (batch, classes)."""
        primitives.check_rate(self.dropout)
        primitives.check_images(inputs)
        x = inputs
        for stage, widths in enumerate(self.stages, start=1):
            for index, width in enumerate(widths, start=1):
                x = conv_blocks.ConvUnit(
                    width,
                    norm=self.norm,
                    axis_name=self.axis_name,
                    name=f"stage_{stage}_unit_{index}",
                )(x, train)
            x = primitives.MaxPool(name=f"pool_{stage}")(x)
        x = primitives.AdaptiveAvgPool(self.pooled, name="pool")(x)
        rates = [0.0] + [self.dropout] * len(self.hidden)
        return _classify_dense(x, self.hidden, self.classes, rates, train)


def _classify_dense(
    x: jax.Array, hidden: Sequence[int], classes: int, rates: Sequence[float], train: bool
) -> jax.Array:
    """Dense layers with ReLU, then the logits; dropout of `rates[i]` precedes layer i."""
    x = primitives.flatten(x)
    for index, (width, rate) in enumerate(zip(hidden, rates, strict=False), start=1):
        x = nn.Dropout(rate, deterministic=not train, name=f"dropout_{index}")(x)
        dense = primitives.Dense(
            width, kernel_init=primitives.INITIALIZERS["he"], name=f"dense_{index}"
        )
        x = nn.relu(dense(x))
    x = nn.Dropout(rates[-1], deterministic=not train, name="dropout")(x)
    return conv_blocks.classify(x, classes)
