"""The figures of a report: curves, confusion matrix, worst errors, predicted against true."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from jdl.core.errors import error
from jdl.core.text import is_timing
from jdl.plots.style import COLOURS, blank_figure, plain_text, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 200
"""Dots per inch of a PNG file: twice those of the page, for sharp screens."""
_NOT_CURVES = ("step", "epoch", "split")
_SPANS_DECADES = 20.0


def png(figure: "Figure") -> bytes:
    """A figure as the bytes of a PNG file; the same figure always gives the same bytes.

    >>> from jdl import plots
    >>> plots.png(plots.figure(plots.text_panel("text")))[1:4]
    b'PNG'
    """
    file = io.BytesIO()
    with style():
        figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()


# Curves


@style()
def curves(rows: Sequence[Mapping[str, Any]], *, best: int | None = None) -> "Figure":
    """Plot every metric of a log over the epochs, with training and validation in one panel.

    `rows` is `Result.history` or the rows of `metrics.jsonl`; timings are left out. For an
    ensemble, a metric is a list over members: its mean is drawn, with a band from the lowest to the
    highest member. Losses and norms that span decades get a logarithmic axis. Crosses at the bottom
    mark values that are not finite. The players of a game share a panel. `best` is the step of the
    best weights, marked by a dotted line.

    Raises `InputError` if no row has a metric.

    >>> from jdl import plots
    >>> rows = [{"split": "train", "epoch": e, "loss": 1 / e, "accuracy": 0.9} for e in (1, 2)]
    >>> [axes.get_title("left") for axes in plots.curves(rows).axes]
    ['loss', 'accuracy']
    """
    by_title = panels(rows)
    if not by_title:
        raise error(
            "curves",
            expected="rows with at least one metric",
            got=f"{len(rows)} rows without any",
            fix="train for longer, or lower log_every: nothing was logged yet",
        )
    columns = 3 if len(by_title) in (3, 5, 6) else min(len(by_title), 2)
    lines = -(-len(by_title) // columns)
    figure = blank_figure({1: 6.0, 2: 9.6, 3: 12.0}[columns], 3.3 * lines)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    epoch = _epoch_of(rows, best)
    for axis, (title, names) in zip(axes, by_title.items(), strict=False):
        _panel(axis, rows, title, names, epoch)
    for axis in axes[len(by_title) :]:
        axis.remove()
    return figure


def panels(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Names of metrics by the title of their panel: losses first, norms and skipped steps last."""
    names = [
        name for name in dict.fromkeys(n for row in rows for n in row) if _has_curve(name, rows)
    ]
    names.sort(key=lambda name: (not name.endswith("loss"), name.endswith(("_norm", "skipped"))))
    by_title: dict[str, list[str]] = {}
    for name in names:
        by_title.setdefault(name.rsplit("/", 1)[-1], []).append(name)
    return by_title


def _has_curve(name: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    if name in _NOT_CURVES or is_timing(name):
        return False
    values = [members(row.get(name)) for row in rows]
    if name.rsplit("/", 1)[-1] == "skipped":
        return any(value is not None and (value != 0).any() for value in values)
    return any(value is not None for value in values)


def members(value: Any) -> np.ndarray | None:
    """A number, or a list with one for each member, as a vector; None for anything else."""
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
        axis.axvline(best, color="#888888", linestyle=":", linewidth=1.3, label="best weights")
    title = "share of steps skipped" if title == "skipped" else title.replace("_", " ")
    axis.set_title(plain_text(title))
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
    """Draw one curve; return its smallest and largest finite value."""
    x = np.array([at for at, _ in points])
    count = max(value.size for _, value in points)
    finite = [value[np.isfinite(value)] for _, value in points]
    middle = np.array([value.mean() if value.size else np.nan for value in finite])
    finite_middle = middle[np.isfinite(middle)]
    label += f", mean of {count}" if count > 1 else ""
    label += f" (last {finite_middle[-1]:.4g})" if finite_middle.size else ""
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
    values = np.concatenate(finite)
    return (values.min(), values.max()) if values.size else (math.inf, 0.0)


def _split(row: Mapping[str, Any]) -> str:
    return str(row.get("split", "train"))


def _x(row: Mapping[str, Any]) -> float:
    return float(row["epoch"] if "epoch" in row else row.get("step", 0))


def _epoch_of(rows: Sequence[Mapping[str, Any]], step: int | None) -> float | None:
    return next((_x(row) for row in rows if step is not None and row.get("step") == step), None)


# Classes


@style()
def confusion_matrix(matrix: ArrayLike, labels: Sequence[Any] | None = None) -> "Figure":
    """A confusion matrix: true classes as rows, predicted classes as columns.

    `matrix` (classes, classes) holds counts. Colours show each count's share of its row, and with
    up to 25 classes the counts are written too. `labels` name the classes, by default 0, 1, ...

    Raises `InputError` for a matrix that is not square, or for a wrong number of labels.

    >>> from jdl import plots
    >>> axes = plots.confusion_matrix([[9, 1], [0, 10]], labels=["cat", "dog"]).axes[0]
    >>> [text.get_text() for text in axes.texts]
    ['9', '1', '10']
    """
    from matplotlib.colors import PowerNorm

    counts = np.asarray(matrix)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.size:
        raise error(
            "confusion matrix",
            expected="shape (classes, classes)",
            got=f"shape {counts.shape}",
            fix="pass the counts of jdl.metrics.confusion(classes)",
        )
    classes = len(counts)
    names = [plain_text(label) for label in (range(classes) if labels is None else labels)]
    if len(names) != classes:
        raise error(
            "labels",
            expected=f"{classes} names, one for each class",
            got=str(len(names)),
            fix="leave labels out to number the classes",
        )
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(max(0.5 * classes, 3.0), 8.0)
    figure = blank_figure(side + 1.8, side + 0.8)
    axis = figure.subplots()
    # The square root makes a single error visible in a row of correct predictions.
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
    images: ArrayLike,
    labels: ArrayLike,
    predictions: ArrayLike,
    confidence: ArrayLike,
    *,
    names: Sequence[Any] | None = None,
    limit: int = 24,
) -> "Figure":
    """The misclassified images with the highest confidence, titled with true and predicted class.

    `images` is (n, height, width) or (n, height, width, channels) with 1, 3 or 4 channels. The
    integer classes `labels` and `predictions` and the `confidence` from 0 to 1 are (n,). At most
    `limit` images are shown, the most confident error first.

    Raises `InputError` for other shapes and for arrays of different lengths.

    >>> from jdl import plots
    >>> fig = plots.worst_errors(np.zeros((2, 8, 8)), [3, 5], [8, 5], [0.97, 0.99])
    >>> [axes.get_title() for axes in fig.axes]
    ['true 3\\npredicted 8 (0.97)']
    """
    arrays = [np.asarray(values) for values in (images, labels, predictions, confidence)]
    pixels, truth, predicted, probability = arrays
    if pixels.ndim == 4 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    is_image = pixels.ndim == 3 or (pixels.ndim == 4 and pixels.shape[-1] in (3, 4))
    if not is_image or any(values.shape != (len(pixels),) for values in arrays[1:]):
        raise error(
            "worst_errors",
            expected="images (n, height, width, channels), and three arrays of shape (n,)",
            got=f"shapes {', '.join(str(values.shape) for values in arrays)}",
            fix="pass one label, one prediction and one confidence for each image",
        )
    wrong = np.flatnonzero(truth != predicted)
    wrong = wrong[np.argsort(-probability[wrong], kind="stable")][:limit]
    if not wrong.size:
        return _sentence(f"no errors among {len(truth)} examples")
    columns = min(6, wrong.size)
    lines = -(-wrong.size // columns)
    figure = blank_figure(max(1.65 * columns, 3.0), 1.95 * lines)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    pixels = pixels[wrong].astype(np.float64)
    low, high = np.nanmin(pixels), np.nanmax(pixels)
    pixels = (pixels - low) / (high - low) if high > low else np.zeros_like(pixels)
    for axis, index, image in zip(axes, wrong, pixels, strict=False):
        axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        true, other = (_name(int(value), names) for value in (truth[index], predicted[index]))
        title = f"true {true}\npredicted {other} ({probability[index]:.2f})"
        axis.set_title(title, fontsize=9, fontweight="normal", loc="center")
    for axis in axes:
        axis.set_axis_off()
    return figure


def _name(index: int, names: Sequence[Any] | None) -> str:
    return plain_text(index if names is None or not 0 <= index < len(names) else names[index])


def _sentence(text: str) -> "Figure":
    figure = blank_figure(5.0, 1.0)
    figure.text(0.5, 0.5, text, ha="center", va="center", fontsize=11)
    return figure


# Regression


@style()
def parity(labels: ArrayLike, outputs: ArrayLike) -> "Figure":
    """Predicted against true values of the same shape; a perfect model's points lie on the line.

    Pairs with a value that is not finite are left out. Raises `InputError` for different shapes.

    >>> from jdl import plots
    >>> axes = plots.parity([[1.0], [2.0]], [[1.1], [1.8]]).axes[0]
    >>> axes.get_xlabel(), axes.get_ylabel()
    ('true', 'predicted')
    """
    truth, predicted = np.asarray(labels, np.float64), np.asarray(outputs, np.float64)
    if truth.shape != predicted.shape:
        raise error(
            "labels",
            expected=f"shape {predicted.shape}, like the outputs",
            got=f"shape {truth.shape}",
            fix="pass one label for each output",
        )
    finite = np.isfinite(truth) & np.isfinite(predicted)
    if not finite.any():
        return _sentence("no finite prediction")
    truth, predicted = truth[finite], predicted[finite]
    figure = blank_figure(5.0, 4.6)
    axis = figure.subplots()
    low, high = min(truth.min(), predicted.min()), max(truth.max(), predicted.max())
    axis.plot([low, high], [low, high], color="#888888", linestyle=":", label="equal")
    alpha = 0.8 if truth.size <= 200 else 0.35
    axis.plot(truth, predicted, "o", color=COLOURS[0], markersize=4, alpha=alpha, markeredgewidth=0)
    axis.set(xlabel="true", ylabel="predicted")
    axis.set_aspect("equal", "datalim")
    axis.legend()
    return figure
