"""Pictures put together: a panel draws on axes, `overlay` draws several on the same, and `figure`
lays them side by side.

A title, the labels of x and y, and other settings, such as `ylim=` or `yscale=`, are those of
matplotlib's `Axes.set`. Whatever has a name stands in the legend, unless that begins with "_".
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jdl.core.check import error
from jdl.run.style import COLOURS, GREY, blank, drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DASHES = ("--", ":", "-.", "-")
FEW = 12
"""Points of a curve up to which each is marked."""
MANY = 2_000
"""Points from which on their density is drawn in their place."""


class Panel(NamedTuple):
    """`draw(axes)` puts something on matplotlib axes, about `width` x `height` inches large."""

    draw: Callable[["Axes"], Any]
    width: float = 5.0
    height: float = 4.0


@drawing
def figure(*panels: Panel, columns: int | None = None, title: str = "") -> "Figure":
    """Panels in rows of `columns`, or all in one row, as a matplotlib figure in the house style.

    >>> wave = lines({"sine": ([0, 1, 2, 3], [0, 1, 0, -1])}, "A wave", "time")
    >>> [axes.get_title("left") for axes in figure(wave, wave, words("the end"), columns=2).axes]
    ['A wave', 'A wave', '']
    """
    if not panels:
        raise error("figure", expected="at least one panel", got="none", fix="give it a panel")
    columns = columns or len(panels)
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    widths = [max(p.width for p in panels[i::columns]) for i in range(min(columns, len(panels)))]
    heights = [max(p.height for p in row) for row in rows]
    made = blank(sum(widths), sum(heights) + (0.4 if title else 0))
    grid = {"width_ratios": widths, "height_ratios": heights}
    axes = made.subplots(len(rows), len(widths), squeeze=False, gridspec_kw=grid).ravel()
    for axis, panel in zip(axes, panels, strict=False):
        panel.draw(axis)
        if axis.get_legend_handles_labels()[1]:
            axis.legend(frameon=True, framealpha=0.85, edgecolor="none")
    for axis in axes[len(panels) :]:
        axis.remove()
    if title:
        made.suptitle(title, fontsize=11, fontweight="bold")
    return made


def overlay(*panels: Panel, **axes: Any) -> Panel:
    """Several panels on the same axes, the later ones above; as large as the first."""

    def draw(axis: "Axes") -> None:
        for panel in panels:
            panel.draw(axis)
        axis.set(**axes)

    return Panel(draw, panels[0].width, panels[0].height)


def words(text: str) -> Panel:
    """Nothing but some words, in the middle."""

    def draw(axis: "Axes") -> None:
        axis.set_axis_off()
        axis.text(0.5, 0.5, text, ha="center", va="center", transform=axis.transAxes)

    return Panel(draw, 1.0, 1.0)


def describe(
    axis: "Axes", title: str, xlabel: str, ylabel: str, settings: Mapping[str, Any]
) -> None:
    """Set what is given, and leave the rest as panels below have set it."""
    said = {"title": title, "xlabel": xlabel, "ylabel": ylabel}
    axis.set(**{name: text for name, text in said.items() if text}, **settings)


# Over x


def lines(
    curves: Mapping[str, tuple[Any, Any]],
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    *,
    written: str = "",
    **axes: Any,
) -> Panel:
    """Curves by name, each a pair (x, y) of shapes (n,) and (n,), or (n, k): k of one colour.

    `written` is the format of numbers at the points, such as "{:.1f}"; without it there are none.
    """

    def draw(axis: "Axes") -> None:
        for name, (x, y) in curves.items():
            many = np.asarray(y, float).reshape(len(x), -1)
            width = 1.8 if many.shape[1] == 1 else 1.0
            marked = "o-" if written or len(many) <= FEW else "-"
            first = axis.plot(x, many[:, 0], marked, ms=4, lw=width, label=name)[0]
            axis.plot(x, many[:, 1:], color=first.get_color(), lw=width)
            for place, value in zip(x, many[:, 0] if written else (), strict=False):
                text = written.format(value)
                offset = {"xytext": (0, 7), "textcoords": "offset points", "ha": "center"}
                axis.annotate(text, (place, value), **offset)
        describe(axis, title, xlabel, ylabel, axes)

    return Panel(draw)


def logged(
    history: Iterable[Mapping[str, Any]], name: str, *, split: str = "train", over: str = "step"
) -> tuple[np.ndarray, np.ndarray]:
    """A number of a run's log as a pair (x, y) for `lines`; rows without it are passed over.

    >>> rows = [{"split": "train", "step": 5, "loss": 0.5}, {"split": "valid", "step": 5}]
    >>> logged(rows, "loss")
    (array([5]), array([0.5]))
    """
    rows = [row for row in history if row["split"] == split and name in row]
    return np.array([row[over] for row in rows]), np.array([row[name] for row in rows])


def history(
    rows: Iterable[Mapping[str, Any]], name: str = "loss", title: str = "", ylabel: str = "",
    **axes: Any,
) -> Panel:  # fmt: skip
    """A number of a run's log over the steps, in training and in validation."""
    rows = list(rows)
    curves = {split: logged(rows, name, split=split) for split in ("train", "valid")}
    curves = {split: (x, y) for split, (x, y) in curves.items() if len(x)}
    return lines(curves, title, "step", ylabel, **axes)


def series(values: Any, title: str = "") -> Panel:
    """The channels of one series (time, channels), small, without a legend."""
    values = np.asarray(values, float)
    channels = {f"_{i}": (range(len(values)), channel) for i, channel in enumerate(values.T)}
    return lines(channels, title)._replace(width=3.0, height=2.1)


def levels(heights: Mapping[str, float]) -> Panel:
    """Horizontal lines by name, to compare with: baselines and bounds."""

    def draw(axis: "Axes") -> None:
        for index, (name, height) in enumerate(heights.items()):
            dashes = DASHES[index % len(DASHES)]
            axis.axhline(height, color=GREY, linestyle=dashes, linewidth=1.2, label=name)

    return Panel(draw)


def spans(ranges: Mapping[str, tuple[float, float]]) -> Panel:
    """Parts of the x axis by name, shaded."""

    def draw(axis: "Axes") -> None:
        for name, (low, high) in ranges.items():
            axis.axvspan(low, high, color="0.92", label=name, zorder=0)

    return Panel(draw)


def band(x: Any, low: Any, high: Any, name: str) -> Panel:
    """What lies between two curves, shaded."""
    return Panel(lambda axis: axis.fill_between(x, low, high, alpha=0.22, lw=0, label=name))


def bars(
    heights: Any,
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    *,
    places: Any = None,
    **axes: Any,
) -> Panel:
    """A bar for each number, at 0, 1, ... or at `places`."""

    def draw(axis: "Axes") -> None:
        axis.bar(range(len(heights)) if places is None else places, heights, color=COLOURS[0])
        axis.grid(False, axis="x")
        describe(axis, title, xlabel, ylabel, axes)

    return Panel(draw)


def histogram(
    values: Any, title: str = "", xlabel: str = "", ylabel: str = "density", *,
    normal: float | None = None, bins: int = 60, **axes: Any,
) -> Panel:  # fmt: skip
    """How often numbers occur, beside a `normal` distribution of that width around zero."""

    def draw(axis: "Axes") -> None:
        axis.hist(np.ravel(values), bins=bins, density=True, color=COLOURS[5], label="_")
        if normal is not None:
            at = np.linspace(-4, 4, 201)
            height = np.exp(-(at**2) / 2) / (normal * np.sqrt(2 * np.pi))
            name = f"normal, width {normal:g}"
            axis.plot(at * normal, height, color="0.2", label=name)
        describe(axis, title, xlabel, ylabel, axes)

    return Panel(draw)


# Points


def dots(
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
    return dots(places, title, *names, classes=classes, xticks=[], yticks=[])


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


def against(
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
        if len(truth) < MANY:
            axis.scatter(truth, said, s=7, color=COLOURS[0])
        else:
            ends = list(np.quantile(truth, (0.001, 0.999)))
            grid: dict[str, Any] = {"gridsize": 45, "extent": (*ends, *ends), "mincnt": 1}
            drawn = axis.hexbin(truth, said, cmap="Blues", bins="log", **grid)
            axis.figure.colorbar(drawn, ax=axis, label="examples")
        axis.plot(ends, ends, color=GREY, linestyle="--", linewidth=1.2, label="equal")
        describe(axis, title, xlabel, ylabel, axes)

    return Panel(draw)


def spread(
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


def spreads(rows: Mapping[str, Mapping[str, Any]], compared: str | None = None) -> "Figure":
    """The numbers of a `jdl.table` as a picture: a `spread` of the rows for each column."""
    columns = next(iter(rows.values()))
    panels = [
        spread({name: row[column] for name, row in rows.items()}, column, compared=compared)
        for column in columns
    ]
    return figure(*panels)
