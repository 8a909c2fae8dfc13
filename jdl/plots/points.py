"""Panels of points: scatter plots, embeddings, predicted against true values, strip plots."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from jdl.plots.panels import Panel, describe, figure
from jdl.plots.style import COLOURS, GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DENSITY_FROM_POINTS = 2_000
"""With at least this many points the density is drawn instead."""


def scatter(
    points: ArrayLike,
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    *,
    name: str = "_",
    classes: ArrayLike | None = None,
    faint: bool = False,
    **axes: Any,
) -> Panel:
    """A scatter plot of points (n, 2), coloured by integer `classes` (n,) or grey if `faint`.

    >>> from jdl import plots
    >>> panel = plots.scatter([[0, 0], [1, 1], [2, 0]], "Points", classes=[0, 1, 1])
    >>> [axes.get_ylabel() for axes in plots.figure(panel).axes]
    ['', 'class']
    """

    def draw(axis: "Axes") -> None:
        colour: dict[str, Any] = {"color": "0.75" if faint else COLOURS[0]}
        top = 0
        if classes is not None:
            top = int(np.max(classes))
            colour = {"c": classes, "cmap": "tab10", "vmin": -0.5, "vmax": max(top, 9) + 0.5}
        drawn = axis.scatter(*np.transpose(points), s=5, label=name, **colour)
        if classes is not None:
            axis.figure.colorbar(drawn, ax=axis, label="class", ticks=range(top + 1))
        describe(axis, title, xlabel, ylabel, axes)

    return Panel(draw)


def embedding(features: ArrayLike, classes: ArrayLike, title: str = "") -> Panel:
    """The first two principal components of features (n, k), coloured by classes (n,).

    Each feature vector is scaled to length 1 first.

    >>> from jdl import plots
    >>> panel = plots.embedding(np.eye(4, 8) + 1, classes=[0, 0, 1, 1])
    >>> plots.figure(panel).axes[0].get_xlabel()
    'first principal component'
    """
    features = np.asarray(features)
    unit = features / np.linalg.norm(features, axis=-1, keepdims=True)
    centred = unit - unit.mean(0)[None]
    places = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
    names = ("first principal component", "second principal component")
    return scatter(places, title, *names, classes=classes, xticks=[], yticks=[])


def embeddings(
    encoders: Mapping[str, Callable[[Any], ArrayLike]], x: ArrayLike, y: ArrayLike
) -> "Figure":
    """The `embedding` of the same inputs x (n, ...) by several encoders, side by side.

    Each encoder maps inputs to features (n, k); y (n,) holds the classes.

    >>> from jdl import plots
    >>> x = np.random.default_rng(0).normal(size=(20, 4))
    >>> fig = plots.embeddings({"raw": np.asarray, "tanh": np.tanh}, x, [0, 1] * 10)
    >>> [axes.get_title("left") for axes in fig.axes[:2]]
    ['raw', 'tanh']
    """
    return figure(*(embedding(encode(x), y, name) for name, encode in encoders.items()))


def plane(limit: float) -> Panel:
    """Empty square axes from -limit to limit, without ticks, on which `overlay` puts points.

    >>> from jdl import plots
    >>> plane = plots.overlay(plots.plane(2.0), plots.scatter([[0, 1], [1, 0]]))
    >>> [float(limit) for limit in plots.figure(plane).axes[0].get_xlim()]
    [-2.0, 2.0]
    """
    span = (-limit, limit)
    frame: dict[str, Any] = {"xlim": span, "ylim": span, "xticks": [], "yticks": []}

    def draw(axis: "Axes") -> None:
        axis.spines[:].set_visible(False)
        axis.set(**frame, aspect="equal")

    return Panel(draw, 2.6, 2.7)


def predicted_vs_true(
    truth: ArrayLike,
    predicted: ArrayLike,
    title: str = "",
    xlabel: str = "true",
    ylabel: str = "predicted",
    **axes: Any,
) -> Panel:
    """Predicted against true values, each (n,); a perfect model's points lie on the diagonal.

    From 2,000 points on their density is drawn, between the 0.1 and 99.9 % quantiles of the truth.

    >>> from jdl import plots
    >>> panel = plots.predicted_vs_true([1.0, 2.0, 3.0], [1.1, 1.9, 3.2], "Ratings")
    >>> axes = plots.figure(panel).axes[0]
    >>> axes.get_xlabel(), axes.get_ylabel()
    ('true', 'predicted')
    """

    def draw(axis: "Axes") -> None:
        ends = [np.min(truth), np.max(truth)]
        if np.size(truth) < DENSITY_FROM_POINTS:
            axis.scatter(truth, predicted, s=7, color=COLOURS[0])
        else:
            ends = list(np.quantile(np.asarray(truth), (0.001, 0.999)))
            grid: dict[str, Any] = {"gridsize": 45, "extent": (*ends, *ends), "mincnt": 1}
            drawn = axis.hexbin(truth, predicted, cmap="Blues", bins="log", **grid)
            axis.figure.colorbar(drawn, ax=axis, label="examples")
        axis.plot(ends, ends, color=GREY, linestyle="--", linewidth=1.2, label="equal")
        describe(axis, title, xlabel, ylabel, axes)

    return Panel(draw)


def strip(
    values: Mapping[str, ArrayLike],
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    *,
    compared: str | None = None,
    **axes: Any,
) -> Panel:
    """A strip plot: one row for each name, its values (n,) as dots and their mean as a diamond.

    `compared` names the row to compare with: a grey band behind all rows shows its mean plus and
    minus one standard deviation.

    >>> from jdl import plots
    >>> panel = plots.strip({"none": [0.7, 0.8], "L2": [0.82, 0.84]}, "accuracy", compared="none")
    >>> [label.get_text() for label in plots.figure(panel).axes[0].get_yticklabels()]
    ['none', 'L2']
    """

    def draw(axis: "Axes") -> None:
        if compared is not None:
            reference = np.asarray(values[compared])
            mean, std = reference.mean(), reference.std()
            axis.axvspan(mean - std, mean + std, color="0.9", lw=0)
        for row, array in enumerate(map(np.asarray, values.values())):
            axis.plot(array, np.full(array.shape, row), ".", color="0.55", ms=5)
            axis.plot(array.mean(), row, "D", color=COLOURS[0], ms=6)
        axis.set_yticks(range(len(values)), list(values))
        axis.grid(False, axis="y")
        axis.invert_yaxis()
        describe(axis, title, xlabel, ylabel, axes)

    return Panel(draw, 5.0, 0.8 + 0.36 * len(values))


def strips(rows: Mapping[str, Mapping[str, ArrayLike]], compared: str | None = None) -> "Figure":
    """Plot what `jdl.seed_table` prints: a `strip` for each column, with the values (n,) by row.

    >>> from jdl import plots
    >>> rows = {"none": {"accuracy": [0.7, 0.8], "loss": [1.1, 1.2]}}
    >>> rows["L2"] = {"accuracy": [0.82, 0.84], "loss": [0.6, 0.7]}
    >>> [axes.get_title("left") for axes in plots.strips(rows).axes]
    ['accuracy', 'loss']
    """
    columns = next(iter(rows.values()))
    panels = [
        strip({name: row[column] for name, row in rows.items()}, column, compared=compared)
        for column in columns
    ]
    return figure(*panels)
