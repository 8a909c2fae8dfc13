"""Convolutional networks in the manner of LeNet."""

from collections.abc import Sequence

import jax
from flax import linen as nn

from jdl.models.layers import normalization, primitives


class CNN(nn.Module):
    """Convolutions with pooling, then dense layers (LeCun et al. 1998).

    For each of `features` a 3x3 convolution, the activation and a 2x2 max pool; then all pixels
    flattened, a dense layer for each of `hidden`, and one for the classes. Inputs
    (batch, height, width, channels), outputs (batch, classes) logits.

    On 28x28x1 images the defaults have 225,034 parameters (320 + 18,496 + 204,928 + 1,290), and
    with `hidden=()` 34,826. `"VALID"` needs images of 10x10 or more for two convolutions;
    `"SAME"` takes the 8x8 digits.

    Layers are `conv_1`, `batch_norm_1`, `pool_1`, ..., `dense_1`, ..., `output`, with initial
    weights as in `jdl.models.MLP`. `dropout` is the share of units removed before each dense
    layer in training. `norm` names a normalisation after every convolution ("batch", "layer",
    "instance" or "group", see `jdl.models.layers.normalization.norm`), which then has no bias of
    its own: before a batch normalisation its gradient would be zero. `axis_name` is the mapped
    device axis over which batch statistics are taken in training.

    >>> import jax.numpy as jnp
    >>> from jdl.core import tree
    >>> from jdl.models import from_linen
    >>> params, model_state = from_linen(CNN()).init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    >>> tree.count(params)
    225034
    """

    features: Sequence[int] = (32, 64)
    hidden: Sequence[int] = (128,)
    classes: int = 10
    padding: primitives.Padding = "VALID"
    activation: str = "relu"
    dropout: float = 0.0
    norm: str = "none"
    axis_name: str | None = None
    initializer: str = "matched"

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        """The logits of a batch of images."""
        primitives.check_rate(self.dropout)
        primitives.check_images(inputs)
        function = primitives.activation(self.activation).function
        hidden_init = primitives.initializer(self.initializer, self.activation)
        output_init = primitives.initializer(self.initializer, "identity")
        norm = self.norm
        normalization.check_norm(norm)
        x = inputs
        for index, width in enumerate(self.features, start=1):
            x = primitives.conv(
                width,
                padding=self.padding,
                use_bias=norm == "none",
                kernel_init=hidden_init,
                name=f"conv_{index}",
            )(x)
            name = f"{norm}_norm_{index}"
            x = normalization.norm(norm, train=train, axis_name=self.axis_name, name=name)(x)
            x = primitives.MaxPool(name=f"pool_{index}")(function(x))
        x = primitives.flatten(x)
        for index, width in enumerate(self.hidden, start=1):
            x = nn.Dropout(self.dropout, deterministic=not train, name=f"dropout_{index}")(x)
            x = primitives.Dense(width, kernel_init=hidden_init, name=f"dense_{index}")(x)
            x = function(x)
        x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
        return primitives.Dense(self.classes, kernel_init=output_init, name="output")(x)
