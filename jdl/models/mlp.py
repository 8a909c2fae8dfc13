"""Multilayer perceptrons. Without hidden layers, an `MLP` is a linear regression."""

from collections.abc import Sequence

import jax
from flax import linen as nn

from jdl.models.layers import primitives


class MLP(nn.Module):
    r"""Dense layers with an activation between them (Rumelhart, Hinton & Williams 1986).

    $h_0 = x$, $h_i = \phi(h_{i-1} W_i + b_i)$, $y = h_k W + b$. Inputs (batch, ...) are flattened
    to (batch, features). Outputs (batch, outputs) are linear: logits or predicted values.
    `features` are the widths of the hidden layers; `MLP((), 1)` is linear regression.

    Layers are `dense_1`, ..., `dense_k` and `output`. `initializer="matched"` draws the weights of
    the hidden layers to suit the activation (see `jdl.models.layers.primitives.initializer`) and
    those of the output by LeCun's rule; any other name applies to all layers. Biases start at zero.
    `dropout` is the rate for hidden units in training (Srivastava et al. 2014).

    Raises `InputError` at `init` for an unknown `activation` or `initializer`, and for a `dropout`
    outside [0, 1).

    >>> from jdl.core import tree
    >>> from jdl.models import from_linen
    >>> model = from_linen(MLP((4,), 1))
    >>> params, model_state = model.init(jax.random.key(0), jax.numpy.zeros((1, 2)))
    >>> tree.count(params)
    17
    """

    features: Sequence[int] = (128,)
    outputs: int = 10
    activation: str = "relu"
    dropout: float = 0.0
    initializer: str = "matched"

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        """Return the outputs (batch, outputs)."""
        primitives.check_rate(self.dropout)
        function = primitives.activation(self.activation).function
        hidden_init = primitives.initializer(self.initializer, self.activation)
        output_init = primitives.initializer(self.initializer, "identity")
        x = primitives.flatten(inputs)
        for index, width in enumerate(self.features, start=1):
            x = primitives.Dense(width, kernel_init=hidden_init, name=f"dense_{index}")(x)
            x = function(x)
            x = nn.Dropout(self.dropout, deterministic=not train, name=f"dropout_{index}")(x)
        return primitives.Dense(self.outputs, kernel_init=output_init, name="output")(x)
