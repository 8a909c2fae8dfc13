"""Parts that the deep convolutional networks share."""

import jax
from flax import linen as nn

from jdl.core.errors import did_you_mean, error
from jdl.models.layers import normalization, primitives

STEMS = ("large", "small")


class ConvUnit(nn.Module):
    """Convolution, normalisation, activation: layers `conv` and `norm`.

    Images (batch, height, width, channels) to (batch, height / stride, width / stride, features),
    rounded up, with zeros around the image. The convolution has a bias only where `norm` is
    "none": before a normalisation it would do nothing.

    >>> import jax.numpy as jnp
    >>> unit = ConvUnit(4, stride=2)
    >>> unit.init_with_output(jax.random.key(0), jnp.ones((1, 7, 7, 3)))[0].shape
    (1, 4, 4, 4)
    """

    features: int
    window: int = 3
    stride: int = 1
    padding: primitives.Padding | None = None
    """Pixels on each side; left out, half the window."""
    norm: str = "batch"
    axis_name: str | None = None
    activation: str = "relu"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """The unit's outputs."""
        chosen = primitives.activation(self.activation)
        x = primitives.conv(
            self.features,
            self.window,
            stride=self.stride,
            padding=self.window // 2 if self.padding is None else self.padding,
            use_bias=self.norm == "none",
            kernel_init=primitives.initializer("matched", self.activation),
            name="conv",
        )(x)
        x = normalization.norm(self.norm, train=train, axis_name=self.axis_name, name="norm")(x)
        return chosen.function(x)


class Stem(nn.Module):
    """How a deep network begins: layers `unit` and, in the large one, `pool`.

    `"large"` is a 7x7 convolution of stride 2 and a 3x3 pool of stride 2, for photographs: it
    leaves a sixteenth of the pixels. `"small"` is a 3x3 convolution that leaves all of them.
    """

    features: int
    kind: str = "large"
    norm: str = "batch"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """The first feature maps."""
        check_stem(self.kind)
        large = self.kind == "large"
        window, stride = (7, 2) if large else (3, 1)
        x = ConvUnit(
            self.features, window, stride, norm=self.norm, axis_name=self.axis_name, name="unit"
        )(x, train)
        return primitives.MaxPool(3, 2, ((1, 1), (1, 1)), name="pool")(x) if large else x


def classify(x: jax.Array, classes: int) -> jax.Array:
    """Logits by a dense layer, `output`, whose weights are drawn by LeCun's rule."""
    return primitives.Dense(classes, kernel_init=primitives.INITIALIZERS["lecun"], name="output")(x)


def check_stem(kind: str) -> None:
    """Raise unless `kind` names a stem."""
    if kind not in STEMS:
        raise error(
            "stem",
            expected='"large" (photographs) or "small" (images of 64x64 or less)',
            got=repr(kind),
            fix=did_you_mean(str(kind), STEMS),
        )
