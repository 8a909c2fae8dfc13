"""Convolutional networks for time series."""

from collections.abc import Sequence

import jax
from flax import linen as nn

from jdl.models.layers import primitives


class CNN1D(nn.Module):
    """Convolutions over time, then dropout and a dense layer (Waibel et al. 1989).

    Inputs (batch, time, channels), outputs (batch, outputs). Each convolution has a window of
    `width` steps, stride 2, zero padding at both ends and ReLU. Layers are `conv_1`, ...,
    `dropout` and `output`.

    Raises `InputError` at `init` for a `dropout` outside [0, 1).

    >>> from jdl.core import tree
    >>> from jdl.models import from_linen
    >>> import jax.numpy as jnp
    >>> init = from_linen(CNN1D()).init
    >>> tree.count(jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 40, 1)))[0])
    12106
    """

    features: Sequence[int] = (32, 32, 32)
    outputs: int = 10
    width: int = 5
    dropout: float = 0.0

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        """Return the outputs (batch, outputs)."""
        primitives.check_rate(self.dropout)
        x = inputs
        for index, features in enumerate(self.features, start=1):
            x = nn.relu(
                primitives.Conv(features, (self.width,), strides=2, name=f"conv_{index}")(x)
            )
        x = primitives.flatten(x)
        x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
        return primitives.Dense(self.outputs, name="output")(x)
