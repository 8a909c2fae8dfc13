"""The report of a run: one self-contained HTML page, and its figures as files."""

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jdl.core.errors import InputError, error
from jdl.core.spread import format_number, format_spread, mean_and_deviation
from jdl.core.text import metrics_of
from jdl.core.types import Row
from jdl.metrics import wilson_interval
from jdl.plots import training
from jdl.plots.training import members
from jdl.report import html
from jdl.report.predictions import (
    Predictions,
    ReportFigure,
    class_predictions,
    file_name,
    report_figures,
)
from jdl.run.early_stopping import Best
from jdl.run.fork import read_parent
from jdl.run.storage.files import explain_write_errors, read_json, write_bytes
from jdl.run.storage.metrics_log import read_metrics
from jdl.run.storage.run_dir import RunDir
from jdl.run.telemetry import sessions

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# The result in one line


def result_line(metrics: Mapping[str, Any], n: int | None, split: str = "test") -> str:
    """Format metrics as one line: the accuracy with Wilson's 95 % interval, else the loss.

    Lists over members become mean and standard deviation. `n` is the number of examples; without
    it there is no interval. Raises `InputError` for a dict without a metric.

    >>> result_line({"loss": 0.03, "accuracy": 0.9912}, 10000)
    'test accuracy 0.9912 (95 % 0.9892–0.9929, n 10000)'
    >>> result_line({"loss": 0.1234}, 100)
    'test loss 0.1234 (n 100)'
    >>> result_line({"accuracy": [0.98, 0.99, 1.0]}, 359)
    'test accuracy 0.9900 ± 0.0100 (mean and standard deviation of 3 members, n 359)'
    """
    name = _headline(metrics)
    value = np.asarray(metrics[name], np.float64)
    counted = [] if n is None else [f"n {n}"]
    if value.ndim == 0:
        number = float(value)
        notes = counted
        if name == "accuracy" and n and math.isfinite(number) and 0 <= number <= 1:
            low, high = wilson_interval(round(number * n), n)
            notes = [f"95 % {low:.4f}–{high:.4f}", *counted]
        return _with_notes(f"{split} {name} {format_number(number)}", notes)
    mean, deviation = mean_and_deviation(value)
    finite = int(np.isfinite(value).sum())
    what = "mean" if deviation is None else "mean and standard deviation"
    notes = [f"{what} of {finite} member{'' if finite == 1 else 's'}"]
    notes += [f"{value.size - finite} not finite"] if finite < value.size else []
    return _with_notes(f"{split} {name} {format_spread(mean, deviation)}", notes + counted)


def _headline(metrics: Mapping[str, Any]) -> str:
    names = [name for name in metrics if members(metrics[name]) is not None]
    names = [name for name in ("accuracy", "loss") if name in names] or names
    if not names:
        raise error(
            "result",
            expected="a dict with at least one metric",
            got=f"entries {', '.join(map(str, metrics)) or 'none'}",
            fix="pass what jdl.evaluate returns",
        )
    return names[0]


def _with_notes(text: str, notes: Sequence[str]) -> str:
    return f"{text} ({', '.join(notes)})" if notes else text


# The page


def write_report(
    folder: RunDir,
    *,
    result: Mapping[str, Any] | None = None,
    evaluation: Predictions | None = None,
    figures: Mapping[str, "Figure"] | None = None,
    note: str | None = None,
) -> Path:
    """Write `report.html` and `figures/*.png` of a run, finished or not; return the page's path.

    `result` holds the metrics of `jdl.evaluate`, and may hold `n` and `split`; by default it is
    read from the run's `result.json`. `evaluation` adds a confusion matrix and the worst errors if
    the run measures accuracy, else predicted against true values. `figures` adds figures by title,
    `note` a sentence under the title, such as why the run stopped.

    The page embeds its figures, loads nothing from a server, and follows the browser's light or
    dark setting. Raises `InputError` without matplotlib, for a directory without a run, and if
    `evaluation` does not hold one output for each label.
    """
    folder.open()
    rows, config = read_metrics(folder.metrics), folder.config()
    metrics = dict(_recorded(folder) if result is None else result)
    best = _best_step(config, rows)
    sections = report_figures(rows, best, evaluation, metrics)
    sections += [ReportFigure(file_name(k), k, "", figure) for k, figure in (figures or {}).items()]
    images = [(section, training.png(section.figure)) for section in sections]
    text = _page(folder, config, rows, best, _lines(metrics, evaluation, rows, best), images, note)
    with explain_write_errors(folder.path):
        folder.figures.mkdir(parents=True, exist_ok=True)
        for section, content in images:
            write_bytes(folder.figures / f"{section.name}.png", content)
        write_bytes(folder.report, text.encode())
    return folder.report


def _recorded(folder: RunDir) -> dict[str, Any]:
    """The test metrics that the run recorded at its end; empty for an unfinished run."""
    try:
        return read_json(folder.path / "result.json")
    except InputError:
        return {}


def _best_step(config: Mapping[str, Any], rows: Sequence[Row]) -> int | None:
    """The step of the best weights, computed from the log as a resumed run does."""
    settings = _fit_settings(config)
    rule = settings.get("best") or ("min loss" if settings.get("patience") else None)
    if rule is None:
        return None
    best = Best(str(rule), None)
    every, total = _period(settings, "evaluate_every"), _total_steps(settings)
    for row in rows:
        if row.get("split") != "valid" or not {"step", best.name.removesuffix("_std")} <= set(row):
            continue
        # Elsewhere lies the end of a run whose epochs have grown since then.
        if every is None or row["step"] % every == 0 or row["step"] == total:
            best.see(row)
    return best.step


def _period(settings: Mapping[str, Any], name: str) -> int | None:
    every = settings.get(name)
    return every if type(every) is int and every > 0 else None


def _fit_settings(config: Mapping[str, Any]) -> Mapping[str, Any]:
    settings = config.get("fit")
    return settings if isinstance(settings, Mapping) else {}


# Results and status


def _lines(
    metrics: Mapping[str, Any],
    evaluation: Predictions | None,
    rows: Sequence[Row],
    best: int | None,
) -> list[str]:
    """The headline, then the other metrics of the same evaluation."""
    split, n = metrics.get("split", "test"), metrics.get("n")
    plain = {k: v for k, v in metrics.items() if k not in ("split", "n")}
    plain = {k: v for k, v in plain.items() if members(v) is not None}
    if evaluation is not None:
        split = metrics.get("split", evaluation.split)
        n = _examples(evaluation) if n is None else n
        classes = class_predictions(evaluation, metrics, rows)
        if not plain and classes is not None:
            plain = {"accuracy": float((classes.predicted == classes.truth).mean())}
    if plain:
        headline = result_line(plain, n, split)
        rest = [name for name in plain if name != _headline(plain)]
        return [headline, *(result_line({name: plain[name]}, None, split) for name in rest)]
    row = representative_row(rows, best)
    if row is None:
        return ["no metrics yet"]
    return [f"{result_line(metrics_of(row), None, row['split'])} at step {row['step']}"]


def representative_row(rows: Sequence[Row], best: int | None) -> Row | None:
    """The evaluation of the best weights, else the last evaluation, else the last row."""
    rows = [row for row in rows if "split" in row and "step" in row]
    valid = [row for row in rows if row["split"] == "valid"]
    of_best = [row for row in valid if row["step"] == best]
    return next(iter([*of_best[-1:], *valid[-1:], *rows[-1:]]), None)


def _examples(evaluation: Predictions) -> int | None:
    array = evaluation.labels if evaluation.labels is not None else evaluation.inputs
    return len(array) if hasattr(array, "__len__") else None


def _status(config: Mapping[str, Any], rows: Sequence[Row]) -> tuple[str, bool]:
    """The status of the run as text, and whether it is a warning."""
    if not rows:
        return "no step logged yet", False
    last = max((row.get("step", 0) for row in rows), default=0)
    training = [row for row in rows if row.get("split") == "train"]
    settings = _fit_settings(config)
    total = _total_steps(settings)
    done = f"{last} of {total} steps" if total else f"{last} steps"
    loss = members(training[-1].get("loss")) if training else None
    if loss is not None and not np.isfinite(loss).any():
        return f"diverged: the loss is no longer finite, {done}", True
    if total is None or last >= total:
        return f"finished: {done}", False
    status = "stopped early or unfinished" if settings.get("patience") else "unfinished"
    return f"{status}: {done}", not settings.get("patience")


def _total_steps(settings: Mapping[str, Any]) -> int | None:
    values = [settings.get(name) for name in ("epochs", "examples", "batch_size")]
    positive = [value for value in values if isinstance(value, int | float) and value > 0]
    if len(positive) < 3:
        return None
    epochs, examples, batch = positive
    return max(1, math.ceil(epochs * examples / batch - 1e-9))


def _skipped(
    rows: Sequence[Row], every: int | None = None, first: int = 0
) -> list[tuple[str, str]]:
    """The number of steps that `guard` skipped, by the range of steps of a row of the log.

    `every` is the run's `log_every`, `first` the step that it began from.
    """
    windows: dict[int, Row] = {}
    for row in rows:
        if row.get("split") == "train" and "step" in row:
            # The next row covers the last one of a run whose epochs have grown since then.
            windows[row["step"] if every is None else (row["step"] - 1) // every] = row
    found, before = [], first
    for row in windows.values():
        share = members(row.get("skipped"))
        length = row["step"] - before
        if share is not None and np.nansum(share) > 0:
            counts = [round(value * length) if math.isfinite(value) else 0 for value in share]
            text = str(counts[0])
            if len(counts) > 1:
                text = ", ".join(f"member {i}: {c}" for i, c in enumerate(counts) if c)
            found.append((f"{before + 1}–{row['step']}", text))
        before = row["step"]
    return found


def _page(
    folder: RunDir,
    config: Mapping[str, Any],
    rows: Sequence[Row],
    best: int | None,
    lines: Sequence[str],
    images: Sequence[tuple[ReportFigure, bytes]],
    note: str | None,
) -> str:
    environment = folder.environment()
    without_command = {k: v for k, v in environment.items() if k != "command"}
    status, is_warning = _status(config, rows)
    best_weights = "" if best is None else f". The best weights are those of step {best}"
    parts = [
        f"<p class=path>{html.escape(folder.path.resolve())}</p>",
        f"<h1>{html.escape(lines[0])}</h1>",
        *(f"<p class=more>{html.escape(line)}</p>" for line in lines[1:]),
        f'<p class="{"bad" if is_warning else "good"}">{html.escape(status + best_weights)}.</p>',
        f"<p class=note>{html.escape(note)}</p>" if note else "",
        *(html.image(figure, content) for figure, content in images),
        _skipped_steps(folder, config, rows),
        "<div class=columns>",
        html.section("Configuration", html.definition_list(config)),
        html.section("Environment", html.definition_list(without_command)),
        "</div>",
        html.section("Last rows of the log", html.log_table(rows[-12:])) if rows else "",
        _time(folder),
        html.section("How to reproduce", _reproduce(folder, config, environment)),
    ]
    body = "\n".join(part for part in parts if part)
    title = f"{folder.path.resolve().name}: {lines[0]}"
    return html.page(title, body)


def _time(folder: RunDir) -> str:
    """How long each part of the run took, and where to find its profiler trace."""
    recorded = sessions.read(folder.times)
    if not recorded:
        return ""
    notes = [*sessions.notes(recorded), *sessions.recompilations(recorded)]
    if folder.profile.is_dir():
        notes.append(f"profiler trace: tensorboard --logdir {folder.profile.resolve()}")
    lines = "".join(f"<p>{html.escape(line)}</p>" for line in notes)
    return html.section("Time", html.share_bar(sessions.totals(recorded)) + lines)


def _skipped_steps(folder: RunDir, config: Mapping[str, Any], rows: Sequence[Row]) -> str:
    parent = read_parent(folder)
    every = _period(_fit_settings(config), "log_every")
    found = _skipped(rows, every, parent["step"] if parent else 0)
    intro = (
        "<p>A step is skipped if its loss, its gradient or the updated weights are not finite.</p>"
    )
    table = intro + html.table(("steps", "skipped"), found)
    return html.section("Skipped steps", table) if found else ""


def _reproduce(folder: RunDir, config: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    command = html.shell_command(environment.get("command"))
    seed = _fit_settings(config).get("seed")
    parts = []
    if command:
        parts += [
            f"<pre>{html.escape(command)}</pre>",
            "<p>With the same run directory, this command resumes the run; "
            "with a new one, it trains from the start.</p>",
        ]
    has_source = folder.experiment_file.is_file()
    if has_source:
        path = shlex.quote(str(folder.path.resolve()))
        parts.append(f"<pre>{html.escape(f'jdl evaluate {path}')}</pre>")
    if seed is not None:
        parts.append(f"<p>Seed {html.escape(seed)}.</p>")
    if has_source:
        source = folder.experiment_file.read_text(encoding="utf-8", errors="replace")
        digest = environment.get("experiment_sha256")
        mark = f" (SHA-256 {html.escape(digest)})" if digest else ""
        parts.append(
            f"<details><summary>experiment.py{mark}</summary>"
            f"<pre>{html.escape(source)}</pre></details>"
        )
    return "\n".join(parts) or "<p>The command was not recorded.</p>"
