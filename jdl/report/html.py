"""The parts of a self-contained HTML page: sections, tables, figures."""

import base64
import html
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jdl.core.types import Row
from jdl.plots.training import members
from jdl.report.predictions import ReportFigure
from jdl.run.storage.files import flatten_config


def page(title: str, body: str) -> str:
    """The whole page; it follows the browser's light or dark setting."""
    return _PAGE.format(style=_CSS, title=escape(title), body=body)


def escape(value: Any) -> str:
    """A value as text, with HTML's special characters escaped."""
    return html.escape(str(value))


def section(title: str, content: str) -> str:
    """A heading with its content."""
    return f"<section><h2>{escape(title)}</h2>\n{content}</section>"


def image(figure: ReportFigure, content: bytes) -> str:
    """A section with a figure, embedded as the PNG file `content`."""
    encoded = base64.b64encode(content).decode()
    # A PNG's header holds its width; the file has twice the resolution of the page.
    width = int.from_bytes(content[16:20], "big") // 2
    caption = f"<p class=caption>{escape(figure.caption)}</p>" if figure.caption else ""
    return section(
        figure.title,
        f'<img alt="{escape(figure.title)}" width="{width}" '
        f'src="data:image/png;base64,{encoded}">{caption}',
    )


def definition_list(values: Mapping[str, Any]) -> str:
    """A table of names and values; nested names are joined with dots."""
    if not values:
        return "<p>none recorded</p>"
    flat = {name: _value_text(value) for name, value in flatten_config(values).items()}
    lines = (f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in flat.items())
    return f"<div class=wide><table class=pairs>{''.join(lines)}</table></div>"


def _value_text(value: Any) -> str:
    """A value as text; a list of equal elements, such as devices, becomes "8 × cpu"."""
    if value is None:
        return "–"
    values = list(map(str, value)) if isinstance(value, list) else [str(value)]
    if len(values) > 1 and len(set(values)) == 1:
        return f"{len(values)} × {values[0]}"
    return ", ".join(values) or "–"


def log_table(rows: Sequence[Row]) -> str:
    """A table of rows of the log, with a column for each metric."""
    names = dict.fromkeys(name for row in rows for name in row if _cell(row[name]) is not None)
    cells = [[_cell(row[name]) or "" if name in row else "" for name in names] for row in rows]
    return table(list(names), cells)


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


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table; `head` names its columns."""
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in lines
    )
    return f"<div class=wide><table><tr>{top}</tr>{body}</table></div>"


def share_bar(seconds: Mapping[str, float]) -> str:
    """Seconds by part as a bar and a table, without parts below 0.05 % of the total.

    >>> "save</td><td>1.0 s</td><td>25 %" in share_bar({"compute": 3.0, "save": 1.0, "data": 0.0})
    True
    """
    whole = sum(seconds.values())
    parts = [(name, spent) for name, spent in seconds.items() if whole > 0 and spent / whole > 5e-4]
    colours = dict(zip(seconds, _PARTS, strict=False))
    bar = "".join(
        f'<i style="width:{100 * spent / whole:.2f}%;background:{colours[name]}" '
        f'title="{escape(name)}"></i>'
        for name, spent in parts
    )
    body = "".join(
        f'<tr><td><i class=dot style="background:{colours[name]}"></i>{escape(name)}</td>'
        f"<td>{spent:.1f} s</td><td>{100 * spent / whole:.0f} %</td></tr>"
        for name, spent in parts
    )
    total = f"<tr><th>total</th><th>{whole:.1f} s</th><th></th></tr>"
    return f"<div class=bar>{bar}</div><div class=wide><table>{body}{total}</table></div>"


def shell_command(arguments: Any) -> str:
    """The recorded arguments of a process as a line for the shell."""
    if not isinstance(arguments, list) or not arguments:
        return ""
    first, *rest = map(str, arguments)
    name = Path(first).name
    if name == "jdl" or first.endswith("jdl/cli/__main__.py"):
        return shlex.join(["jdl", *rest])
    return shlex.join((["python"] if name.endswith(".py") else []) + [first, *rest])


_PARTS = ("#8a8f98", "#d55e00", "#e69f00", "#0072b2", "#56b4e9", "#009e73", "#bfc3c9")
"""Colours of the parts of a bar, which colour-blind readers can tell apart (Okabe and Ito)."""

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
.bar { display: flex; max-width: 720px; height: 18px; border-radius: 5px; overflow: hidden;
  margin-bottom: 10px; }
.dot { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 8px; }
.note { white-space: pre-wrap; }
.good { color: var(--good); }
.bad { color: var(--bad); font-weight: 600; }
img { max-width: 100%; height: auto; background: #ffffff; border: 1px solid var(--line);
  border-radius: 8px; box-sizing: border-box; padding: 8px; }
.columns { display: flex; flex-wrap: wrap; column-gap: 72px; }
.columns section { min-width: 0; }
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
