"""The report of a run: one HTML page that needs nothing else, and its pictures as files."""

import base64
import html
import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jdl.core.check import error
from jdl.metrics import wilson
from jdl.run import figures
from jdl.run.apply import Result, predict
from jdl.run.figures import members, panels
from jdl.run.folder import RunFolder, cannot_write, write_bytes
from jdl.run.log import read, without_clocks
from jdl.run.record import Best, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Evaluation(NamedTuple):
    """What a model answered on a set of examples; all of it is optional.

    `inputs` are pictures where they have the shape (n, height, width, 1, 3 or 4); `labels` are
    classes (n, ...), one-hot or integer, or numbers of the outputs' shape; `outputs` are logits
    (n, ..., classes) or numbers, with the members of an ensemble on another axis before these.
    """

    inputs: Any = None
    labels: Any = None
    outputs: Any = None
    labels_names: Sequence[str] | None = None
    split: str = "test"


def evaluation_of(data: Any, result: Result) -> Evaluation | None:
    """What a run answers on the test part of its `Data`; None where the data has no such part."""
    test = getattr(data, "test", None)
    if test is None:
        return None
    part = test()
    names = getattr(data, "info", {}).get("labels")
    return Evaluation(part.get("x"), part.get("y"), predict(result, part), names)


# The one line


def result_line(numbers: Mapping[str, Any], n: int | None, split: str = "test") -> str:
    """The result in a line: accuracy with Wilson's 95 % interval, or else the loss.

    Members (lists) are given by their mean and standard deviation. `n` counts the examples; with
    None neither it nor an interval is shown. Raises `InputError` where there is no number.

    >>> result_line({"loss": 0.03, "accuracy": 0.9912}, 10000)
    'test accuracy 0.9912 (95 % 0.9892–0.9929, n 10000)'
    >>> result_line({"loss": 0.1234}, 100)
    'test loss 0.1234 (n 100)'
    >>> result_line({"accuracy": [0.98, 0.99, 1.0]}, 359)
    'test accuracy 0.9900 ± 0.0100 (mean and standard deviation of 3 members, n 359)'
    """
    name = _headline(numbers)
    value = np.asarray(numbers[name], np.float64)
    counted = [] if n is None else [f"n {n}"]
    if value.ndim == 0:
        number = float(value)
        notes = counted
        if name == "accuracy" and n and math.isfinite(number) and 0 <= number <= 1:
            low, high = wilson(round(number * n), n)
            notes = [f"95 % {low:.4f}–{high:.4f}", *counted]
        return _noted(f"{split} {name} {_short(number)}", notes)
    finite = value[np.isfinite(value)]
    lost = value.size - finite.size
    said = f"{split} {name} {_short(finite.mean() if finite.size else math.nan)}"
    if finite.size > 1:
        said += f" ± {_short(finite.std(ddof=1))}"
    what = "mean and standard deviation" if finite.size > 1 else "mean"
    notes = [f"{what} of {finite.size} member{'' if finite.size == 1 else 's'}"] + (
        [f"{lost} not finite"] if lost else []
    )
    return _noted(said, notes + counted)


def _headline(numbers: Mapping[str, Any]) -> str:
    names = [name for name in numbers if members(numbers[name]) is not None]
    chosen = [name for name in ("accuracy", "loss") if name in names] or names
    if not chosen:
        raise error(
            "result",
            expected="a dict with a number in it",
            got=f"entries {', '.join(map(str, numbers)) or 'none'}",
            fix="give what jdl.evaluate returns",
        )
    return chosen[0]


def _short(value: float) -> str:
    """Four decimals, or four digits where these would say nothing."""
    size = abs(value)
    return f"{value:.4f}" if size == 0 or 1e-3 <= size < 1e4 else f"{value:.4g}"


def _noted(words: str, notes: Sequence[str]) -> str:
    return f"{words} ({', '.join(notes)})" if notes else words


# The page


class _Picture(NamedTuple):
    name: str
    title: str
    caption: str
    figure: "Figure"


def write_report(
    folder: RunFolder,
    *,
    result: Mapping[str, Any] | None = None,
    evaluation: Evaluation | None = None,
    pictures: Mapping[str, "Figure"] | None = None,
    note: str | None = None,
) -> Path:
    """Write `figures/*.png` and `report.html` of a run, finished or not; the path of the page.

    `result` holds the numbers of `jdl.evaluate`, with `n` and `split` beside them where known; the
    run's `result.json` when left out. `evaluation` gives the confusion matrix and the worst
    mistakes where the run counts an accuracy, else predicted against true numbers. `pictures` are
    further figures by name, `note` a sentence to put under the title, such as why the run ended.

    The page holds its pictures, asks no server for anything, and follows the reader's light or
    dark setting. Raises `InputError` without matplotlib, for a folder without a run, and where
    `evaluation` has not one output for each label.
    """
    folder.open()
    rows, config = read(folder.metrics), folder.config()
    numbers = dict(_recorded(folder) if result is None else result)
    best = _best_step(config, rows)
    drawn = _pictures(rows, best, evaluation, numbers)
    drawn += [_Picture(_file_name(k), k, "", figure) for k, figure in (pictures or {}).items()]
    images = [(picture, figures.png(picture.figure)) for picture in drawn]
    page = _page(folder, config, rows, best, _lines(numbers, evaluation, rows, best), images, note)
    try:
        folder.figures.mkdir(parents=True, exist_ok=True)
        for picture, content in images:
            write_bytes(folder.figures / f"{picture.name}.png", content)
        write_bytes(folder.report, page.encode())
    except OSError as bad:
        raise cannot_write(folder.path, bad) from bad
    return folder.report


def _recorded(folder: RunFolder) -> dict[str, Any]:
    """The numbers that the run wrote down at its end; none where it did not get there."""
    try:
        found = json.loads((folder.path / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _best_step(config: Mapping[str, Any], rows: Sequence[Row]) -> int | None:
    """Step of the weights that the run keeps, found from its log as a resumed run does."""
    settings = _fit_settings(config)
    rule = settings.get("best") or ("min loss" if settings.get("patience") else None)
    if rule is None:
        return None
    best = Best(str(rule), None)
    for row in rows:
        if row.get("split") == "valid" and best.name.removesuffix("_std") in row:
            best.see(row)
    return best.step


def _fit_settings(config: Mapping[str, Any]) -> Mapping[str, Any]:
    settings = config.get("fit")
    return settings if isinstance(settings, Mapping) else {}


# What the run came to


def _lines(
    numbers: Mapping[str, Any],
    evaluation: Evaluation | None,
    rows: Sequence[Row],
    best: int | None,
) -> list[str]:
    """The headline, and the other numbers of the same evaluation."""
    split, n = numbers.get("split", "test"), numbers.get("n")
    plain = {k: v for k, v in numbers.items() if k not in ("split", "n")}
    plain = {k: v for k, v in plain.items() if members(v) is not None}
    if evaluation is not None:
        split = numbers.get("split", evaluation.split)
        n = _examples(evaluation) if n is None else n
        classes = _classes(evaluation, numbers, rows)
        if not plain and classes is not None:
            plain = {"accuracy": float((classes.said == classes.truth).mean())}
    if plain:
        headline = result_line(plain, n, split)
        rest = [name for name in plain if name != _headline(plain)]
        return [headline, *(result_line({name: plain[name]}, None, split) for name in rest)]
    row = _representative(rows, best)
    if row is None:
        return ["no numbers yet"]
    named = {k: v for k, v in without_clocks(row).items() if k not in ("step", "epoch", "split")}
    return [f"{result_line(named, None, row['split'])} at step {row['step']}"]


def _representative(rows: Sequence[Row], best: int | None) -> Row | None:
    """The evaluation of the kept weights, else the last evaluation, else the last row."""
    rows = [row for row in rows if "split" in row and "step" in row]
    valid = [row for row in rows if row["split"] == "valid"]
    kept = [row for row in valid if row["step"] == best]
    return next(iter([*kept[-1:], *valid[-1:], *rows[-1:]]), None)


def _examples(evaluation: Evaluation) -> int | None:
    given = evaluation.labels if evaluation.labels is not None else evaluation.inputs
    return len(given) if hasattr(given, "__len__") else None


def _status(config: Mapping[str, Any], rows: Sequence[Row]) -> tuple[str, bool]:
    """How far the run has come, in words, and whether that is a reason to worry."""
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
    ended = "ended early by patience, or unfinished" if settings.get("patience") else "unfinished"
    return f"{ended}: {done}", not settings.get("patience")


def _total_steps(settings: Mapping[str, Any]) -> int | None:
    given = [settings.get(name) for name in ("epochs", "examples", "batch_size")]
    known = [value for value in given if isinstance(value, int | float) and value > 0]
    if len(known) < 3:
        return None
    epochs, examples, batch = known
    return max(1, math.ceil(epochs * examples / batch - 1e-9))


def _refused(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Steps that `guard` refused, by the stretch of steps that a row sums up."""
    found, before = [], 0
    for row in rows:
        if row.get("split") != "train" or "step" not in row:
            continue
        share = members(row.get("refused"))
        length = row["step"] - before
        if share is not None and np.nansum(share) > 0:
            counts = [round(value * length) if math.isfinite(value) else 0 for value in share]
            said = str(counts[0])
            if len(counts) > 1:
                said = ", ".join(f"member {i}: {c}" for i, c in enumerate(counts) if c)
            found.append((f"{before + 1}–{row['step']}", said))
        before = row["step"]
    return found


# Pictures


class _Classes(NamedTuple):
    truth: np.ndarray
    said: np.ndarray
    sure: np.ndarray
    count: int
    members: int


def _pictures(
    rows: Sequence[Row],
    best: int | None,
    evaluation: Evaluation | None,
    numbers: Mapping[str, Any],
) -> list[_Picture]:
    drawn = []
    if panels(rows):
        caption = "A band runs from the lowest to the highest member." if _has_members(rows) else ""
        drawn.append(_Picture("curves", "Training", caption, figures.curves(rows, best=best)))
    if evaluation is None:
        return drawn
    classes = _classes(evaluation, numbers, rows)
    if classes is not None:
        drawn += _class_pictures(evaluation, classes)
    else:
        drawn += _number_pictures(evaluation)
    return drawn


def _class_pictures(evaluation: Evaluation, classes: _Classes) -> list[_Picture]:
    names = evaluation.labels_names
    if names is not None and len(names) != classes.count:
        names = None
    matrix = np.zeros((classes.count, classes.count), np.int64)
    np.add.at(matrix, (classes.truth, classes.said), 1)
    wrong = int((classes.truth != classes.said).sum())
    caption = (
        f"{wrong} of {classes.truth.size} {evaluation.split} examples are taken for another class. "
        "Rows are true classes; colours show each cell's share of its row."
    )
    if classes.members > 1:
        caption += f" The {classes.members} members answer together, by their mean probability."
    drawn = [_Picture("confusion", "Confusion matrix", caption, figures.confusion(matrix, names))]
    inputs = np.asarray(evaluation.inputs) if evaluation.inputs is not None else np.zeros(0)
    is_image = inputs.ndim == 4 and inputs.shape[-1] in (1, 3, 4)
    if wrong and is_image and classes.truth.shape == inputs.shape[:1]:
        caption = "The wrong answers given with the highest probability."
        grid = figures.mistakes(inputs, classes.truth, classes.said, classes.sure, names=names)
        drawn.append(_Picture("mistakes", "Worst mistakes", caption, grid))
    return drawn


def _number_pictures(evaluation: Evaluation) -> list[_Picture]:
    truth, said = _array(evaluation.labels), _array(evaluation.outputs)
    if truth is None or said is None or not truth.size:
        return []
    if said.ndim == truth.ndim + 1 and said.shape[1:] == truth.shape:
        said = said.mean(0)
    if truth.shape != said.shape:
        return []
    caption = f"Each dot is one number of the {evaluation.split} set."
    return [_Picture("agreement", "Predicted and true", caption, figures.agreement(truth, said))]


def _classes(
    evaluation: Evaluation, numbers: Mapping[str, Any], rows: Sequence[Row]
) -> _Classes | None:
    """True and predicted classes, where the task was to choose one; members vote by probability."""
    labels, outputs = _array(evaluation.labels), _array(evaluation.outputs)
    if labels is None or outputs is None or not labels.size or not _counts_hits(numbers, rows):
        return None
    if len(labels) not in outputs.shape[:2]:
        raise error(
            "evaluation",
            expected=f"an output for each of {len(labels)} labels",
            got=f"outputs of shape {outputs.shape}",
            fix="predict on the examples that the labels belong to",
        )
    if _is_one_hot(labels) and outputs.shape[-1] == labels.shape[-1]:
        labels = labels.argmax(-1)
    is_logits = outputs.ndim > labels.ndim and outputs.shape[-1] > 1
    if is_logits and np.issubdtype(labels.dtype, np.integer):
        return _chosen(labels, outputs)
    if np.isin(labels, (0, 1)).all() and outputs.shape[-labels.ndim :] == labels.shape:
        return _chosen(labels.astype(np.int64), np.stack([np.zeros_like(outputs), outputs], -1))
    return None


def _chosen(labels: np.ndarray, logits: np.ndarray) -> _Classes | None:
    shares = _softmax(np.asarray(logits, np.float64))
    together = len(shares) if logits.ndim == labels.ndim + 2 else 1
    if logits.ndim == labels.ndim + 2:
        shares = shares.mean(0)
    if shares.shape[:-1] != labels.shape:
        return None
    count = shares.shape[-1]
    shares, truth = shares.reshape(-1, count), labels.ravel()
    # Labels outside the classes mark padding; outputs that are not finite choose nothing.
    used = (truth >= 0) & (truth < count) & np.isfinite(shares).all(-1)
    shares, truth = shares[used], truth[used]
    if not truth.size:
        return None
    shape = labels.shape if used.all() else (truth.size,)
    said, sure = shares.argmax(-1), shares.max(-1)
    return _Classes(truth.reshape(shape), said.reshape(shape), sure.reshape(shape), count, together)


def _softmax(logits: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        powers = np.exp(logits - logits.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True)


def _is_one_hot(labels: np.ndarray) -> bool:
    if labels.ndim < 2 or labels.shape[-1] < 2:
        return False
    return bool(np.isin(labels, (0, 1)).all() and (labels.sum(-1) == 1).all())


def _counts_hits(numbers: Mapping[str, Any], rows: Sequence[Row]) -> bool:
    """Labels may be there without being what was predicted: an auto-encoder's are not."""
    return any("accuracy" in name for names in (numbers, *rows) for name in names)


def _array(value: Any) -> np.ndarray | None:
    """Numbers as an array; None for other things, such as a dict of outputs."""
    if value is None or isinstance(value, Mapping):
        return None
    try:
        array = np.asarray(value)
    except ValueError:
        return None
    is_number = array.dtype.kind in "biuf" or "float" in array.dtype.name
    return array if is_number and array.ndim else None


def _has_members(rows: Sequence[Row]) -> bool:
    found = [members(value) for row in rows for value in row.values()]
    return any(value is not None and value.size > 1 for value in found)


def _file_name(name: str) -> str:
    """A figure's name as that of a file in one folder."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name) or "figure"


# HTML


def _page(
    folder: RunFolder,
    config: Mapping[str, Any],
    rows: Sequence[Row],
    best: int | None,
    lines: Sequence[str],
    images: Sequence[tuple[_Picture, bytes]],
    note: str | None,
) -> str:
    environment = folder.environment()
    status, worrying = _status(config, rows)
    kept = "" if best is None else f". Weights of step {best} are kept"
    parts = [
        f"<p class=path>{_escaped(folder.path.resolve())}</p>",
        f"<h1>{_escaped(lines[0])}</h1>",
        *(f"<p class=more>{_escaped(line)}</p>" for line in lines[1:]),
        f'<p class="{"bad" if worrying else "good"}">{_escaped(status + kept)}.</p>',
        f"<p class=note>{_escaped(note)}</p>" if note else "",
        *(_image(picture, content) for picture, content in images),
        _refusals(rows),
        "<div class=beside>",
        _section("Configuration", _pairs(config)),
        _section("Environment", _pairs({k: v for k, v in environment.items() if k != "command"})),
        "</div>",
        _section("Last rows of the log", _log_table(rows[-12:])) if rows else "",
        _section("How to reproduce", _reproduce(folder, config, environment)),
    ]
    body = "\n".join(part for part in parts if part)
    title = _escaped(f"{folder.path.resolve().name}: {lines[0]}")
    return _PAGE.format(style=_CSS, title=title, body=body)


def _escaped(value: Any) -> str:
    return html.escape(str(value))


def _section(title: str, content: str) -> str:
    return f"<section><h2>{_escaped(title)}</h2>\n{content}</section>"


def _image(picture: _Picture, content: bytes) -> str:
    encoded = base64.b64encode(content).decode()
    # Width and height stand in the PNG's header; the picture has twice the page's dots.
    width = int.from_bytes(content[16:20], "big") // 2
    caption = f"<p class=caption>{_escaped(picture.caption)}</p>" if picture.caption else ""
    return _section(
        picture.title,
        f'<img alt="{_escaped(picture.title)}" width="{width}" '
        f'src="data:image/png;base64,{encoded}">{caption}',
    )


def _refusals(rows: Sequence[Row]) -> str:
    found = _refused(rows)
    if not found:
        return ""
    intro = (
        "<p>These updates had a loss, gradient or result that is not finite, and were left out.</p>"
    )
    return _section("Refused steps", intro + _table(("steps", "refused"), found))


def _pairs(values: Mapping[str, Any]) -> str:
    flat = list(_flattened(values))
    if not flat:
        return "<p>none recorded</p>"
    lines = (f"<tr><th>{_escaped(k)}</th><td>{_escaped(v)}</td></tr>" for k, v in flat)
    return f"<div class=wide><table class=pairs>{''.join(lines)}</table></div>"


def _flattened(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flattened(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield f"{prefix}{name}", _listed(value)
        else:
            yield f"{prefix}{name}", "–" if value is None else str(value)


def _listed(values: Sequence[Any]) -> str:
    """Words with commas; equal neighbours, such as devices, are counted."""
    kinds = list(dict.fromkeys(map(str, values)))
    if len(values) > 1 and len(kinds) == 1:
        return f"{len(values)} × {kinds[0]}"
    return ", ".join(map(str, values)) or "–"


def _log_table(rows: Sequence[Row]) -> str:
    names = dict.fromkeys(name for row in rows for name in row if _cell(row[name]) is not None)
    cells = [[_cell(row[name]) or "" if name in row else "" for name in names] for row in rows]
    return _table(list(names), cells)


def _cell(value: Any) -> str | None:
    if isinstance(value, str | int):
        return str(value)
    vector = members(value)
    if vector is None:
        return None
    if vector.size == 1:
        return f"{vector[0]:.5g}"
    finite = vector[np.isfinite(vector)]
    lost = f", {vector.size - finite.size} not finite" if finite.size < vector.size else ""
    return f"{finite.mean() if finite.size else math.nan:.5g} (mean of {finite.size}{lost})"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    top = "".join(f"<th>{_escaped(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{_escaped(cell)}</td>" for cell in line) + "</tr>" for line in lines
    )
    return f"<div class=wide><table><tr>{top}</tr>{body}</table></div>"


def _reproduce(folder: RunFolder, config: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    command = _command(environment.get("command"))
    seed = _fit_settings(config).get("seed")
    parts = []
    if command:
        parts += [
            f"<pre>{_escaped(command)}</pre>",
            "<p>Given the same run folder, this goes on where the run stopped; "
            "given a new one, it trains again.</p>",
        ]
    has_source = folder.experiment_file.is_file()
    if has_source:
        path = shlex.quote(str(folder.path.resolve()))
        parts.append(f"<pre>{_escaped(f'jdl evaluate {path}')}</pre>")
    if seed is not None:
        parts.append(f"<p>Seed {_escaped(seed)}.</p>")
    if has_source:
        source = folder.experiment_file.read_text(encoding="utf-8", errors="replace")
        digest = environment.get("experiment_sha256")
        mark = f" (SHA-256 {_escaped(digest)})" if digest else ""
        parts.append(
            f"<details><summary>experiment.py{mark}</summary>"
            f"<pre>{_escaped(source)}</pre></details>"
        )
    return "\n".join(parts) or "<p>The command was not recorded.</p>"


def _command(words: Any) -> str:
    """The recorded arguments as a line for a shell."""
    if not isinstance(words, list) or not words:
        return ""
    first, *rest = map(str, words)
    name = Path(first).name
    if name == "jdl" or first.endswith(("jdl/cli.py", "jdl/__main__.py")):
        return shlex.join(["jdl", *rest])
    return shlex.join((["python"] if name.endswith(".py") else []) + [first, *rest])


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body><main>
{body}
</main></body>
</html>
"""
_CSS = """
:root { color-scheme: light dark; --ink: #1d1d1f; --soft: #62656b; --paper: #ffffff;
  --line: #e2e4e8; --box: #f5f6f8; --good: #00684a; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8ea; --soft: #a3a7ae; --paper: #16171a;
  --line: #34373d; --box: #202227; --good: #5fd0a5; --bad: #ff8a80; } }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 24px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; }
h2 { font-size: 17px; margin: 36px 0 10px; }
p { margin: 6px 0; }
.path, .more, .caption { color: var(--soft); }
.path { font-size: 13px; overflow-wrap: anywhere; }
.note { white-space: pre-wrap; }
.good { color: var(--good); }
.bad { color: var(--bad); font-weight: 600; }
img { max-width: 100%; height: auto; background: #ffffff; border: 1px solid var(--line);
  border-radius: 8px; box-sizing: border-box; padding: 8px; }
.beside { display: flex; flex-wrap: wrap; column-gap: 72px; }
.beside section { min-width: 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 4px 18px 4px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { font-weight: 600; white-space: nowrap; }
.pairs th { font-weight: 400; color: var(--soft); }
.pairs td { overflow-wrap: anywhere; }
pre { background: var(--box); padding: 12px; border-radius: 8px; overflow-x: auto;
  font: 13px/1.45 ui-monospace, monospace; }
summary { cursor: pointer; overflow-wrap: anywhere; }
"""
