"""WaveNet: causal dilated convolutions with gated units."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jdl.models.layers import primitives, recurrent_cells
from jdl.models.layers.causal_conv import CausalConv, check_dilations


class WaveNet(nn.Module):
    r"""Gated causal convolutions with residual and skip connections (van den Oord et al. 2016).

    A dense layer maps the inputs to `features` channels. Then, for each of `dilations`:
    $z = \tanh(W_f * x) \odot \sigma(W_g * x)$, $x \leftarrow x + A z$, $s \leftarrow s + B z$,
    where $*$ is a causal convolution with that dilation. Two dense layers on $s$, each after ReLU,
    give the outputs.

    Inputs are (batch, time, features), or a pair of them and their lengths (batch,). Outputs are
    (batch, time, outputs). The output at step t depends on the inputs up to t, on the last
    `jdl.models.layers.causal_conv.receptive_field(window, dilations)` of them. To model a sequence,
    use the inputs one step later as labels.

    The last block has no residual output, since nothing would use it. Layers are `input`,
    `filter_gate_1`, `residual_1`, `skip_1`, ..., `hidden`, `output`.

    Raises `InputError` at `init` for a `window` or dilation below 1, inputs of another rank, and
    lengths that do not fit them.

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
    def __call__(self, inputs: recurrent_cells.Sequences) -> jax.Array:
        """Return the outputs (batch, time, outputs)."""
        check_dilations(self.window, self.dilations)
        x, _ = recurrent_cells.true_steps(inputs)
        glorot = primitives.INITIALIZERS["glorot"]
        x = primitives.Dense(self.features, kernel_init=glorot, name="input")(x)
        total: Any = 0.0
        for index, dilation in enumerate(self.dilations, start=1):
            filter_and_gate = CausalConv(
                2 * self.features, self.window, dilation, name=f"filter_gate_{index}"
            )(x)
            filtered, gate = jnp.split(filter_and_gate, 2, axis=-1)
            z = jnp.tanh(filtered) * nn.sigmoid(gate)
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
