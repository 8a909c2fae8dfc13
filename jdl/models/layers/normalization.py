"""Normalisation layers, and the choice of one by name."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from jdl.core.errors import check_one_of, error
from jdl.models.layers import primitives

NORMS = ("none", "batch", "layer", "instance", "group")
DEFAULT_GROUPS = 8


class LayerNorm(nn.LayerNorm):
    r"""Normalise each vector along the last axis to mean 0 and variance 1 (Ba et al. 2016).

    $y = \gamma\,(x - \mu)/\sqrt{\sigma^2 + \epsilon} + \beta$ with the biased variance, in training
    and evaluation alike. Inputs and outputs are (..., features); scale and bias are (features,).

    >>> import jax.numpy as jnp
    >>> x = jnp.arange(6.0).reshape(2, 3)
    >>> LayerNorm().init_with_output(jax.random.key(0), x)[0].round(2)[0]
    Array([-1.22,  0.  ,  1.22], dtype=float32)
    """

    epsilon: float = 1e-5
    use_fast_variance: bool = False


class GroupNorm(nn.Module):
    """Normalise groups of channels of each example to mean 0 and variance 1 (Wu & He 2018).

    Mean and biased variance are taken over all positions and the channels of one group; scale and
    bias are (channels,). Inputs and outputs are (batch, ..., channels). One group is layer
    normalisation of a whole image; as many groups as channels, instance normalisation.

    Raises `InputError` if `num_groups` does not divide the channels.

    >>> import jax.numpy as jnp
    >>> GroupNorm(2).init_with_output(jax.random.key(0), jnp.ones((3, 5, 5, 4)))[0].shape
    (3, 5, 5, 4)
    """

    num_groups: int = 32
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the normalised inputs, scaled and shifted."""
        groups, channels = self.num_groups, x.shape[-1]
        if groups < 1 or channels % groups:
            raise error(
                "GroupNorm num_groups",
                expected=f"a number that divides the {channels} channels",
                got=str(groups),
                fix=f"pass num_groups={math.gcd(max(groups, 1), channels)}",
            )
        ones, zeros = nn.initializers.ones_init(), nn.initializers.zeros_init()
        scale = self.param("scale", ones, (channels,), jnp.float32)[None, None]
        bias = self.param("bias", zeros, (channels,), jnp.float32)[None, None]
        flat = x.reshape(len(x), math.prod(x.shape[1:-1]), channels)
        wide = flat.astype(jnp.promote_types(x.dtype, jnp.float32))
        wide = wide - _over_groups(wide, groups)
        factor = jax.lax.rsqrt(_over_groups(jnp.square(wide), groups) + self.epsilon) * scale
        return (wide * factor + bias).reshape(x.shape).astype(jnp.result_type(x, scale))


def _over_groups(x: jax.Array, groups: int) -> jax.Array:
    """The mean over positions and over each group's channels, (batch, 1, channels).

    Over positions first: otherwise XLA on CPU sums the few channels of a group pixel by pixel.
    """
    means = x.mean(1).reshape(len(x), groups, -1).mean(-1)
    return jnp.repeat(means, x.shape[-1] // groups, axis=1)[:, None]


class InstanceNorm(nn.InstanceNorm):
    """Normalise each channel of each example to mean 0 and variance 1 (Ulyanov et al. 2016).

    Mean and biased variance are taken over all positions of one image; scale and bias are
    (channels,). Inputs and outputs are (batch, ..., channels). An image of one pixel becomes the
    bias, whatever its value.

    >>> import jax.numpy as jnp
    >>> InstanceNorm().init_with_output(jax.random.key(0), jnp.ones((3, 5, 5, 4)))[0].shape
    (3, 5, 5, 4)
    """

    epsilon: float = 1e-5
    use_fast_variance: bool = False


def norm(
    kind: str, *, train: bool, axis_name: str | None = None, name: str | None = None
) -> Callable[[jax.Array], jax.Array]:
    """Return the normalisation of that name, for images (batch, height, width, channels).

    - `"batch"`: over batch and pixels, with running averages of momentum 0.9 in training;
      `axis_name` is the device axis that statistics are averaged over under `jdl.pmap`;
    - `"layer"`: over all pixels and channels of an image;
    - `"instance"`: over the pixels of each channel;
    - `"group"`: over the pixels of a group of channels, with the largest divisor of 8 groups that
      divides the channels;
    - `"none"`: no normalisation.

    Only `"batch"` depends on other examples, so only it cannot train on batches with a mask. Raises
    `InputError` for any other name.

    >>> norm("none", train=True)(3)
    3
    """
    check_norm(kind)
    if kind == "batch":
        return primitives.BatchNorm(
            use_running_average=not train, momentum=0.9, axis_name=axis_name, name=name
        )
    if kind == "instance":
        return InstanceNorm(name=name)
    if kind == "none":
        return lambda x: x
    # The number of groups depends on the channels, known only at the call.
    return lambda x: GroupNorm(
        1 if kind == "layer" else math.gcd(DEFAULT_GROUPS, x.shape[-1]), name=name
    )(x)


def check_norm(kind: str) -> None:
    """Raise `InputError` unless `kind` names a normalisation."""
    check_one_of("norm", kind, NORMS)
