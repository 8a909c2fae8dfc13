"""Panels of points: scattered, by class, predicted against true, by name."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from jdl.plots.panels import Panel, describe, figure
from jdl.plots.style import COLOURS, GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DENSITY_FROM_POINTS = 2_000
"""Points from which on their density is drawn in their place."""


def scatter(
    points: Any,
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    *,
    name: str = "_",
    classes: Any = None,
    faint: bool = False,
    **axes: Any,
) -> Panel:
    """Points (n, 2), coloured by their classes (n,) where there are some, grey where `faint`."""

    def draw(axis: "Axes") -> None:
        colour: dict[str, Any] = {"color": "0.75" if faint else COLOURS[0]}
        if classes is not None:
            top = int(np.max(classes))
            colour = {"c": classes, "cmap": "tab10", "vmin": -0.5, "vmax": max(top, 9) + 0.5}
        drawn = axis.scatter(*np.transpose(points), s=5, label=name, **colour)
        if classes is not None:
            axis.figure.colorbar(drawn, ax=axis, label="class", ticks=range(top + 1))
        describe(axis, title, xlabel, ylabel, axes)

    return Panel(draw)


def embedding(features: Any, classes: Any, title: str = "") -> Panel:
    """Features (n, k), brought to length 1, on their two main axes, coloured by class (n,)."""
    unit = np.asarray(features) / np.linalg.norm(features, axis=-1, keepdims=True)
    centred = unit - unit.mean(0)[None]
    places = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
    names = ("first main axis", "second main axis")
    return scatter(places, title, *names, classes=classes, xticks=[], yticks=[])


def embeddings(encoders: Mapping[str, Callable[[Any], Any]], x: Any, y: Any) -> "Figure":
    """What several encoders make of the same inputs with classes y (n,), side by side."""
    return figure(*(embedding(encode(x), y, name) for name, encode in encoders.items()))


def plane(limit: float) -> Panel:
    """Square axes from -limit to limit without ticks, for points in a plane."""
    span = (-limit, limit)
    frame: dict[str, Any] = {"xlim": span, "ylim": span, "xticks": [], "yticks": []}

    def draw(axis: "Axes") -> None:
        axis.spines[:].set_visible(False)
        axis.set(**frame, aspect="equal")

    return Panel(draw, 2.6, 2.7)


def predicted_vs_true(
    truth: Any,
    said: Any,
    title: str = "",
    xlabel: str = "true",
    ylabel: str = "predicted",
    **axes: Any,
) -> Panel:
    """Predicted against true numbers, each (n,); a perfect model lies on the line.

    Many are drawn as their density, between the 0.1 and 99.9 % quantiles of the true ones.
    """

    def draw(axis: "Axes") -> None:
        ends = [np.min(truth), np.max(truth)]
        if len(truth) < DENSITY_FROM_POINTS:
            axis.scatter(truth, said, s=7, color=COLOURS[0])
        else:
            ends = list(np.quantile(truth, (0.001, 0.999)))
            grid: dict[str, Any] = {"gridsize": 45, "extent": (*ends, *ends), "mincnt": 1}
            drawn = axis.hexbin(truth, said, cmap="Blues", bins="log", **grid)
            axis.figure.colorbar(drawn, ax=axis, label="examples")
        axis.plot(ends, ends, color=GREY, linestyle="--", linewidth=1.2, label="equal")
        describe(axis, title, xlabel, ylabel, axes)

    return Panel(draw)


def strip(
    values: Mapping[str, Any],
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    *,
    compared: str | None = None,
    **axes: Any,
) -> Panel:
    """Numbers by name, one row each: every one as a dot, their mean as a diamond.

    Behind all rows stands a band, one standard deviation to each side of the mean of the row
    `compared`.
    """

    def draw(axis: "Axes") -> None:
        if compared is not None:
            middle, width = np.mean(values[compared]), np.std(values[compared])
            axis.axvspan(middle - width, middle + width, color="0.9", lw=0)
        for row, numbers in enumerate(values.values()):
            axis.plot(numbers, np.full(np.shape(numbers), row), ".", color="0.55", ms=5)
            axis.plot(np.mean(numbers), row, "D", color=COLOURS[0], ms=6)
        axis.set_yticks(range(len(values)), list(values))
        axis.grid(False, axis="y")
        axis.invert_yaxis()
        describe(axis, title, xlabel, ylabel, axes)

    return Panel(draw, 5.0, 0.8 + 0.36 * len(values))


def strips(rows: Mapping[str, Mapping[str, Any]], compared: str | None = None) -> "Figure":
    """The numbers of a `jdl.seed_table` as a picture: a `strip` of the rows for each column."""
    columns = next(iter(rows.values()))
    panels = [
        strip({name: row[column] for name, row in rows.items()}, column, compared=compared)
        for column in columns
    ]
    return figure(*panels)
