"""Pictures put together: a panel draws on axes, `overlay` draws several on the same, and `figure`
lays them side by side.

A title, the labels of x and y, and other settings, such as `ylim=` or `yscale=`, are those of
matplotlib's `Axes.set`. Whatever has a name stands in the legend, unless that begins with "_".
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jdl.core.errors import error
from jdl.plots.style import COLOURS, GREY, blank_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DASHES = ("--", ":", "-.", "-")
MARK_UP_TO_POINTS = 12
"""Points of a curve up to which each is marked."""


class Panel(NamedTuple):
    """`draw(axes)` puts something on matplotlib axes, about `width` x `height` inches large."""

    draw: Callable[["Axes"], Any]
    width: float = 5.0
    height: float = 4.0


@style()
def figure(*panels: Panel, columns: int | None = None, title: str = "") -> "Figure":
    """Panels in rows of `columns`, or all in one row, as a matplotlib figure in the house style.

    >>> wave = lines({"sine": ([0, 1, 2, 3], [0, 1, 0, -1])}, "A wave", "time")
    >>> whole = figure(wave, wave, text_panel("the end"), columns=2)
    >>> [axes.get_title("left") for axes in whole.axes]
    ['A wave', 'A wave', '']
    """
    if not panels:
        raise error("figure", expected="at least one panel", got="none", fix="give it a panel")
    columns = columns or len(panels)
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    widths = [max(p.width for p in panels[i::columns]) for i in range(min(columns, len(panels)))]
    heights = [max(p.height for p in row) for row in rows]
    made = blank_figure(sum(widths), sum(heights) + (0.4 if title else 0))
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


def text_panel(text: str) -> Panel:
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
    """A number of a run's log as a pair (x, y) for `lines`; rows without it are passed over.

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
    """A number of a run's log over the steps, in training and in validation."""
    rows = list(rows)
    curves = {split: logged_curve(rows, name, split=split) for split in ("train", "valid")}
    curves = {split: (x, y) for split, (x, y) in curves.items() if len(x)}
    return lines(curves, title, "step", ylabel, **axes)


def series(values: Any, title: str = "") -> Panel:
    """The channels of one series (time, channels), small, without a legend."""
    values = np.asarray(values, float)
    channels = {f"_{i}": (range(len(values)), channel) for i, channel in enumerate(values.T)}
    return lines(channels, title)._replace(width=3.0, height=2.1)


def horizontal_lines(heights: Mapping[str, float]) -> Panel:
    """Horizontal lines by name, to compare with: baselines and bounds."""

    def draw(axis: "Axes") -> None:
        for index, (name, height) in enumerate(heights.items()):
            dashes = DASHES[index % len(DASHES)]
            axis.axhline(height, color=GREY, linestyle=dashes, linewidth=1.2, label=name)

    return Panel(draw)


def shaded_spans(ranges: Mapping[str, tuple[float, float]]) -> Panel:
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
