"""Panels of numbers that lie on a grid: images, many of them, matrices, surfaces."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jdl.core.errors import error
from jdl.plots.panels import Panel, bars, describe, figure, horizontal_lines, overlay, text_panel
from jdl.plots.training import confusion

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def image(
    pixels: Any, title: str = "", *, signed: bool = False, top: float | None = None,
    colours: str = "gray",
) -> Panel:  # fmt: skip
    """One image (height, width) or (height, width, 1): its largest number, or `top`, is white.

    A `signed` one may hold any numbers: blue below zero, red above, both ends at the largest size.
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
    images: Any, title: str = "", rows: Sequence[str] = (), *, signed: bool = False
) -> Panel:
    """Grey images side by side, pixels from 0 to 1.

    Images (rows, columns, height, width, 1), with names of the rows; or rows by name, each (n,
    height, width, 1); or just images (n, height, width, 1), of which 16 stand in a row.
    `signed` images may hold any numbers: blue below zero, red above, both ends at the largest size.
    """
    if isinstance(images, Mapping):
        images, rows = np.stack([np.asarray(row) for row in images.values()]), list(images)
    elif np.ndim(images) == 4:
        images = _in_rows(np.asarray(images))
    whole = tile_images(images, signed)

    def draw(axis: "Axes") -> None:
        _pixels(axis, whole, float(np.nanmax(np.abs(whole))) if signed else 1.0, signed)
        height = len(whole) / len(images)
        middles = [height * (index + 0.5) - 0.5 for index in range(len(rows))]
        axis.set_yticks(middles, labels=list(rows))
        axis.set(xticks=[], title=title)

    wide = 5.0 if whole.shape[1] <= len(whole) else 10.0
    return Panel(draw, wide, wide * len(whole) / whole.shape[1] + 0.4)


def kernels(weights: Any, shape: Sequence[int], title: str = "") -> Panel:
    """The weights of a layer as signed images, the first 32 of its units.

    A convolution's (height, width, channels, units), of which the first channel is shown; or those
    of a dense layer to or from images of that `shape`, (pixels, units) or (units, pixels).

    >>> kernels(np.ones((3, 3, 1, 8)), (28, 28, 1)).width
    10.0
    """
    weights, pixels = np.asarray(weights), int(np.prod(shape))
    if weights.ndim == 4:
        return image_grid(np.moveaxis(weights[:, :, :1], -1, 0)[:32], title, signed=True)
    rows = weights if weights.shape[1] == pixels else weights.T
    return image_grid(rows[:32].reshape(-1, *shape), title, signed=True)


def activations(kernel: Any, images: Any, most: int = 12) -> "Figure":
    """The filters of a convolution, and where they respond in each of the images.

    `kernel` (height, width, channels, filters) as the first convolution of a network has it, and
    images (n, height, width, channels). The filters' first channel stands above; red responds to
    light pixels, blue is silenced by them. One scale for all filters, and one for each image.
    """
    import jax

    kernel, shown = np.asarray(kernel)[..., :most], [text_panel("filters")]
    layout = ("NHWC", "HWIO", "NHWC")
    maps = jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=layout)
    shown += _scaled(kernel[:, :, 0])
    for picture, found in zip(images, maps, strict=True):
        shown += [image(picture), *_scaled(found)]
    title = "First convolution: red responds to light pixels, blue is silenced by them"
    return figure(*shown, columns=1 + kernel.shape[-1], title=title)


def _scaled(maps: Any) -> list[Panel]:
    """Maps (height, width, n) as signed images of one scale."""
    top = float(np.abs(maps).max())
    return [image(one, signed=True, top=top) for one in np.moveaxis(maps, -1, 0)]


def _in_rows(images: np.ndarray, most: int = 16) -> np.ndarray:
    """Images (n, ...) as (rows, columns, ...), blank ones after the last."""
    rows = -(-len(images) // most)
    columns = -(-len(images) // rows)
    blank = np.full((rows * columns - len(images), *images.shape[1:]), np.nan)
    return np.concatenate([images, blank]).reshape(rows, columns, *images.shape[1:])


def tile_images(images: Any, signed: bool = False) -> np.ndarray:
    """One array (height, width) of images (rows, columns, h, w, 1), with an edge around each.

    >>> tile_images(np.ones((2, 3, 4, 4, 1))).shape
    (12, 18)
    """
    images = np.asarray(images)
    if images.ndim != 5 or images.shape[-1] != 1 or not images.size:
        raise error(
            "mosaic",
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
    values: Any, title: str = "", xlabel: str = "", ylabel: str = "", *,
    rows: Sequence[Any] = (), columns: Sequence[Any] = (), top: float | None = None,
    power: float = 1.0, bar: str = "", **axes: Any,
) -> Panel:  # fmt: skip
    """Numbers (rows, columns) of at least 0 as shades, with the names of rows and columns.

    Shades run up to `top`, by default the largest number; a `power` below 1 lets small numbers be
    seen. `bar` is what the colour bar says; without it there is none. Other settings are those of
    `Axes.set`.
    """
    values = np.asarray(values, float)

    def draw(axis: "Axes") -> None:
        from matplotlib.colors import PowerNorm

        end = float(values.max()) if top is None else top
        drawn = axis.imshow(values, cmap="Blues", norm=PowerNorm(power, 0, end))
        _bare(axis)
        size = min(10.0, 200 / max(values.shape))
        axis.set_yticks(range(len(rows)), [str(name) for name in rows], fontsize=size)
        axis.set_xticks(range(len(columns)), [str(name) for name in columns], fontsize=size)
        if bar:
            axis.figure.colorbar(drawn, ax=axis, label=bar, fraction=0.046)
        describe(axis, title, xlabel, ylabel, axes)

    return Panel(draw, 4.4 if bar else 3.6, 3.8)


def confusion_of(outputs: Any, labels: Any, names: Sequence[Any] | None = None) -> "Figure":
    """The confusion matrix of outputs (n, classes), or of several members' (members, n, classes).

    Counts are means over the members, labels (n,) integers.
    """
    outputs, labels = np.asarray(outputs), np.asarray(labels)
    said = outputs.reshape(-1, *outputs.shape[-2:]).argmax(-1)
    counts = np.zeros((outputs.shape[-1], outputs.shape[-1]))
    np.add.at(counts, (np.broadcast_to(labels[None], said.shape), said), 1 / len(said))
    return confusion(counts, names)


def generated_samples(
    images: Any, judge: Callable[[Any], Any], title: str = "A hundred of them"
) -> "Figure":
    """A hundred generated images, and the share of each class that an evaluator sees in them.

    `images` (n, height, width, 1), at least a hundred, pixels from 0 to 1; `judge(images)` is a
    pair: the shares (classes,) and the distance from real images.
    """
    images, (shares, distance) = np.asarray(images), judge(images)
    drawn = image_grid(images[:100].reshape(10, 10, *images.shape[1:]), title)
    about = f"FID {distance:.1f}"
    counts = bars(100 * np.asarray(shares), about, "class, to the judge", "share in %")
    return figure(drawn, overlay(counts, horizontal_lines({"evenly": 100 / len(shares)})))


def attention(weights: Any, tokens: Sequence[Any], title: str = "") -> "Figure":
    """Where each head looks: weights (heads, queries, keys), with the words or letters.

    Two maps stand in a row; spaces and ends of lines get signs of their own.
    """
    names = [{"\n": "↵", " ": "·"}.get(str(token), str(token)) for token in tokens]
    heads = {f"Head {number}": head for number, head in enumerate(weights, start=1)}
    return matrices(heads, "looks at", "from", names=names, top=1, columns=2, title=title)


def matrices(
    values: Mapping[str, Any], xlabel: str = "", ylabel: str = "", *, names: Sequence[Any] = (),
    top: float | None = None, power: float = 1.0, columns: int | None = None, title: str = "",
) -> "Figure":  # fmt: skip
    """Square matrices by name, side by side; `names` are those of their rows and columns.

    Of several, (..., n, n), such as those of members, the mean is drawn.
    """
    means = {name: np.mean(one, tuple(range(np.ndim(one) - 2))) for name, one in values.items()}
    panels = [
        matrix(
            one, name, xlabel, ylabel,
            rows=names or range(len(one)), columns=names or range(len(one)), top=top, power=power,
        )
        for name, one in means.items()
    ]  # fmt: skip
    return figure(*panels, columns=columns, title=title)


def square_grid(low: float, high: float, side: int = 81) -> np.ndarray:
    """The points of a square grid, (side * side, 2) float32: inputs for a `decision_surface`.

    >>> square_grid(0, 1, side=2).tolist()
    [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    """
    line = np.linspace(low, high, side, dtype=np.float32)
    return np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)


def decision_surface(
    answers: Any, low: float, high: float, title: str = "", *,
    points: Any = None, classes: Any = None, middle: float = 0.5, **axes: Any,
) -> Panel:  # fmt: skip
    """A model's outputs from 0 to 1 at the points of `square_grid(low, high)`.

    The black line is where it answers `middle`. `points` (n, 2) are drawn with their classes 0 and
    1 (n,) as black and white. Other settings are those of `Axes.set`.
    """
    side = round(np.size(answers) ** 0.5)
    heights, line = np.reshape(answers, (side, side)), np.linspace(low, high, side)

    def draw(axis: "Axes") -> None:
        shades = np.linspace(middle - 1, middle + 1, 21)
        axis.contourf(line, line, heights, shades, extend="both", cmap="RdBu_r")
        axis.contour(line, line, heights, [middle], colors="black", linewidths=1)
        if points is not None:
            rim = {"edgecolors": "black", "s": 60, "zorder": 3}
            axis.scatter(*np.transpose(points), c=np.ravel(classes), cmap="gray", **rim)
        axis.grid(False)
        describe(axis, title, "", "", axes)

    return Panel(draw, 2.6, 2.6)


def _pixels(
    axis: "Axes", pixels: np.ndarray, end: float, signed: bool, colours: str = "gray"
) -> None:
    """Numbers up to `end` as shades, from zero or, signed, from -`end`."""
    low, shades = (-end, "RdBu_r") if signed else (0.0, colours)
    axis.imshow(pixels, cmap=shades, vmin=low, vmax=end, interpolation="nearest")
    _bare(axis)


def _bare(axis: "Axes") -> None:
    """No grid and no frame around pixels."""
    axis.grid(False)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
