"""Generators and discriminators: dense ones, and the convolutional ones of DCGAN."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from jdl.core.errors import check_one_of, error
from jdl.models.autoencoder import coarsest_shape
from jdl.models.layers import primitives, spectral_norm
from jdl.models.layers.upsampling import conv_transpose

# The standard deviation of all initial weights of DCGAN (Radford et al. 2016).
DCGAN_NORMAL = nn.initializers.normal(0.02)
RECIPES = ("normalised", "plain", "spectral", "wgan_gp", "ttur")
OUTPUTS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "identity": lambda x: x,
    "sigmoid": nn.sigmoid,
    "tanh": jnp.tanh,
}


class DenseGenerator(nn.Module):
    """A dense generator of images from noise (Goodfellow et al. 2014).

    Inputs are noise (batch, latent), outputs images (batch, *shape). Each of `features` adds a
    dense layer, batch normalisation if `normalised`, and ReLU. The last layer ends in `output`:
    "sigmoid" for pixels in [0, 1], "tanh" for [-1, 1], "identity" for other data. `axis_name` is a
    device axis that batch statistics are averaged over under `jdl.pmap`.

    Raises `InputError` at `init` for an unknown `output`, and for "relu": a pixel that is zero for
    all noise would get no gradient.

    >>> from jdl.core import tree
    >>> from jdl.models import from_linen
    >>> init = from_linen(DenseGenerator()).init
    >>> tree.count(jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 100)))[0])
    247440
    """

    features: Sequence[int] = (128, 256)
    shape: Sequence[int] = (28, 28, 1)
    normalised: bool = False
    output: str = "tanh"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, noise: jax.Array, train: bool = False) -> jax.Array:
        """Return images (batch, *shape)."""
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
    """A dense discriminator (Goodfellow et al. 2014).

    Inputs are images (batch, ...), outputs logits (batch, 1) that an image is real. Leaky ReLU of
    slope 0.2 follows each of `features`. With `spectral` every kernel is divided by its largest
    singular value, so that the logit has a Lipschitz constant of at most 1 (Miyato et al. 2018).

    >>> from jdl.core import tree
    >>> from jdl.models import from_linen
    >>> init = from_linen(DenseDiscriminator()).init
    >>> tree.count(jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 28, 28, 1)))[0])
    233985
    """

    features: Sequence[int] = (256, 128)
    spectral: bool = False

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Return the logits (batch, 1)."""
        dense = spectral_norm.SpectralDense if self.spectral else primitives.Dense
        x = primitives.flatten(images)
        for index, width in enumerate(self.features, start=1):
            x = dense(width, kernel_init=primitives.INITIALIZERS["he"], name=f"dense_{index}")(x)
            x = nn.leaky_relu(x, 0.2)
        return dense(1, kernel_init=primitives.INITIALIZERS["glorot"], name="output")(x)


class ConvGenerator(nn.Module):
    """The generator of DCGAN (Radford et al. 2016).

    Inputs are noise (batch, latent), outputs images (batch, *shape). A dense layer makes the
    smallest feature map; a 4x4 transposed convolution then doubles height and width for each
    further one of `features` and for the pixels. Batch normalisation and ReLU follow every layer
    but the last, which ends in `output`, as in `DenseGenerator`.

    Raises `InputError` at `init` for an unknown `output` or "relu", and a height or width that is
    not divisible by 2 for each of `features`.

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
        """Return images (batch, *shape)."""
        squash = output_function(self.output)
        height, width, channels = coarsest_shape(self.shape, len(self.features))
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
    """The discriminator of DCGAN (Radford et al. 2016).

    Inputs are images (batch, height, width, channels), outputs logits (batch, 1) that an image is
    real. Each of `features` adds a 4x4 convolution of stride 2 and leaky ReLU of slope 0.2; a dense
    layer follows. `normalisation` is "batch" (after every convolution but the first), "spectral"
    (every kernel divided by its largest singular value, Miyato et al. 2018) or "none".

    Raises `InputError` at `init` for inputs of another rank and an unknown `normalisation`.

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
        """Return the logits (batch, 1)."""
        kind = check_one_of("normalisation", self.normalisation, ("batch", "spectral", "none"))
        primitives.check_images(images)
        conv = spectral_norm.SpectralConv if kind == "spectral" else primitives.Conv
        dense = spectral_norm.SpectralDense if kind == "spectral" else primitives.Dense
        x = images
        for index, width in enumerate(self.features, start=1):
            has_norm = kind == "batch" and index > 1
            x = conv(
                width,
                (4, 4),
                strides=2,
                use_bias=not has_norm,
                kernel_init=DCGAN_NORMAL,
                name=f"conv_{index}",
            )(x)
            if has_norm:
                x = _batch_norm(train, self.axis_name, f"batch_norm_{index}")(x)
            x = nn.leaky_relu(x, 0.2)
        return dense(1, kernel_init=DCGAN_NORMAL, name="output")(primitives.flatten(x))


def output_function(name: str) -> Callable[[jax.Array], jax.Array]:
    """The function that a generator's pixels pass through: "sigmoid", "tanh" or "identity".

    Raises `InputError` for any other name.
    """
    if name == "relu":
        raise error(
            "generator output",
            expected='"sigmoid" for pixels in [0, 1] or "tanh" for pixels in [-1, 1]',
            got='"relu", which is unbounded and has no gradient where it is zero',
            fix='pass output="sigmoid" for images as jdl.data.load returns them',
        )
    return OUTPUTS[check_one_of("generator output", name, OUTPUTS)]


def _batch_norm(train: bool, axis_name: str | None, name: str) -> primitives.BatchNorm:
    return primitives.BatchNorm(
        use_running_average=not train, momentum=0.9, axis_name=axis_name, name=name
    )


def gan_pair(kind: str, recipe: str, shape: Sequence[int]) -> tuple[nn.Module, nn.Module]:
    """Build a generator of images of that shape, and its discriminator, for a training recipe.

    `kind` is "dense" or "conv"; `shape` is (height, width, channels). The networks of each recipe:

    - "plain": dense networks without normalisation; "conv" ones are those of DCGAN, with batch
      normalisation in both;
    - "normalised" and "ttur" (Heusel et al. 2017): batch normalisation in the generator;
    - "spectral" (Miyato et al. 2018): also spectral normalisation in the discriminator;
    - "wgan_gp" (Gulrajani et al. 2017): a discriminator without batch normalisation, which the
      gradient penalty does not allow.

    Raises `InputError` for an unknown `kind` or `recipe`.

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
