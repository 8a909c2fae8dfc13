"""GoogLeNet, built of inception modules."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from jdl.models.layers import conv_blocks, primitives

# Channels of one module: 1x1; 1x1 then 3x3; 1x1 then the larger window; 1x1 after the pool.
Widths = tuple[int, int, int, int, int, int]
INCEPTION_V1: Sequence[Sequence[Widths]] = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)


class Inception(nn.Module):
    """Four parallel branches with concatenated channels (Szegedy et al. 2015).

    The branches are a 1x1 convolution; a 1x1 and a 3x3 one; a 1x1 and one of `window`; a 3x3 max
    pool and a 1x1 convolution. `widths` are their channels in this order. Images
    (batch, height, width, channels) keep height and width. Layers are `one`, `three_reduce`,
    `three`, `large_reduce`, `large`, `pool`, `pool_project`.

    >>> module = Inception((2, 3, 4, 1, 2, 3))
    >>> module.init_with_output(jax.random.key(0), jnp.ones((1, 5, 5, 4)))[0].shape
    (1, 5, 5, 11)
    """

    widths: Widths
    window: int = 3
    norm: str = "batch"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Return the channels of all branches."""

        def unit(x: jax.Array, width: int, window: int, name: str) -> jax.Array:
            return conv_blocks.ConvUnit(
                width, window, norm=self.norm, axis_name=self.axis_name, name=name
            )(x, train)

        one, reduce_3, three, reduce_large, large, project = self.widths
        pooled = primitives.MaxPool(3, 1, "SAME", name="pool")(x)
        branches = [
            unit(x, one, 1, "one"),
            unit(unit(x, reduce_3, 1, "three_reduce"), three, 3, "three"),
            unit(unit(x, reduce_large, 1, "large_reduce"), large, self.window, "large"),
            unit(pooled, project, 1, "pool_project"),
        ]
        return jnp.concatenate(branches, axis=-1)


class GoogLeNet(nn.Module):
    """Groups of inception modules with a max pool between groups (Szegedy et al. 2015).

    Built as in torchvision: normalised, without auxiliary classifiers, and with 3x3 windows where
    the paper has 5x5 (pass `window=5` for those). 6,624,904 parameters by default. Inputs
    (batch, height, width, channels), outputs (batch, classes) logits. For 8x8 digits use
    `GoogLeNet((((8, 8, 16, 4, 8, 8),), ((16, 8, 16, 4, 8, 8),)), classes=10, stem="small")`.

    `stem` is `"large"`, convolutions and pools that divide height and width by 8, or `"small"`, one
    3x3 convolution to `features` channels. `dropout` is the rate before the output in training.
    `norm` and `axis_name` are as in `CNN`. Layers are `stem_1`, ..., `group_1_module_1`, ...,
    `pool_1`, ..., `output`.

    Raises `InputError` at `init` for inputs of another rank, an unknown `stem` or `norm`, and a
    `dropout` outside [0, 1).

    >>> from jdl.core import tree
    >>> from jdl.models import from_linen
    >>> model = from_linen(GoogLeNet((((2, 3, 4, 1, 2, 3),),), 4, classes=3, stem="small"))
    >>> images = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)
    >>> tree.count(jax.eval_shape(model.init, jax.random.key(0), images)[0])
    272
    """

    groups: Sequence[Sequence[Widths]] = INCEPTION_V1
    features: int = 64
    classes: int = 1000
    stem: str = "large"
    window: int = 3
    dropout: float = 0.2
    norm: str = "batch"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        """Return the logits (batch, classes)."""
        primitives.check_rate(self.dropout)
        primitives.check_images(inputs)
        conv_blocks.check_stem(self.stem)
        norm_options = {"norm": self.norm, "axis_name": self.axis_name}
        x = inputs
        if self.stem == "large":
            # On even sizes "SAME" rounds up as the paper's pools do.
            x = conv_blocks.ConvUnit(self.features, 7, 2, **norm_options, name="stem_1")(x, train)
            x = primitives.MaxPool(3, 2, "SAME", name="stem_pool_1")(x)
            x = conv_blocks.ConvUnit(self.features, 1, **norm_options, name="stem_2")(x, train)
            x = conv_blocks.ConvUnit(3 * self.features, 3, **norm_options, name="stem_3")(x, train)
            x = primitives.MaxPool(3, 2, "SAME", name="stem_pool_2")(x)
        else:
            x = conv_blocks.ConvUnit(self.features, 3, **norm_options, name="stem_1")(x, train)
        for group, modules in enumerate(self.groups, start=1):
            for index, widths in enumerate(modules, start=1):
                name = f"group_{group}_module_{index}"
                x = Inception(widths, self.window, **norm_options, name=name)(x, train)
            if group < len(self.groups):
                # The last pool of the original is 2x2, the others 3x3.
                window = 2 if group == len(self.groups) - 1 else 3
                x = primitives.MaxPool(window, 2, "SAME", name=f"pool_{group}")(x)
        x = x.mean((1, 2))
        x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
        return conv_blocks.classify(x, self.classes)
