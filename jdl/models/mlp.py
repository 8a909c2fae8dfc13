"""Multilayer perceptrons, of which linear regression is the smallest."""

from collections.abc import Sequence

import jax
from flax import linen as nn

from jdl.models.layers import primitives


class MLP(nn.Module):
    r"""Dense layers with a non-linearity between them (Rumelhart, Hinton & Williams 1986).

    $h_0 = x$, $h_i = \phi(h_{i-1} W_i + b_i)$, $y = h_k W + b$. Inputs (batch, ...) are flattened
    to (batch, n); outputs (batch, outputs) are linear: logits, or the prediction itself.
    A layer from n to m units has (n + 1) m parameters: `MLP((4,), 1)` on two inputs has 17,
    `MLP((), 1)` on two inputs, which is linear regression, has 3.

    Layers are `dense_1`, ..., `dense_k` and `output`. `initializer="matched"` draws hidden
    weights by the activation (see `jdl.models.layers.primitives.initializer`) and those of the
    output, which is linear, by LeCun's rule; any other name is used for all. Biases start at zero.
    `dropout` is the share of hidden units removed in training (Srivastava et al. 2014).

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
        """The outputs of a batch."""
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
