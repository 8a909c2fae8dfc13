"""Building blocks of the deep convolutional networks."""

import jax
from flax import linen as nn

from jdl.core.errors import did_you_mean, error
from jdl.models.layers import normalization, primitives

STEMS = ("large", "small")


class ConvUnit(nn.Module):
    """Convolution, normalisation, activation: layers `conv` and `norm`.

    Maps images (batch, height, width, channels) to (batch, height / stride, width / stride,
    features), rounded up, with zero padding. The convolution has a bias only if `norm` is "none"; a
    normalisation would cancel it.

    >>> import jax.numpy as jnp
    >>> unit = ConvUnit(4, stride=2)
    >>> unit.init_with_output(jax.random.key(0), jnp.ones((1, 7, 7, 3)))[0].shape
    (1, 4, 4, 4)
    """

    features: int
    window: int = 3
    stride: int = 1
    padding: primitives.Padding | None = None
    """Pixels on each side; the default is half the window."""
    norm: str = "batch"
    axis_name: str | None = None
    activation: str = "relu"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Return the unit's outputs."""
        activation = primitives.activation(self.activation)
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
        return activation.function(x)


class Stem(nn.Module):
    """The first layers of a deep network: layers `unit` and, in the large stem, `pool`.

    `"large"` is a 7x7 convolution and a 3x3 max pool, each of stride 2, for photographs. `"small"`
    is a 3x3 convolution that keeps height and width.
    """

    features: int
    kind: str = "large"
    norm: str = "batch"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Return the first feature maps."""
        check_stem(self.kind)
        large = self.kind == "large"
        window, stride = (7, 2) if large else (3, 1)
        x = ConvUnit(
            self.features, window, stride, norm=self.norm, axis_name=self.axis_name, name="unit"
        )(x, train)
        return primitives.MaxPool(3, 2, ((1, 1), (1, 1)), name="pool")(x) if large else x


def classify(x: jax.Array, classes: int) -> jax.Array:
    """Compute logits (batch, classes) with a dense layer, `output`, initialised by LeCun's rule."""
    return primitives.Dense(classes, kernel_init=primitives.INITIALIZERS["lecun"], name="output")(x)


def check_stem(kind: str) -> None:
    """Raise `InputError` unless `kind` names a stem."""
    if kind not in STEMS:
        raise error(
            "stem",
            expected='"large" (for photographs) or "small" (for images up to 64x64)',
            got=repr(kind),
            fix=did_you_mean(str(kind), STEMS),
        )
