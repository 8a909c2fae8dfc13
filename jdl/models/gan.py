"""Generators and discriminators: the dense pair, and the convolutional one of DCGAN."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from jdl.core.errors import check_one_of, error
from jdl.models.autoencoder import coarsest
from jdl.models.layers import primitives, spectral_norm
from jdl.models.layers.upsampling import conv_transpose

# Radford et al.: every weight of DCGAN is drawn with this deviation.
DCGAN_NORMAL = nn.initializers.normal(0.02)
RECIPES = ("normalised", "plain", "spectral", "wgan_gp", "ttur")
OUTPUTS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "identity": lambda x: x,
    "sigmoid": nn.sigmoid,
    "tanh": jnp.tanh,
}


class DenseGenerator(nn.Module):
    """Noise (batch, latent) to images (batch, *shape) by dense layers (Goodfellow et al. 2014).

    For each of `features` a dense layer, batch normalisation where `normalised`, and ReLU; then
    one for the pixels, through `output`: "sigmoid" for pixels in [0, 1], "tanh" for [-1, 1],
    "identity" for other data. ReLU is refused there: a pixel that it has set to zero for all
    noise has gradient zero for ever.

    With the defaults and a latent of 100, which is 100-128-256-784, it has 247,440 parameters.

    >>> from jdl.core import tree
    >>> from jdl.models import from_linen
    >>> start = from_linen(DenseGenerator()).init
    >>> tree.count(jax.eval_shape(start, jax.random.key(0), jnp.zeros((1, 100)))[0])
    247440
    """

    features: Sequence[int] = (128, 256)
    shape: Sequence[int] = (28, 28, 1)
    normalised: bool = False
    output: str = "tanh"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, noise: jax.Array, train: bool = False) -> jax.Array:
        """The images that the noise stands for."""
        squash = output_function(self.output)
        x = noise
        for index, width in enumerate(self.features, start=1):
            x = primitives.Dense(
                width,
                use_bias=not self.normalised,
                kernel_init=primitives.INITIALIZERS["he"],
                name=f"dense_{index}",
            )(x)
            if self.normalised:
                x = _batch_norm(train, self.axis_name, f"batch_norm_{index}")(x)
            x = nn.relu(x)
        kernel = primitives.INITIALIZERS["glorot"]
        x = primitives.Dense(math.prod(self.shape), kernel_init=kernel, name="output")(x)
        return squash(x).reshape(len(noise), *self.shape)


class DenseDiscriminator(nn.Module):
    """Images (batch, ...) to the logit (batch, 1) of being real, by dense layers.

    Leaky ReLU of slope 0.2 after each of `features`. With `spectral` every kernel is divided by
    its largest singular value, which makes the logit a function of slope at most 1
    (Miyato et al. 2018). On 28x28 images 784-256-128-1 has 233,985 parameters either way.

    >>> from jdl.core import tree
    >>> from jdl.models import from_linen
    >>> start = from_linen(DenseDiscriminator()).init
    >>> tree.count(jax.eval_shape(start, jax.random.key(0), jnp.zeros((1, 28, 28, 1)))[0])
    233985
    """

    features: Sequence[int] = (256, 128)
    spectral: bool = False

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """The logits of a batch."""
        dense = spectral_norm.SpectralDense if self.spectral else primitives.Dense
        x = primitives.flatten(images)
        for index, width in enumerate(self.features, start=1):
            x = dense(width, kernel_init=primitives.INITIALIZERS["he"], name=f"dense_{index}")(x)
            x = nn.leaky_relu(x, 0.2)
        return dense(1, kernel_init=primitives.INITIALIZERS["glorot"], name="output")(x)


class ConvGenerator(nn.Module):
    """Noise (batch, latent) to images (batch, *shape), as in DCGAN (Radford et al. 2016).

    A dense layer to the coarsest image, then a transposed convolution of 4x4 that doubles it for
    each further one of `features` and for the pixels. Batch normalisation and ReLU after all but
    the last, which ends in `output` as that of `DenseGenerator`. Height and width must be
    divisible by 2 once for each of `features`.

    >>> from jdl.models import from_linen
    >>> model = from_linen(ConvGenerator((8, 4), (8, 8, 1)))
    >>> params, model_state = model.init(jax.random.key(0), jnp.zeros((2, 5)))
    >>> model.apply(params, model_state, jnp.zeros((2, 5)))[0].shape
    (2, 8, 8, 1)
    """

    features: Sequence[int] = (64, 32)
    shape: Sequence[int] = (28, 28, 1)
    output: str = "tanh"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, noise: jax.Array, train: bool = False) -> jax.Array:
        """The images that the noise stands for."""
        squash = output_function(self.output)
        height, width, channels = coarsest(self.shape, len(self.features))
        first = height * width * self.features[0]
        x = primitives.Dense(first, use_bias=False, kernel_init=DCGAN_NORMAL, name="dense")(noise)
        x = x.reshape(len(noise), height, width, self.features[0])
        x = nn.relu(_batch_norm(train, self.axis_name, "batch_norm")(x))
        for index, size in enumerate(self.features[1:], start=1):
            x = conv_transpose(
                size, use_bias=False, kernel_init=DCGAN_NORMAL, name=f"conv_transpose_{index}"
            )(x)
            x = nn.relu(_batch_norm(train, self.axis_name, f"batch_norm_{index}")(x))
        return squash(conv_transpose(channels, kernel_init=DCGAN_NORMAL, name="output")(x))


class ConvDiscriminator(nn.Module):
    """Images to the logit (batch, 1) of being real, the discriminator of DCGAN.

    For each of `features` a 4x4 convolution of stride 2 and leaky ReLU of slope 0.2, then a dense
    layer. `normalisation` is "batch" (after every convolution but the first), "spectral" (every
    kernel divided by its largest singular value) or "none".

    >>> from jdl.models import from_linen
    >>> model = from_linen(ConvDiscriminator((4, 8)))
    >>> params, model_state = model.init(jax.random.key(0), jnp.zeros((2, 8, 8, 1)))
    >>> model.apply(params, model_state, jnp.zeros((2, 8, 8, 1)))[0].shape
    (2, 1)
    """

    features: Sequence[int] = (32, 64)
    normalisation: str = "batch"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """The logits of a batch."""
        kind = check_one_of("normalisation", self.normalisation, ("batch", "spectral", "none"))
        primitives.check_images(images)
        conv = spectral_norm.SpectralConv if kind == "spectral" else primitives.Conv
        dense = spectral_norm.SpectralDense if kind == "spectral" else primitives.Dense
        x = images
        for index, width in enumerate(self.features, start=1):
            normed = kind == "batch" and index > 1
            x = conv(
                width,
                (4, 4),
                strides=2,
                use_bias=not normed,
                kernel_init=DCGAN_NORMAL,
                name=f"conv_{index}",
            )(x)
            if normed:
                x = _batch_norm(train, self.axis_name, f"batch_norm_{index}")(x)
            x = nn.leaky_relu(x, 0.2)
        return dense(1, kernel_init=DCGAN_NORMAL, name="output")(primitives.flatten(x))


def output_function(name: str) -> Callable[[jax.Array], jax.Array]:
    """What a generator's pixels pass through: "sigmoid", "tanh" or "identity"."""
    if name == "relu":
        raise error(
            "generator output",
            expected='"sigmoid" for pixels in [0, 1] or "tanh" for pixels in [-1, 1]',
            got='"relu", which has no upper end and no gradient where it is zero',
            fix='output="sigmoid" with images as jdl.data.load gives them',
        )
    return OUTPUTS[check_one_of("generator output", name, OUTPUTS)]


def _batch_norm(train: bool, axis_name: str | None, name: str) -> primitives.BatchNorm:
    return primitives.BatchNorm(
        use_running_average=not train, momentum=0.9, axis_name=axis_name, name=name
    )


def gan_pair(kind: str, recipe: str, shape: Sequence[int]) -> tuple[nn.Module, nn.Module]:
    """A generator of images of that shape and its discriminator, as a recipe wants them.

    `kind` is "dense" or "conv". What keeps the pair from collapsing, apart from the optimizer:

    - "plain": nothing; "conv" has DCGAN's batch normalisation in both, as in all its recipes;
    - "normalised" and "ttur": batch normalisation in the generator, at two time scales with "ttur"
      (Heusel et al. 2017);
    - "spectral": that, and spectral normalisation in the discriminator (Miyato et al. 2018);
    - "wgan_gp": a discriminator without batch statistics, which the gradient penalty needs.

    >>> [type(network).__name__ for network in gan_pair("dense", "spectral", (8, 8, 1))]
    ['DenseGenerator', 'DenseDiscriminator']
    """
    check_one_of("kind", kind, ("dense", "conv"))
    check_one_of("recipe", recipe, RECIPES)
    if kind == "conv":
        norm = {"spectral": "spectral", "wgan_gp": "none"}.get(recipe, "batch")
        return ConvGenerator(shape=shape), ConvDiscriminator(normalisation=norm)
    normalised = recipe in ("normalised", "spectral", "ttur")
    return (
        DenseGenerator(shape=shape, normalised=normalised),
        DenseDiscriminator(spectral=recipe == "spectral"),
    )
