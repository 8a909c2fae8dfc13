"""Panels of values on a grid: images, matrices, decision surfaces."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from jdl.core.errors import error
from jdl.plots.panels import Panel, bars, describe, figure, horizontal_lines, overlay, text_panel
from jdl.plots.training import confusion_matrix

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def image(
    pixels: ArrayLike, title: str = "", *, signed: bool = False, top: float | None = None,
    colours: str = "gray",
) -> Panel:  # fmt: skip
    """One image of shape (height, width) or (height, width, 1).

    Zero is black, and `top`, by default the largest value, is white. With `signed`, negative
    values are blue, positive ones red, and the scale runs from -top to top.

    >>> from jdl import plots
    >>> axes = plots.figure(plots.image(np.eye(8), "Identity")).axes[0]
    >>> axes.get_title(), axes.images[0].get_array().shape
    ('Identity', (8, 8))
    """
    pixels = np.asarray(pixels, float)
    pixels = pixels[..., 0] if pixels.ndim == 3 else pixels
    end = float(np.abs(pixels).max()) if top is None else top

    def draw(axis: "Axes") -> None:
        _pixels(axis, pixels, end, signed, colours)
        axis.set_title(title, fontsize=9, fontweight="normal", loc="center")
        axis.set(xticks=[], yticks=[])

    side = 1.5 if title else 0.95
    return Panel(draw, side, side * pixels.shape[0] / pixels.shape[1] + (0.2 if title else 0))


def image_grid(
    images: ArrayLike | Mapping[str, ArrayLike],
    title: str = "",
    rows: Sequence[str] = (),
    *,
    signed: bool = False,
) -> Panel:
    """Grey images in rows, with pixels from 0 to 1.

    `images` has shape (rows, columns, height, width, 1), and `rows` names the rows; or it is a
    dict from a row's name to its images (columns, height, width, 1); or it has shape (n, height,
    width, 1), and each row shows at most 16. With `signed`, negative values are blue and positive
    ones red. Raises `InputError` for other shapes.

    >>> from jdl import plots
    >>> digits = np.zeros((5, 8, 8, 1))
    >>> panel = plots.image_grid({"original": digits, "reconstruction": digits})
    >>> [label.get_text() for label in plots.figure(panel).axes[0].get_yticklabels()]
    ['original', 'reconstruction']
    """
    if isinstance(images, Mapping):
        images, rows = np.stack([np.asarray(row) for row in images.values()]), list(images)
    else:
        images = np.asarray(images)
        images = _in_rows(images) if images.ndim == 4 else images
    whole = tile_images(images, signed)

    def draw(axis: "Axes") -> None:
        _pixels(axis, whole, float(np.nanmax(np.abs(whole))) if signed else 1.0, signed)
        height = len(whole) / len(images)
        middles = [height * (index + 0.5) - 0.5 for index in range(len(rows))]
        axis.set_yticks(middles, labels=list(rows))
        axis.set(xticks=[], title=title)

    wide = 5.0 if whole.shape[1] <= len(whole) else 10.0
    return Panel(draw, wide, wide * len(whole) / whole.shape[1] + 0.4)


def kernels(weights: ArrayLike, shape: Sequence[int], title: str = "") -> Panel:
    """The weights of a layer's first 32 units as signed images.

    A convolution's weights have shape (height, width, channels, units), and the first channel is
    shown. Those of a dense layer from or to images of shape `shape` are (pixels, units) or
    (units, pixels).

    >>> kernels(np.ones((3, 3, 1, 8)), (28, 28, 1)).width
    10.0
    """
    weights, pixels = np.asarray(weights), int(np.prod(shape))
    if weights.ndim == 4:
        return image_grid(np.moveaxis(weights[:, :, :1], -1, 0)[:32], title, signed=True)
    rows = weights if weights.shape[1] == pixels else weights.T
    return image_grid(rows[:32].reshape(-1, *shape), title, signed=True)


def activations(kernel: ArrayLike, images: ArrayLike, most: int = 12) -> "Figure":
    """The first `most` filters of a convolution, and the feature map of each for each image.

    `kernel` (height, width, channels, filters) holds the weights of a network's first convolution,
    `images` is (n, height, width, channels). The top row shows the filters' first channel: bright
    pixels raise the response where it is red and lower it where it is blue. All filters share a
    colour scale, and so do all maps of an image.

    >>> from jdl import plots
    >>> fig = plots.activations(np.ones((3, 3, 1, 4)), np.ones((2, 8, 8, 1)))
    >>> len(fig.axes)  # 3 rows: filters and two images; 5 columns: the image and four maps
    15
    """
    import jax
    import jax.numpy as jnp

    images, kernel = jnp.asarray(images), jnp.asarray(kernel)[..., :most]
    layout = ("NHWC", "HWIO", "NHWC")
    maps = jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=layout)
    panels = [text_panel("filters"), *_signed_images(kernel[:, :, 0])]
    for pixels, responses in zip(images, maps, strict=True):
        panels += [image(pixels), *_signed_images(responses)]
    title = "First convolution: bright pixels raise the response (red) or lower it (blue)"
    return figure(*panels, columns=1 + kernel.shape[-1], title=title)


def _signed_images(maps: Any) -> list[Panel]:
    """Maps (height, width, n) as signed images on one colour scale."""
    top = float(np.abs(maps).max())
    return [image(one, signed=True, top=top) for one in np.moveaxis(maps, -1, 0)]


def _in_rows(images: np.ndarray, most: int = 16) -> np.ndarray:
    """Images (n, ...) as (rows, columns, ...), padded with blank images."""
    rows = -(-len(images) // most)
    columns = -(-len(images) // rows)
    blank = np.full((rows * columns - len(images), *images.shape[1:]), np.nan)
    return np.concatenate([images, blank]).reshape(rows, columns, *images.shape[1:])


def tile_images(images: Any, signed: bool = False) -> np.ndarray:
    """One array (height, width) from images (rows, columns, h, w, 1), with an edge around each.

    >>> tile_images(np.ones((2, 3, 4, 4, 1))).shape
    (12, 18)
    """
    images = np.asarray(images)
    if images.ndim != 5 or images.shape[-1] != 1 or not images.size:
        raise error(
            "images",
            expected="grey images of shape (rows, columns, height, width, 1)",
            got=f"shape {images.shape}",
            fix="reshape them to rows and columns first",
        )
    edge = np.nan if signed else 0.0
    tiles = np.pad(
        images[..., 0].astype(float), ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=edge
    )
    return np.concatenate(np.concatenate(tiles, axis=1), axis=1)


def matrix(
    values: ArrayLike, title: str = "", xlabel: str = "", ylabel: str = "", *,
    rows: Sequence[Any] = (), columns: Sequence[Any] = (), top: float | None = None,
    power: float = 1.0, bar: str = "", **axes: Any,
) -> Panel:  # fmt: skip
    """A heat map of non-negative values (rows, columns), with names for rows and columns.

    The colours run from 0 to `top`, by default the largest value; a `power` below 1 makes small
    values visible. `bar` labels the colour bar; without a label there is none.

    >>> from jdl import plots
    >>> panel = plots.matrix([[5, 1], [0, 6]], "Counts", "predicted", "true", bar="examples")
    >>> [axes.get_ylabel() for axes in plots.figure(panel).axes]
    ['true', 'examples']
    """
    values = np.asarray(values, float)

    def draw(axis: "Axes") -> None:
        from matplotlib.colors import PowerNorm

        end = float(values.max()) if top is None else top
        drawn = axis.imshow(values, cmap="Blues", norm=PowerNorm(power, 0, end))
        _remove_frame(axis)
        size = min(10.0, 200 / max(values.shape))
        axis.set_yticks(range(len(rows)), [str(name) for name in rows], fontsize=size)
        axis.set_xticks(range(len(columns)), [str(name) for name in columns], fontsize=size)
        if bar:
            axis.figure.colorbar(drawn, ax=axis, label=bar, fraction=0.046)
        describe(axis, title, xlabel, ylabel, axes)

    return Panel(draw, 4.4 if bar else 3.6, 3.8)


def confusion_of(
    outputs: ArrayLike, labels: ArrayLike, names: Sequence[Any] | None = None
) -> "Figure":
    """The confusion matrix of outputs (n, classes) with integer labels (n,).

    Outputs of an ensemble, (members, n, classes), give the mean count over its members. An example
    with a nan among its outputs has no predicted class and is not counted.

    >>> from jdl import plots
    >>> logits = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    >>> fig = plots.confusion_of(logits, [0, 1, 1])
    >>> [text.get_text() for text in fig.axes[0].texts]  # the counts that are not zero
    ['1', '1', '1']
    """
    outputs, labels = np.asarray(outputs), np.asarray(labels)
    outputs = outputs.reshape(-1, *outputs.shape[-2:])
    counts = np.zeros((outputs.shape[-1], outputs.shape[-1]))
    truth = np.broadcast_to(labels[None], outputs.shape[:-1])
    valid = ~np.isnan(outputs).any(-1)
    np.add.at(counts, (truth[valid], outputs.argmax(-1)[valid]), 1 / len(outputs))
    return confusion_matrix(counts, names)


def generated_samples(
    images: ArrayLike,
    judge: Callable[[Any], tuple[ArrayLike, float]],
    title: str = "100 generated images",
) -> "Figure":
    """The first hundred generated images, and how often an evaluator assigns each class.

    `images` is (n, height, width, 1) with n of at least 100 and pixels from 0 to 1.
    `judge(images)`, such as a `jdl.ImageEvaluator`, returns the share of each class (classes,) and
    the Fréchet distance from real images.

    >>> from jdl import plots
    >>> fig = plots.generated_samples(np.ones((100, 8, 8, 1)), lambda images: ([0.5, 0.5], 12.3))
    >>> [axes.get_title("left") for axes in fig.axes]
    ['100 generated images', 'FID 12.3']
    """
    shares, distance = judge(images)
    images, shares = np.asarray(images), np.asarray(shares)
    grid = image_grid(images[:100].reshape(10, 10, *images.shape[1:]), title)
    counts = bars(100 * shares, f"FID {distance:.1f}", "predicted class", "share in %")
    return figure(grid, overlay(counts, horizontal_lines({"uniform": 100 / len(shares)})))


def attention(weights: ArrayLike, tokens: Sequence[Any], title: str = "") -> "Figure":
    """A heat map of each head's attention weights (heads, tokens, tokens), queries as rows.

    `tokens` label rows and columns; a space appears as "·", a line end as "↵".

    >>> from jdl import plots
    >>> fig = plots.attention(np.full((2, 3, 3), 1 / 3), "a b", "Last block")
    >>> [label.get_text() for label in fig.axes[0].get_xticklabels()]
    ['a', '·', 'b']
    """
    names = [{"\n": "↵", " ": "·"}.get(str(token), str(token)) for token in tokens]
    heads = {f"Head {number}": head for number, head in enumerate(np.asarray(weights), start=1)}
    return matrices(heads, "key", "query", names=names, top=1, columns=2, title=title)


def matrices(
    values: Mapping[str, ArrayLike], xlabel: str = "", ylabel: str = "", *,
    names: Sequence[Any] = (), top: float | None = None, power: float = 1.0,
    columns: int | None = None, title: str = "",
) -> "Figure":  # fmt: skip
    """Heat maps of square matrices (n, n) by name, side by side; see `matrix`.

    `names` label rows and columns. Matrices with leading axes, (..., n, n), such as one for each
    member, are averaged over these.

    >>> from jdl import plots
    >>> fig = plots.matrices({"plain": np.eye(3), "weighted": np.ones((5, 3, 3))})
    >>> [axes.get_title("left") for axes in fig.axes]
    ['plain', 'weighted']
    """
    arrays = {name: np.asarray(one) for name, one in values.items()}
    means = {name: one.mean(tuple(range(one.ndim - 2))) for name, one in arrays.items()}
    panels = [
        matrix(
            one, name, xlabel, ylabel,
            rows=names or range(len(one)), columns=names or range(len(one)), top=top, power=power,
        )
        for name, one in means.items()
    ]  # fmt: skip
    return figure(*panels, columns=columns, title=title)


def square_grid(low: float, high: float, side: int = 81) -> np.ndarray:
    """The points of a square grid, shape (side * side, 2), float32: inputs for `decision_surface`.

    >>> square_grid(0, 1, side=2).tolist()
    [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    """
    line = np.linspace(low, high, side, dtype=np.float32)
    return np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)


def decision_surface(
    outputs: ArrayLike, low: float, high: float, title: str = "", *,
    points: ArrayLike | None = None, classes: ArrayLike | None = None, middle: float = 0.5,
    **axes: Any,
) -> Panel:  # fmt: skip
    """A model's outputs from 0 to 1 at the points of `square_grid(low, high)`.

    `outputs` has shape (side * side,) or (side * side, 1). The black line is the decision
    boundary, where the output equals `middle`. `points` (n, 2) of class 0 are black, those of
    class 1 white; `classes` is (n,).

    >>> from jdl import plots
    >>> inputs = plots.square_grid(0, 1, side=9)
    >>> panel = plots.decision_surface(inputs.mean(-1), 0, 1, "Mean of the inputs")
    >>> plots.figure(panel).axes[0].get_title("left")
    'Mean of the inputs'
    """
    side = round(np.size(outputs) ** 0.5)
    heights, line = np.reshape(outputs, (side, side)), np.linspace(low, high, side)

    def draw(axis: "Axes") -> None:
        shades = np.linspace(middle - 1, middle + 1, 21)
        axis.contourf(line, line, heights, shades, extend="both", cmap="RdBu_r")
        axis.contour(line, line, heights, [middle], colors="black", linewidths=1)
        if points is not None:
            rim = {"edgecolors": "black", "s": 60, "zorder": 3}
            colour = None if classes is None else np.ravel(classes)
            axis.scatter(*np.transpose(points), c=colour, cmap="gray", **rim)
        axis.grid(False)
        describe(axis, title, "", "", axes)

    return Panel(draw, 2.6, 2.6)


def _pixels(
    axis: "Axes", pixels: np.ndarray, end: float, signed: bool, colours: str = "gray"
) -> None:
    """Show pixels on a scale from zero, or from -`end` if signed, to `end`."""
    low, shades = (-end, "RdBu_r") if signed else (0.0, colours)
    axis.imshow(pixels, cmap=shades, vmin=low, vmax=end, interpolation="nearest")
    _remove_frame(axis)


def _remove_frame(axis: "Axes") -> None:
    """Remove grid, ticks and frame."""
    axis.grid(False)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
