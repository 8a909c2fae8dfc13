"""What mkdocs does not write by itself: the navigation, the reference, the command line, maths.

A page is one file. Its place is its folder (`SECTIONS`) and the number `order` in its head; a page
of the reference lists in `names` the modules whose public names it shows.
"""

import ast
import contextlib
import dataclasses
import importlib
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import griffe
from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.utils.meta import get_data

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SECTIONS = {
    "Start": "index.md",
    "Ideas": "ideas",
    "How-to": "how-to",
    "Mistakes": "mistakes.md",
    "Scale": "scale",
    "Reference": "reference",
}
"""The tabs of the site: a page each, or a folder of pages."""

DOCS = ROOT / "docs"


class Entry(NamedTuple):
    """A public name, and where it is defined."""

    path: str  # "jdl.ema"
    home: str  # "jdl.learn.ema.ema"


def head(file: Path) -> dict[str, Any]:
    """The fields at the head of a page."""
    return get_data(file.read_text(encoding="utf-8"))[1]


def on_config(config: Any) -> Any:
    """Build the navigation from the folders."""
    config.nav = [{title: _nav(DOCS / place)} for title, place in SECTIONS.items()]
    return config


def _nav(place: Path) -> Any:
    if place.is_file():
        return place.relative_to(DOCS).as_posix()
    pages = sorted(place.glob("*.md"), key=lambda file: (head(file).get("order", 50), file.name))
    return [page.relative_to(DOCS).as_posix() for page in pages]


def entries() -> list[Entry]:
    """The public names of jdl with their homes, in the order of their definition."""
    from tests.support.public_names import listed, public_names

    found = {name.path: _home(name.path, name.value) for name in public_names()}
    for name in listed():
        if not callable(name.value) and not isinstance(name.value, (str, type(ast))):
            found[name.path] = _home(name.path, name.value)
    return in_source_order(found, griffe.load("jdl", search_paths=[ROOT]))


def in_source_order(found: dict[str, str], package: Any) -> list[Entry]:
    """The names in the order of their definition; each must have a docstring."""
    lines, missing = {}, []
    for path, home in found.items():
        obj = package[home.removeprefix(f"{package.name}.")]
        lines[path] = (home.rpartition(".")[0], obj.lineno)
        if not obj.has_docstring:
            missing.append(f"{path} ({home})")
    if missing:
        raise PluginError("public names without a docstring:\n  " + "\n  ".join(missing))
    return [Entry(path, found[path]) for path in sorted(found, key=lines.__getitem__)]


def _home(path: str, value: Any) -> str:
    from jdl.core.lazy import checked_imports

    if hasattr(value, "__qualname__") and str(value.__module__).startswith("jdl."):
        return f"{value.__module__}.{value.__qualname__}"
    package, _, name = path.rpartition(".")
    module = importlib.import_module(package)
    table = {
        short: f"{home}.{original}" for home, original, short in checked_imports(module.__file__)
    }
    return table.get(name, path)


def claims() -> Iterator[tuple[str, str, str]]:
    """What the pages of the reference show: page, heading, module or name."""
    for file in sorted((DOCS / "reference").glob("*.md")):
        for heading, prefixes in head(file).get("names", {}).items():
            for prefix in prefixes:
                yield file.relative_to(DOCS).as_posix(), heading, prefix


def grouped(names: list[Entry]) -> dict[str, dict[str, list[Entry]]]:
    """Page -> heading -> names. The longest prefix of a name's home or path wins."""
    headings: dict[str, tuple[str, str]] = {}
    for page, heading, prefix in claims():
        if prefix in headings:
            raise PluginError(f"{prefix} is listed on {page} and on {headings[prefix][0]}")
        headings[prefix] = (page, heading)
    members: dict[str, list[Entry]] = {prefix: [] for prefix in headings}
    unclaimed = []
    for entry in names:
        fits = [p for p in headings for name in entry if f"{name}.".startswith(f"{p}.")]
        if fits:
            members[max(fits, key=len)].append(entry)
        else:
            unclaimed.append(f"{entry.path} ({entry.home})")
    if unclaimed:
        raise PluginError("no page of docs/reference shows:\n  " + "\n  ".join(unclaimed))
    if stale := [prefix for prefix, entries in members.items() if not entries]:
        raise PluginError(f"docs/reference lists modules without public names: {', '.join(stale)}")
    groups: dict[str, dict[str, list[Entry]]] = {}
    for prefix, (page, heading) in headings.items():
        groups.setdefault(page, {}).setdefault(heading, []).extend(members[prefix])
    return groups


_state: dict[str, Any] = {}


def on_pre_build(config: Any) -> None:
    """Find the public names; a name without docstring or page ends the build."""
    names = entries()
    _state["groups"] = grouped(names)
    _state["paths"] = {entry.path for entry in names}


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Append what a page asks for at its head."""
    for heading, names in _state["groups"].get(page.file.src_uri, {}).items():
        listed = "\n".join(_directive(entry) for entry in names)
        markdown += f"\n\n## {heading}\n\n{listed}"
    if "flags" in page.meta:
        markdown += "\n\n" + command_line(page.meta["flags"])
    return markdown


def _directive(entry: Entry) -> str:
    return (
        f"[](){{#{entry.path}}}\n\n::: {entry.home}\n    options:\n      heading: {entry.path}\n"
        f"      toc_label: {entry.path.removeprefix('jdl.')}\n"
    )


MATHS = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.S)
CODE = re.compile(
    r"(<pre.*?</pre>|<a .*?</a>|<h\d.*?</h\d>)|<code>(jdl(?:\.\w+)+)(\(\))?</code>", re.S
)


def on_page_content(html: str, **_: Any) -> str:
    """Turn LaTeX into MathML, which browsers draw without a script, and names into links."""

    def maths(match: re.Match[str]) -> str:
        text = match[3].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        return convert(text, display="inline" if match[2] == "(" else "block")

    def link(match: re.Match[str]) -> str:
        if match[1] or match[2] not in _state["paths"]:
            return match[0]
        return f'<autoref identifier="{match[2]}">{match[0]}</autoref>'

    return CODE.sub(link, MATHS.sub(maths, html))


def command_line(notes: dict[str, str]) -> str:
    """Every command with its usage and flags, from the table of commands and the parsers."""
    from jdl.cli.main import COMMANDS

    parts, seen = [], set()
    for name, line in COMMANDS.items():
        usage, _, what = line.partition(": ")
        parts.append(
            f"## jdl {name}\n\n{what[:1].upper()}{what[1:]}.\n\n```\njdl {name} {usage}\n```\n"
        )
        flags = own_flags(name)
        seen |= set(flags)
        if missing := [flag for flag in flags if flag not in notes]:
            raise PluginError(f"docs/reference/command-line.md describes no {', '.join(missing)}")
        if flags:
            rows = [
                f"| `{flag}{'' if is_switch else ' VALUE'}` | {notes[flag]} |"
                for flag, is_switch in flags.items()
            ]
            parts.append("| flag | |\n|---|---|\n" + "\n".join(rows) + "\n")
        if "FILE.py" in usage:
            parts.append(
                "Takes the experiment's fields and the [options of a run](#options-of-a-run).\n"
            )
    if stale := set(notes) - seen:
        raise PluginError(
            f"docs/reference/command-line.md describes flags that no command has: {stale}"
        )
    return "\n".join([*parts, "## Options of a run\n", run_flags()])


def own_flags(command: str) -> dict[str, bool]:
    """The flags that a command takes besides an experiment's: name, and whether it is a switch."""
    module = importlib.import_module(f"jdl.cli.{command.replace('-', '_')}")
    for node in ast.walk(ast.parse(Path(module.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "flags.parse_simple",
            "flags.split_flags",
        ):
            known = eval(ast.unparse(node.args[1]), vars(module))
            return {flag: default is False for flag, default in known.items()}
    return {}


def run_flags() -> str:
    """A table of the options `--run.*`; the parser's own help must list each of them."""
    from jdl.cli.flags import RunFlags, parse

    @dataclasses.dataclass
    class Config:
        """An experiment."""

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        parse(Config, ["--help"], "jdl train FILE.py")
    texts = griffe.load("jdl.cli.flags", search_paths=[ROOT])["RunFlags"].members
    rows = []
    for field in dataclasses.fields(RunFlags):
        name, kind = field.name.replace("_", "-"), str(texts[field.name].annotation)
        flags = [f"--run.{name}", *([f"--run.no-{name}"] if kind == "bool" else [])]
        if missing := [flag for flag in flags if flag not in printed.getvalue()]:
            raise PluginError(f"jdl train --help does not list {missing}")
        if kind != "bool":
            choices = re.findall(r"'(\w+)'|\"(\w+)\"", kind) if "Literal" in kind else []
            word = "/".join("".join(each) for each in choices) or kind.split(" ")[0].upper()
            flags[0] += f" {word}"
        default = "" if field.default is None else f"`{field.default}`"
        text = " ".join(texts[field.name].docstring.value.split()).replace("|", "\\|")
        rows.append(f"| {' '.join(f'`{flag}`' for flag in flags)} | {default} | {text} |")
    return "| option | default | |\n|---|---|---|\n" + "\n".join(rows)
