"""Causal dilated convolutions with gated units, in the manner of WaveNet."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jdl.models.layers import primitives, recurrent_cells
from jdl.models.layers.causal_conv import CausalConv, check_dilations


class WaveNet(nn.Module):
    r"""Gated causal convolutions with residual and skip connections (van den Oord et al. 2016).

    After a dense layer to `features` channels, for each of `dilations`:
    $z = \tanh(W_f * x) \odot \sigma(W_g * x)$, $x \leftarrow x + A z$, $s \leftarrow s + B z$,
    where $*$ is a causal convolution of that dilation. Then two dense layers on $s$, each after
    ReLU.

    Inputs (batch, time, n), or a pair of them and their true lengths (batch,); outputs
    (batch, time, outputs): those of step t depend on the inputs up to t, of which they see
    `jdl.models.layers.causal_conv.receptive_field(window, dilations)` steps. To model a sequence,
    let the labels be the inputs one step later.

    With F features, S skip channels, L dilations, window k, n inputs and K outputs there are
    $(n+1)F + L\,(2(kF+1)F + (F+1)S) + (L-1)(F+1)F + (S+1)S + (S+1)K$ parameters; the last
    block has no residual output, for nothing would read it. Layers are `input`, `filter_gate_1`,
    `residual_1`, `skip_1`, ..., `hidden`, `output`.

    >>> from jdl.core import tree
    >>> from jdl.models import from_linen
    >>> model = from_linen(WaveNet(features=4, skip=8, dilations=(1, 2), outputs=3))
    >>> params, _ = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 6, 2)))
    >>> tree.count(params)
    355
    """

    features: int = 32
    skip: int = 64
    dilations: Sequence[int] = (1, 2, 4, 8, 16)
    outputs: int = 10
    window: int = 2

    @nn.compact
    def __call__(self, inputs: Any) -> jax.Array:
        """The outputs at every step."""
        check_dilations(self.window, self.dilations)
        x, _ = recurrent_cells.true_steps(inputs)
        glorot = primitives.INITIALIZERS["glorot"]
        x = primitives.Dense(self.features, kernel_init=glorot, name="input")(x)
        total: Any = 0.0
        for index, dilation in enumerate(self.dilations, start=1):
            both = CausalConv(
                2 * self.features, self.window, dilation, name=f"filter_gate_{index}"
            )(x)
            new, gate = jnp.split(both, 2, axis=-1)
            z = jnp.tanh(new) * nn.sigmoid(gate)
            total = total + primitives.Dense(self.skip, kernel_init=glorot, name=f"skip_{index}")(z)
            if index < len(self.dilations):
                x = x + primitives.Dense(
                    self.features, kernel_init=glorot, name=f"residual_{index}"
                )(z)
        he = primitives.INITIALIZERS["he"]
        total = primitives.Dense(self.skip, kernel_init=he, name="hidden")(nn.relu(total))
        return primitives.Dense(
            self.outputs, kernel_init=primitives.initializer("matched", "identity"), name="output"
        )(nn.relu(total))
