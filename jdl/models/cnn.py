"""Convolutional networks like LeNet."""

from collections.abc import Sequence

import jax
from flax import linen as nn

from jdl.models.layers import normalization, primitives


class CNN(nn.Module):
    """Convolutions with pooling, then dense layers (LeCun et al. 1998).

    Each of `features` adds a 3x3 convolution, the activation and a 2x2 max pool. The result is
    flattened, and each of `hidden` adds a dense layer. Inputs (batch, height, width, channels),
    outputs (batch, classes) logits.

    With `padding="VALID"` two convolutions need images of 10x10 or more; for 8x8 digits pass
    `"SAME"`. `norm` adds a normalisation after every convolution: "batch", "layer", "instance" or
    "group" (see `jdl.models.layers.normalization.norm`). The convolutions then have no bias, whose
    gradient would be zero before batch normalisation. `axis_name` is the device axis that batch
    statistics are averaged over under `jdl.pmap`. `dropout` is the rate before each dense layer in
    training. Weights are initialised as in `MLP`.

    Layers are `conv_1`, `batch_norm_1`, `pool_1`, ..., `dense_1`, ..., `output`.

    Raises `InputError` at `init` for inputs of another rank, images too small for the pools, an
    unknown `padding`, `activation`, `norm` or `initializer`, and a `dropout` outside [0, 1).

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
        """Return the logits (batch, classes)."""
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
