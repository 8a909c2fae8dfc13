"""Autoencoders: networks that reconstruct their inputs from a small code."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jdl.core.errors import error
from jdl.models.layers import primitives
from jdl.models.layers.upsampling import conv_transpose
from jdl.models.mlp import MLP


class Autoencoder(nn.Module):
    r"""A dense autoencoder: $z = \phi(x W + b)$, $\hat x = z V + c$ (Hinton & Salakhutdinov 2006).

    Inputs and outputs are (batch, *shape), codes (batch, code). The task decides whether the
    outputs are logits of pixels in [0, 1] or the pixels themselves. `hidden` are the widths between
    inputs and code, and in reverse between code and outputs. `activation` follows each of them and
    the code. With `"identity"` and no hidden layers the network is linear and can at best match PCA
    with `code` components (Bourlard & Kamp 1988).

    Weights are drawn by Glorot's rule. Rules that count inputs only, such as He's, would make those
    of the decoder several times larger. Before the biases have learned that most pixels are dark,
    such weights push the code below zero, where ReLU units get no gradient.

    `encode` and `decode` are methods: `module.apply({"params": params}, codes, method="decode")`.
    Raises `InputError` at `init` for inputs of another shape and an unknown `activation` or
    `initializer`.

    >>> from jdl.core import tree
    >>> from jdl.models import from_linen
    >>> init = from_linen(Autoencoder()).init
    >>> shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    >>> tree.count(shapes)
    50992
    """

    code: int = 32
    hidden: Sequence[int] = ()
    activation: str = "relu"
    shape: Sequence[int] = (28, 28, 1)
    initializer: str = "glorot"

    def setup(self) -> None:
        """Build the encoder and the decoder."""
        pixels, settings = math.prod(self.shape), (self.activation, 0.0, self.initializer)
        self.encoder = MLP(tuple(self.hidden), self.code, *settings)
        self.decoder = MLP(tuple(self.hidden)[::-1], pixels, *settings)

    def encode(self, inputs: jax.Array) -> jax.Array:
        """Return the codes (batch, code) of inputs (batch, *shape)."""
        check_shape(inputs, self.shape)
        return primitives.activation(self.activation).function(self.encoder(inputs))

    def decode(self, codes: jax.Array) -> jax.Array:
        """Return outputs (batch, *shape) for codes (batch, code)."""
        return self.decoder(codes).reshape(len(codes), *self.shape)

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Return reconstructions (batch, *shape)."""
        return self.decode(self.encode(inputs))


class ConvAutoencoder(nn.Module):
    """A convolutional autoencoder (Masci et al. 2011).

    The encoder has a 3x3 convolution of stride 2 with ReLU for each of `features`, then a dense
    layer to the code, which is linear. The decoder has a dense layer, then a transposed convolution
    for each stage. Inputs and outputs are (batch, *shape), codes (batch, code). Outputs are logits
    or pixels, and `encode` and `decode` are methods, as in `Autoencoder`.

    Raises `InputError` at `init` for inputs of another shape, and a height or width that is not
    divisible by 2 for each of `features`.

    >>> from jdl.models import from_linen
    >>> model = from_linen(ConvAutoencoder(8, features=(4,), shape=(8, 8, 1)))
    >>> params, model_state = model.init(jax.random.key(0), jnp.zeros((2, 8, 8, 1)))
    >>> model.apply(params, model_state, jnp.zeros((2, 8, 8, 1)))[0].shape
    (2, 8, 8, 1)
    """

    code: int = 32
    features: Sequence[int] = (16, 32)
    shape: Sequence[int] = (28, 28, 1)

    def setup(self) -> None:
        """Build the encoder and the decoder."""
        self.encoder = ConvEncoder(self.code, tuple(self.features))
        self.decoder = ConvDecoder(tuple(self.features)[::-1], tuple(self.shape))

    def encode(self, inputs: jax.Array) -> jax.Array:
        """Return the codes (batch, code) of inputs (batch, *shape)."""
        check_shape(inputs, self.shape)
        return self.encoder(inputs)

    def decode(self, codes: jax.Array) -> jax.Array:
        """Return outputs (batch, *shape) for codes (batch, code)."""
        return self.decoder(codes)

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Return reconstructions (batch, *shape)."""
        return self.decode(self.encode(inputs))


class ConvEncoder(nn.Module):
    """Stride-2 convolutions, then a dense layer: (batch, height, width, channels) to codes."""

    code: int
    features: Sequence[int]

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Return the codes (batch, code)."""
        x = images
        for index, width in enumerate(self.features, start=1):
            x = nn.relu(primitives.conv(width, stride=2, name=f"conv_{index}")(x))
        linear = primitives.initializer("matched", "identity")
        return primitives.Dense(self.code, kernel_init=linear, name="code")(primitives.flatten(x))


class ConvDecoder(nn.Module):
    """A dense layer and transposed convolutions: (batch, code) to (batch, *shape)."""

    features: Sequence[int]
    shape: Sequence[int]

    @nn.compact
    def __call__(self, codes: jax.Array) -> jax.Array:
        """Return the outputs (batch, *shape)."""
        height, width, channels = coarsest_shape(self.shape, len(self.features))
        size = height * width * self.features[0]
        x = primitives.Dense(size, kernel_init=primitives.INITIALIZERS["he"], name="dense")(codes)
        x = nn.relu(x).reshape(len(codes), height, width, self.features[0])
        for index, features in enumerate(self.features[1:], start=1):
            x = nn.relu(conv_transpose(features, name=f"conv_transpose_{index}")(x))
        return conv_transpose(channels, name="output")(x)


class VariationalAutoencoder(nn.Module):
    r"""Autoencoder with a Gaussian code, $z \sim N(\mu(x), \sigma^2(x))$ (Kingma & Welling 2014).

    Encoder and decoder are dense. Inputs are (batch, *shape). Outputs are a dict: `logits`
    (batch, *shape) of the pixels, and `mean` and `log_variance` (batch, code) of the code. With a
    key, `apply` draws $z = \mu + \sigma \epsilon$, $\epsilon \sim N(0, I)$, so that gradients reach
    $\mu$ and $\sigma$ (the reparameterisation trick); without a key, $z = \mu$. Training needs a
    key. `hidden` are the widths of the encoder's hidden layers, and in reverse of the decoder's.

    `encode` returns mean and log variance, `decode` logits for codes. Raises `InputError` at `init`
    for inputs of another shape and an unknown `activation`, and in training without a key.

    >>> from jdl.models import from_linen
    >>> model = from_linen(VariationalAutoencoder(2, hidden=(8,), shape=(4, 4, 1)))
    >>> params, model_state = model.init(jax.random.key(0), jnp.zeros((3, 4, 4, 1)))
    >>> outputs, _ = model.apply(params, model_state, jnp.zeros((3, 4, 4, 1)))
    >>> outputs["logits"].shape, outputs["mean"].shape
    ((3, 4, 4, 1), (3, 2))
    """

    code: int = 20
    hidden: Sequence[int] = (400,)
    activation: str = "relu"
    shape: Sequence[int] = (28, 28, 1)

    def setup(self) -> None:
        """Build the encoder and the decoder."""
        self.encoder = MLP(tuple(self.hidden), 2 * self.code, self.activation)
        self.decoder = MLP(tuple(self.hidden)[::-1], math.prod(self.shape), self.activation)

    def encode(self, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return mean and log variance of the codes, (batch, code) each."""
        check_shape(inputs, self.shape)
        mean, log_variance = jnp.split(self.encoder(inputs), 2, axis=-1)
        return mean, log_variance

    def decode(self, codes: jax.Array) -> jax.Array:
        """Return the logits (batch, *shape) of codes (batch, code)."""
        return self.decoder(codes).reshape(len(codes), *self.shape)

    def __call__(self, inputs: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """Return `logits`, `mean` and `log_variance`."""
        mean, log_variance = self.encode(inputs)
        codes = mean
        if train or self.has_rng("noise"):
            draws = jax.random.normal(self.make_rng("noise"), mean.shape, mean.dtype)
            codes = mean + jnp.exp(log_variance / 2) * draws
        return {"logits": self.decode(codes), "mean": mean, "log_variance": log_variance}


def check_shape(inputs: Any, shape: Sequence[int]) -> None:
    """Raise `InputError` unless `inputs` are (batch, *shape)."""
    if tuple(inputs.shape[1:]) != tuple(shape):
        raise error(
            "inputs",
            expected=f"shape (batch, {', '.join(map(str, shape))})",
            got=f"shape {tuple(inputs.shape)}",
            fix=f"pass shape={tuple(inputs.shape[1:])} to the network",
        )


def coarsest_shape(shape: Sequence[int], stages: int) -> tuple[int, int, int]:
    """Height, width and channels of an image after halving it `stages` times."""
    height, width, channels = shape
    scale = 2**stages
    if height % scale or width % scale:
        raise error(
            "shape",
            expected=f"a height and a width divisible by {scale}, for {stages} stages of stride 2",
            got=f"{height}x{width}",
            fix="pad the images, or use fewer features",
        )
    return height // scale, width // scale, channels
