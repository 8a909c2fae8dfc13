"""Residual networks."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from jdl.core.errors import did_you_mean, error
from jdl.models.layers import conv_blocks, primitives
from jdl.models.layers.remat import rematerialize

SHORTCUTS = ("project", "pad")


class ResidualBlock(nn.Module):
    r"""$y = \mathrm{ReLU}(F(x) + S(x))$ (He et al. 2016).

    F is two 3x3 convolutions, or with `bottleneck` a 1x1, a 3x3 and a 1x1 convolution that widens
    to 4 `features`. Each is normalised, and the first 3x3 convolution has the `stride`. S is the
    identity if the shapes agree. Otherwise it is a normalised 1x1 convolution (`"project"`), or
    every stride-th pixel padded with zero channels (`"pad"`), which has no parameters.

    Images (batch, height, width, channels); layers `unit_1`, ..., `last`, `shortcut`.
    """

    features: int
    stride: int = 1
    bottleneck: bool = False
    shortcut: str = "project"
    norm: str = "batch"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        """Return the block's outputs."""
        units = [(1, 1), (3, self.stride)] if self.bottleneck else [(3, self.stride)]
        last, width = (1, 4 * self.features) if self.bottleneck else (3, self.features)
        norm_options = {"norm": self.norm, "axis_name": self.axis_name}
        x = inputs
        for index, (window, stride) in enumerate(units, start=1):
            unit = conv_blocks.ConvUnit(
                self.features, window, stride, **norm_options, name=f"unit_{index}"
            )
            x = unit(x, train)
        x = conv_blocks.ConvUnit(width, last, **norm_options, activation="identity", name="last")(
            x, train
        )
        if x.shape == inputs.shape:
            return nn.relu(x + inputs)
        if self.shortcut == "pad":
            return nn.relu(x + _pad_channels(inputs, self.stride, width))
        project = conv_blocks.ConvUnit(
            width, 1, self.stride, **norm_options, activation="identity", name="shortcut"
        )
        return nn.relu(x + project(inputs, train))


class ResNet(nn.Module):
    """Stages of residual blocks, then global average pooling and a dense layer (He et al. 2016).

    The blocks of stage i = 0, 1, ... have `features` times 2^i channels (four times that with
    `bottleneck`), and each stage but the first halves the image. Inputs (batch, height, width,
    channels), outputs (batch, classes) logits.

    - ResNet-18: the defaults, 11,689,512 parameters;
    - ResNet-50: `ResNet((3, 4, 6, 3), bottleneck=True)`, 25,557,032;
    - ResNet-20 for CIFAR: `ResNet((3, 3, 3), features=16, classes=10, stem="small",
      shortcut="pad")`, 269,722;
    - for 8x8 digits: `ResNet((1, 1), features=16, classes=10, stem="small")`.

    `stem` is `"large"` for photographs or `"small"`. `shortcut` is how a block changes shape: a 1x1
    convolution (`"project"`) or zero channels (`"pad"`). `norm` and `axis_name` are as in `CNN`.
    `remat` trades compute for memory in the backward pass
    (`jdl.models.layers.remat.rematerialize`). Layers are `stem`, `stage_1_block_1`, ..., `output`.

    Raises `InputError` at `init` for inputs of another rank and an unknown `stem`, `shortcut`,
    `norm` or `remat`.

    >>> from jdl.core import tree
    >>> from jdl.models import from_linen
    >>> model = from_linen(ResNet((3, 3, 3), 16, classes=10, stem="small", shortcut="pad"))
    >>> images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    >>> tree.count(jax.eval_shape(model.init, jax.random.key(0), images)[0])
    269722
    """

    stages: Sequence[int] = (2, 2, 2, 2)
    features: int = 64
    classes: int = 1000
    bottleneck: bool = False
    stem: str = "large"
    shortcut: str = "project"
    norm: str = "batch"
    axis_name: str | None = None
    remat: str = "none"

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        """Return the logits (batch, classes)."""
        primitives.check_images(inputs)
        if self.shortcut not in SHORTCUTS:
            raise error(
                "shortcut",
                expected='"project" or "pad"',
                got=repr(self.shortcut),
                fix=did_you_mean(str(self.shortcut), SHORTCUTS),
            )
        norm_options = {"norm": self.norm, "axis_name": self.axis_name}
        x = conv_blocks.Stem(self.features, self.stem, **norm_options, name="stem")(inputs, train)
        residual = rematerialize(ResidualBlock, self.remat, train_at=1)
        for stage, count in enumerate(self.stages):
            for block in range(count):
                x = residual(
                    self.features * 2**stage,
                    2 if stage and not block else 1,
                    self.bottleneck,
                    self.shortcut,
                    **norm_options,
                    name=f"stage_{stage + 1}_block_{block + 1}",
                )(x, train)
        return conv_blocks.classify(x.mean((1, 2)), self.classes)


def _pad_channels(x: jax.Array, stride: int, channels: int) -> jax.Array:
    x = x[:, ::stride, ::stride]
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, channels - x.shape[-1])))
