"""Pictures of a run as matplotlib figures: curves, confusion matrix, worst mistakes.

Pure functions that return a `matplotlib.figure.Figure`, in the house style.
"""

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jdl.core.errors import error
from jdl.core.text import is_timing
from jdl.plots.style import COLOURS, blank_figure, plain_text, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 200
"""Dots per inch of a written picture: twice what a page shows, for sharp screens."""
_NOT_CURVES = ("step", "epoch", "split")
_SPANS_DECADES = 20.0


def png(figure: "Figure") -> bytes:
    """A figure as the bytes of a PNG file, the same each time."""
    file = io.BytesIO()
    with style():
        figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()


# Curves


@style()
def curves(rows: Sequence[Mapping[str, Any]], *, best: int | None = None) -> "Figure":
    """Every number of a log over the epochs, one panel each, training beside validation.

    `rows` are those of `Result.history` or `metrics.jsonl`. A list over members becomes its mean,
    with a band from the lowest to the highest member. Losses and norms that span decades are
    drawn on a logarithmic axis. What is not finite is marked at the foot of the panel. The numbers
    of a game's players share a panel. `best` is the step of the kept weights. Clocks are left out.

    Raises `InputError` where no row has a number.
    """
    shown = panels(rows)
    if not shown:
        raise error(
            "curves",
            expected="rows with numbers",
            got=f"{len(rows)} rows without any",
            fix="plot a run that has logged something: log_every may be larger than its length",
        )
    columns = 3 if len(shown) in (3, 5, 6) else min(len(shown), 2)
    lines = -(-len(shown) // columns)
    figure = blank_figure({1: 6.0, 2: 9.6, 3: 12.0}[columns], 3.3 * lines)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    epoch = _epoch_of(rows, best)
    for axis, (title, names) in zip(axes, shown.items(), strict=False):
        _panel(axis, rows, title, names, epoch)
    for axis in axes[len(shown) :]:
        axis.remove()
    return figure


def panels(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Names of numbers by the title of their panel: loss, measures, then norms and refusals."""
    names = dict.fromkeys(name for row in rows for name in row)
    shown = [name for name in names if _is_shown(name, rows)]
    shown.sort(key=lambda name: (not name.endswith("loss"), name.endswith(("_norm", "skipped"))))
    grouped: dict[str, list[str]] = {}
    for name in shown:
        grouped.setdefault(name.rsplit("/", 1)[-1], []).append(name)
    return grouped


def _is_shown(name: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    if name in _NOT_CURVES or is_timing(name):
        return False
    values = [members(row.get(name)) for row in rows]
    if name.rsplit("/", 1)[-1] == "skipped":
        return any(value is not None and (value != 0).any() for value in values)
    return any(value is not None for value in values)


def members(value: Any) -> np.ndarray | None:
    """A number, or a list of one for each member, as a vector; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | list | tuple | np.ndarray):
        return None
    try:
        vector = np.atleast_1d(np.asarray(value, np.float64))
    except (TypeError, ValueError):
        return None
    return vector if vector.ndim == 1 and vector.size else None


def _panel(
    axis: "Axes",
    rows: Sequence[Mapping[str, Any]],
    title: str,
    names: Sequence[str],
    best: float | None,
) -> None:
    low, high = math.inf, 0.0
    splits = sorted(set(map(_split, rows)))
    for name in names:
        for split in splits:
            pairs = [(_x(row), members(row.get(name))) for row in rows if _split(row) == split]
            points = [(x, value) for x, value in pairs if value is not None]
            if not points:
                continue
            several = len(names) > 1
            place = names.index(name) if several else splits.index(split)
            player = plain_text(name.rsplit("/", 1)[0] if "/" in name else "all") + ", "
            label = f"{player if several else ''}{plain_text(split)}"
            dashed = several and splits.index(split) > 0
            extent = _line(axis, points, label, COLOURS[place % len(COLOURS)], dashed)
            low, high = min(low, extent[0]), max(high, extent[1])
    if title.endswith(("loss", "norm", "error", "perplexity")) and 0 < low * _SPANS_DECADES < high:
        _logarithmic(axis, high / low)
    if best is not None and not title.endswith(("norm", "skipped")):
        axis.axvline(best, color="#888888", linestyle=":", linewidth=1.3, label="kept weights")
    said = "share of steps skipped" if title == "skipped" else title.replace("_", " ")
    axis.set_title(plain_text(said))
    axis.set_xlabel("epoch" if any("epoch" in row for row in rows) else "step")
    axis.margins(x=0.02)
    axis.legend()


def _logarithmic(axis: "Axes", span: float) -> None:
    from matplotlib.ticker import LogLocator

    axis.set_yscale("log")
    axis.yaxis.set_major_formatter("{x:g}")
    if span < 1000:
        axis.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        axis.yaxis.set_minor_formatter("{x:g}")
        axis.tick_params(axis="y", which="minor", labelsize=8, labelcolor="#666666")


def _line(
    axis: "Axes", points: list[tuple[float, np.ndarray]], label: str, colour: str, dashed: bool
) -> tuple[float, float]:
    """Draw a series; its smallest and largest finite number."""
    x = np.array([at for at, _ in points])
    count = max(value.size for _, value in points)
    finite = [value[np.isfinite(value)] for _, value in points]
    middle = np.array([value.mean() if value.size else np.nan for value in finite])
    known = middle[np.isfinite(middle)]
    label += f", mean of {count}" if count > 1 else ""
    label += f" (last {known[-1]:.4g})" if known.size else ""
    axis.plot(
        x,
        middle,
        color=colour,
        label=label,
        linestyle="--" if dashed else "-",
        marker="o" if len(x) <= 30 else None,
        markersize=3.2,
    )
    if count > 1:
        bottom = [value.min() if value.size else np.nan for value in finite]
        top = [value.max() if value.size else np.nan for value in finite]
        axis.fill_between(x, bottom, top, color=colour, alpha=0.18, linewidth=0)
    lost = np.array([not np.isfinite(value).all() for _, value in points])
    if lost.any():
        axis.plot(
            x[lost],
            np.full(lost.sum(), 0.03),
            "x",
            color=colour,
            transform=axis.get_xaxis_transform(),
            label="_" if "not finite" in axis.get_legend_handles_labels()[1] else "not finite",
        )
    numbers = np.concatenate(finite)
    return (numbers.min(), numbers.max()) if numbers.size else (math.inf, 0.0)


def _split(row: Mapping[str, Any]) -> str:
    return str(row.get("split", "train"))


def _x(row: Mapping[str, Any]) -> float:
    return float(row["epoch"] if "epoch" in row else row.get("step", 0))


def _epoch_of(rows: Sequence[Mapping[str, Any]], step: int | None) -> float | None:
    return next((_x(row) for row in rows if step is not None and row.get("step") == step), None)


# Classes


@style()
def confusion(matrix: Any, labels: Sequence[Any] | None = None) -> "Figure":
    """How often each true class (row) was taken for each class (column).

    `matrix` (classes, classes) holds counts; colours show their share of the row, and up to 25
    classes the counts are written too. `labels` name the classes, 0, 1, ... where left out.

    Raises `InputError` for anything but a square matrix and a name for each of its rows.
    """
    from matplotlib.colors import PowerNorm

    counts = np.asarray(matrix)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.size:
        raise error(
            "confusion matrix",
            expected="shape (classes, classes)",
            got=f"shape {counts.shape}",
            fix="give the counts of jdl.metrics.confusion_matrix(classes)",
        )
    classes = len(counts)
    names = [plain_text(label) for label in (range(classes) if labels is None else labels)]
    if len(names) != classes:
        raise error(
            "labels",
            expected=f"{classes} names, one for each class",
            got=str(len(names)),
            fix="leave them out to number the classes",
        )
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(max(0.5 * classes, 3.0), 8.0)
    figure = blank_figure(side + 1.8, side + 0.8)
    axis = figure.subplots()
    # The square root lets a single mistake be seen beside a row of right answers.
    image = axis.imshow(share, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    ticks = range(0, classes, -(-classes // 25))
    long = max(map(len, names)) > 3
    axis.set_xticks(ticks, [names[i] for i in ticks], rotation=45 if long else 0)
    if long:
        for tick in axis.get_xticklabels():
            tick.set(ha="right", rotation_mode="anchor")
    axis.set_yticks(ticks, [names[i] for i in ticks])
    axis.set(xlabel="predicted", ylabel="true")
    axis.grid(False)
    axis.tick_params(length=0)
    if classes <= 25:
        edges = np.arange(classes + 1) - 0.5
        axis.hlines(edges, -0.5, classes - 0.5, color="#dddddd", linewidth=0.6)
        axis.vlines(edges, -0.5, classes - 0.5, color="#dddddd", linewidth=0.6)
        _write_counts(axis, counts, share, side / classes)
    bar = figure.colorbar(image, ax=axis, fraction=0.045, pad=0.03)
    shares = [0, 0.01, 0.1, 0.25, 0.5, 1]
    bar.set_ticks(shares, labels=[f"{share * 100:g} %" for share in shares])
    bar.set_label("share of the true class")
    bar.ax.grid(False)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return figure


def _write_counts(axis: "Axes", counts: np.ndarray, share: np.ndarray, cell: float) -> None:
    digits = len(f"{counts.max():g}")
    size = min(10.0, 72 * cell * 0.8 / (0.62 * max(digits, 2)))
    for (row, column), count in np.ndenumerate(counts):
        if count:
            axis.text(
                column,
                row,
                f"{count:g}",
                ha="center",
                va="center",
                fontsize=size,
                color="white" if share[row, column] > 0.35 else "#222222",
            )


@style()
def worst_errors(
    images: Any,
    labels: Any,
    predictions: Any,
    confidence: Any,
    *,
    names: Sequence[Any] | None = None,
    limit: int = 24,
) -> "Figure":
    """The wrong answers given with most confidence, as pictures: "true 3, said 8, 0.97".

    Images are (n, height, width) or (n, height, width, channels) with 1, 3 or 4 channels; true
    classes, predicted classes and confidences (n,). At most `limit` are shown, the most confident
    first; without a mistake the figure says so.

    Raises `InputError` for arrays of unequal length or other shapes.
    """
    arrays = [np.asarray(values) for values in (images, labels, predictions, confidence)]
    pictures, truth, said, sure = arrays
    if pictures.ndim == 4 and pictures.shape[-1] == 1:
        pictures = pictures[..., 0]
    is_image = pictures.ndim == 3 or (pictures.ndim == 4 and pictures.shape[-1] in (3, 4))
    if not is_image or any(values.shape != (len(pictures),) for values in arrays[1:]):
        raise error(
            "mistakes",
            expected="images (n, height, width, channels) and three numbers for each of them",
            got=f"shapes {', '.join(str(values.shape) for values in arrays)}",
            fix="give one label, one prediction and one confidence for each image",
        )
    wrong = np.flatnonzero(truth != said)
    wrong = wrong[np.argsort(-sure[wrong], kind="stable")][:limit]
    if not wrong.size:
        return _sentence(f"no mistake among {len(truth)} examples")
    columns = min(6, wrong.size)
    lines = -(-wrong.size // columns)
    figure = blank_figure(max(1.65 * columns, 3.0), 1.95 * lines)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    shown = pictures[wrong].astype(np.float64)
    low, high = np.nanmin(shown), np.nanmax(shown)
    shown = (shown - low) / (high - low) if high > low else np.zeros_like(shown)
    for axis, index, picture in zip(axes, wrong, shown, strict=False):
        axis.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        true, other = (_name(int(value), names) for value in (truth[index], said[index]))
        between = ", " if len(f"{true}{other}") < 7 else "\n"
        title = f"true {true}{between}said {other}, {sure[index]:.2f}"
        axis.set_title(title, fontsize=9, fontweight="normal", loc="center")
    for axis in axes:
        axis.set_axis_off()
    return figure


def _name(index: int, names: Sequence[Any] | None) -> str:
    return plain_text(index if names is None or not 0 <= index < len(names) else names[index])


def _sentence(words: str) -> "Figure":
    figure = blank_figure(5.0, 1.0)
    figure.text(0.5, 0.5, words, ha="center", va="center", fontsize=11)
    return figure


# Numbers


@style()
def parity(labels: Any, outputs: Any) -> "Figure":
    """Predicted against true numbers, both of one shape; a perfect model lies on the line.

    Raises `InputError` for shapes that differ, and where nothing is finite.
    """
    truth, said = np.asarray(labels, np.float64), np.asarray(outputs, np.float64)
    if truth.shape != said.shape:
        raise error(
            "labels",
            expected=f"shape {said.shape}, as the outputs",
            got=f"shape {truth.shape}",
            fix="give one label for each output",
        )
    known = np.isfinite(truth) & np.isfinite(said)
    if not known.any():
        return _sentence("no finite prediction")
    truth, said = truth[known], said[known]
    figure = blank_figure(5.0, 4.6)
    axis = figure.subplots()
    low, high = min(truth.min(), said.min()), max(truth.max(), said.max())
    axis.plot([low, high], [low, high], color="#888888", linestyle=":", label="equal")
    faint = 0.8 if truth.size <= 200 else 0.35
    axis.plot(truth, said, "o", color=COLOURS[0], markersize=4, alpha=faint, markeredgewidth=0)
    axis.set(xlabel="true", ylabel="predicted")
    axis.set_aspect("equal", "datalim")
    axis.legend()
    return figure
