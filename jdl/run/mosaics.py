"""Many small images as one picture."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jdl.core.check import error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def mosaic(
    images: Any, title: str = "", rows: Sequence[str] = (), signed: bool = False
) -> "Figure":
    """A figure of grey images (rows, columns, height, width, 1), pixels from 0 to 1.

    `rows` are names beside the rows. `signed` images may hold any numbers: blue below zero, red
    above, both ends at the largest size.
    """
    from matplotlib.figure import Figure

    whole = tiled(images, signed)
    size = 10 * len(whole) / whole.shape[1] + 0.4
    figure = Figure(figsize=(10, size), layout="constrained")
    draw(figure.subplots(), images, title, rows, signed)
    return figure


def draw(
    axes: "Axes", images: Any, title: str = "", rows: Sequence[str] = (), signed: bool = False
) -> None:
    """Draw the mosaic on axes of a larger figure."""
    whole = tiled(images, signed)
    top = float(np.nanmax(np.abs(whole))) if signed else 1.0
    colours = "RdBu_r" if signed else "gray"
    axes.imshow(whole, cmap=colours, vmin=-top if signed else 0, vmax=top, interpolation="nearest")
    height = len(whole) / len(images)
    middles = [height * (index + 0.5) - 0.5 for index in range(len(rows))]
    axes.set_yticks(middles, labels=list(rows))
    axes.tick_params(length=0)
    axes.set(xticks=[], title=title)
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


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
