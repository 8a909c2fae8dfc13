"""Panels of numbers that lie on a grid: images, many of them, matrices, surfaces."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jdl.core.check import error
from jdl.run.panels import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
        low, shades = (-end, "RdBu_r") if signed else (0.0, colours)
        axis.imshow(pixels, cmap=shades, vmin=low, vmax=end, interpolation="nearest")
        _bare(axis)
        axis.set_title(title, fontsize=9, fontweight="normal", loc="center")
        axis.set(xticks=[], yticks=[])

    side = 1.5 if title else 0.95
    return Panel(draw, side, side * pixels.shape[0] / pixels.shape[1] + (0.2 if title else 0))


def mosaic(
    images: Any, title: str = "", rows: Sequence[str] = (), *, signed: bool = False
) -> Panel:
    """Grey images (rows, columns, height, width, 1) side by side, pixels from 0 to 1.

    `rows` are names beside the rows. `signed` images may hold any numbers: blue below zero, red
    above, both ends at the largest size.
    """
    whole = tiled(images, signed)

    def draw(axis: "Axes") -> None:
        top = float(np.nanmax(np.abs(whole))) if signed else 1.0
        colours = "RdBu_r" if signed else "gray"
        axis.imshow(
            whole, cmap=colours, vmin=-top if signed else 0, vmax=top, interpolation="nearest"
        )
        _bare(axis)
        height = len(whole) / len(images)
        middles = [height * (index + 0.5) - 0.5 for index in range(len(rows))]
        axis.set_yticks(middles, labels=list(rows))
        axis.set(xticks=[], title=title)

    wide = 5.0 if whole.shape[1] <= len(whole) else 10.0
    return Panel(draw, wide, wide * len(whole) / whole.shape[1] + 0.4)


def tiled(images: Any, signed: bool = False) -> np.ndarray:
    """One array (height, width) of images (rows, columns, h, w, 1), with an edge around each.

    >>> tiled(np.ones((2, 3, 4, 4, 1))).shape
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
    values: Any, rows: Sequence[Any] = (), columns: Sequence[Any] = (), *,
    top: float | None = None, power: float = 1.0, bar: str = "", **axes: Any,
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
        axis.set(**axes)

    return Panel(draw, 4.4 if bar else 3.6, 3.8)


def square(low: float, high: float, side: int = 81) -> np.ndarray:
    """The points of a square grid, (side * side, 2) float32, to ask a model for its `surface`.

    >>> square(0, 1, side=2).tolist()
    [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    """
    line = np.linspace(low, high, side, dtype=np.float32)
    return np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)


def surface(
    answers: Any, low: float, high: float, *, points: Any = None, classes: Any = None,
    middle: float = 0.5, **axes: Any,
) -> Panel:  # fmt: skip
    """A model's answers from 0 to 1 at the points of `square(low, high)`, as a decision surface.

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
        axis.set(**axes)

    return Panel(draw, 2.6, 2.6)


def _bare(axis: "Axes") -> None:
    """No grid and no frame around pixels."""
    axis.grid(False)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
