"""Panels: each draws on axes, `overlay` puts several on the same axes, `figure` lays them out.

Title, labels and other settings, such as `ylim=` or `yscale=`, go to matplotlib's `Axes.set`.
Everything with a name appears in the legend, unless the name begins with "_".
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jdl.core.errors import error
from jdl.plots.style import COLOURS, GREY, blank_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DASHES = ("--", ":", "-.", "-")
MARK_UP_TO_POINTS = 12
"""Curves with at most this many points get a marker at each."""


class Panel(NamedTuple):
    """One plot of a figure: `draw` draws it on matplotlib axes of `width` x `height` inches.

    Every function here that returns a panel returns one of these. You can write your own:

    >>> from jdl import plots
    >>> diagonal = plots.Panel(lambda axes: axes.plot([0, 1], [0, 1]), width=3, height=2)
    >>> plots.figure(diagonal, diagonal).get_size_inches().tolist()
    [6.0, 2.0]
    """

    draw: Callable[["Axes"], Any]
    width: float = 5.0
    height: float = 4.0


@style()
def figure(*panels: Panel, columns: int | None = None, title: str = "") -> "Figure":
    """Lay out panels in rows of `columns`, or in one row, and return a matplotlib figure.

    Raises `InputError` without a panel.

    >>> from jdl import plots
    >>> wave = plots.lines({"sine": ([0, 1, 2, 3], [0, 1, 0, -1])}, "A wave", "time")
    >>> fig = plots.figure(wave, wave, plots.text_panel("the end"), columns=2)
    >>> [axes.get_title("left") for axes in fig.axes]
    ['A wave', 'A wave', '']
    """
    if not panels:
        raise error(
            "figure",
            expected="at least one panel",
            got="none",
            fix="pass a panel, such as plots.lines(...)",
        )
    columns = columns or len(panels)
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    widths = [max(p.width for p in panels[i::columns]) for i in range(min(columns, len(panels)))]
    heights = [max(p.height for p in row) for row in rows]
    whole = blank_figure(sum(widths), sum(heights) + (0.4 if title else 0))
    grid = {"width_ratios": widths, "height_ratios": heights}
    axes = whole.subplots(len(rows), len(widths), squeeze=False, gridspec_kw=grid).ravel()
    for axis, panel in zip(axes, panels, strict=False):
        panel.draw(axis)
        if axis.get_legend_handles_labels()[1]:
            axis.legend(frameon=True, framealpha=0.85, edgecolor="none")
    for axis in axes[len(panels) :]:
        axis.remove()
    if title:
        whole.suptitle(title, fontsize=11, fontweight="bold")
    return whole


def overlay(*panels: Panel, **axes: Any) -> Panel:
    """Draw several panels on the same axes, later ones on top; the first decides the size.

    >>> from jdl import plots
    >>> curve = plots.lines({"accuracy": ([1, 2, 3], [0.5, 0.8, 0.9])})
    >>> both = plots.overlay(curve, plots.horizontal_lines({"guessing": 0.1}), ylim=(0, 1))
    >>> plots.figure(both).axes[0].get_legend_handles_labels()[1]
    ['accuracy', 'guessing']
    """

    def draw(axis: "Axes") -> None:
        for panel in panels:
            panel.draw(axis)
        axis.set(**axes)

    return Panel(draw, panels[0].width, panels[0].height)


def text_panel(text: str) -> Panel:
    """A panel with text in its centre and no axes.

    >>> from jdl import plots
    >>> [text.get_text() for text in plots.figure(plots.text_panel("filters")).axes[0].texts]
    ['filters']
    """

    def draw(axis: "Axes") -> None:
        axis.set_axis_off()
        axis.text(0.5, 0.5, text, ha="center", va="center", transform=axis.transAxes)

    return Panel(draw, 1.0, 1.0)


def describe(
    axis: "Axes", title: str, xlabel: str, ylabel: str, settings: Mapping[str, Any]
) -> None:
    """Set the labels that are not empty; the others stay as the panels below set them."""
    labels = {"title": title, "xlabel": xlabel, "ylabel": ylabel}
    axis.set(**{name: text for name, text in labels.items() if text}, **settings)


# Over x


def lines(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    *,
    written: str = "",
    **axes: Any,
) -> Panel:
    """Curves by name, each a pair (x, y): x of shape (n,), y of shape (n,) or (n, curves).

    The curves of one y share a colour. `written` is a format, such as "{:.1f}", with which the
    values are written at the points.

    >>> from jdl import plots
    >>> panel = plots.lines({"mlp": ([1, 2], [70, 90])}, "Accuracy", "epoch", written="{:.0f} %")
    >>> [text.get_text() for text in plots.figure(panel).axes[0].texts]
    ['70 %', '90 %']
    """

    def draw(axis: "Axes") -> None:
        for name, (x, y) in curves.items():
            x = np.asarray(x)
            many = np.asarray(y, float).reshape(len(x), -1)
            width = 1.8 if many.shape[1] == 1 else 1.0
            marked = "o-" if written or len(many) <= MARK_UP_TO_POINTS else "-"
            first = axis.plot(x, many[:, 0], marked, ms=4, lw=width, label=name)[0]
            axis.plot(x, many[:, 1:], color=first.get_color(), lw=width)
            for place, value in zip(x, many[:, 0] if written else (), strict=False):
                text = written.format(value)
                offset = {"xytext": (0, 7), "textcoords": "offset points", "ha": "center"}
                axis.annotate(text, (place, value), **offset)
        describe(axis, title, xlabel, ylabel, axes)

    return Panel(draw)


def logged_curve(
    history: Iterable[Mapping[str, Any]], name: str, *, split: str = "train", over: str = "step"
) -> tuple[np.ndarray, np.ndarray]:
    """A metric of a run's log as a pair of arrays (x, y), each of shape (rows,), for `lines`.

    `history` is `Result.history`; rows of another split or without the metric are ignored.

    >>> rows = [{"split": "train", "step": 5, "loss": 0.5}, {"split": "valid", "step": 5}]
    >>> logged_curve(rows, "loss")
    (array([5]), array([0.5]))
    """
    rows = [row for row in history if row["split"] == split and name in row]
    return np.array([row[over] for row in rows]), np.array([row[name] for row in rows])


def history(
    rows: Iterable[Mapping[str, Any]], name: str = "loss", title: str = "", ylabel: str = "",
    **axes: Any,
) -> Panel:  # fmt: skip
    """A metric of a run's log over the steps: one curve for training, one for validation.

    >>> from jdl import plots
    >>> rows = [
    ...     {"split": "train", "step": 5, "loss": 0.5},
    ...     {"split": "valid", "step": 5, "loss": 0.7},
    ... ]
    >>> plots.figure(plots.history(rows)).axes[0].get_legend_handles_labels()[1]
    ['train', 'valid']
    """
    rows = list(rows)
    curves = {split: logged_curve(rows, name, split=split) for split in ("train", "valid")}
    curves = {split: (x, y) for split, (x, y) in curves.items() if len(x)}
    return lines(curves, title, "step", ylabel, **axes)


def series(values: ArrayLike, title: str = "") -> Panel:
    """The channels of one time series of shape (time, channels), as a small panel.

    >>> from jdl import plots
    >>> axes = plots.figure(plots.series(np.zeros((50, 12)), "Speaker 1")).axes[0]
    >>> len(axes.get_lines())
    12
    """
    values = np.asarray(values, float)
    channels = {f"_{i}": (range(len(values)), channel) for i, channel in enumerate(values.T)}
    return lines(channels, title)._replace(width=3.0, height=2.1)


def horizontal_lines(heights: Mapping[str, float]) -> Panel:
    """Horizontal lines by name, for baselines and bounds; put them over a plot with `overlay`.

    >>> from jdl import plots
    >>> lines = plots.horizontal_lines({"guessing": 0.1, "published": 0.94})
    >>> [line.get_ydata()[0] for line in plots.figure(lines).axes[0].get_lines()]
    [0.1, 0.94]
    """

    def draw(axis: "Axes") -> None:
        for index, (name, height) in enumerate(heights.items()):
            dashes = DASHES[index % len(DASHES)]
            axis.axhline(height, color=GREY, linestyle=dashes, linewidth=1.2, label=name)

    return Panel(draw)


def shaded_spans(ranges: Mapping[str, tuple[float, float]]) -> Panel:
    """Shade ranges (low, high) of the x axis by name.

    >>> from jdl import plots
    >>> spans = plots.shaded_spans({"warm-up": (0, 100)})
    >>> plots.figure(spans).axes[0].get_legend_handles_labels()[1]
    ['warm-up']
    """

    def draw(axis: "Axes") -> None:
        for name, (low, high) in ranges.items():
            axis.axvspan(low, high, color="0.92", label=name, zorder=0)

    return Panel(draw)


def band(x: ArrayLike, low: ArrayLike, high: ArrayLike, name: str) -> Panel:
    """Shade the area between two curves, such as an interval; x, low and high of shape (n,).

    >>> from jdl import plots
    >>> interval = plots.band([0, 1, 2], [0, 1, 2], [1, 3, 5], "95 % interval")
    >>> plots.figure(interval).axes[0].get_legend_handles_labels()[1]
    ['95 % interval']
    """
    return Panel(lambda axis: axis.fill_between(x, low, high, alpha=0.22, lw=0, label=name))


def bars(
    heights: ArrayLike,
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    *,
    places: ArrayLike | None = None,
    **axes: Any,
) -> Panel:
    """A bar chart of heights (n,), with the bars at `places` (n,), by default 0, 1, ...

    >>> from jdl import plots
    >>> chart = plots.figure(plots.bars([3, 1, 2], "Examples", "class"))
    >>> [int(bar.get_height()) for bar in chart.axes[0].patches]
    [3, 1, 2]
    """

    def draw(axis: "Axes") -> None:
        x = np.arange(np.size(heights)) if places is None else places
        axis.bar(x, heights, color=COLOURS[0])
        axis.grid(False, axis="x")
        describe(axis, title, xlabel, ylabel, axes)

    return Panel(draw)


def histogram(
    values: ArrayLike, title: str = "", xlabel: str = "", ylabel: str = "density", *,
    normal: float | None = None, bins: int = 60, **axes: Any,
) -> Panel:  # fmt: skip
    """The density of values of any shape.

    `normal` adds the density of a normal distribution with mean 0 and that standard deviation.

    >>> from jdl import plots
    >>> errors = np.random.default_rng(0).normal(scale=0.5, size=1000)
    >>> panel = plots.histogram(errors, "Errors", normal=0.5)
    >>> plots.figure(panel).axes[0].get_legend_handles_labels()[1]
    ['normal, std 0.5']
    """

    def draw(axis: "Axes") -> None:
        axis.hist(np.ravel(values), bins=bins, density=True, color=COLOURS[5], label="_")
        if normal is not None:
            at = np.linspace(-4, 4, 201)
            height = np.exp(-(at**2) / 2) / (normal * np.sqrt(2 * np.pi))
            name = f"normal, std {normal:g}"
            axis.plot(at * normal, height, color="0.2", label=name)
        describe(axis, title, xlabel, ylabel, axes)

    return Panel(draw)
