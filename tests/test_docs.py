"""The pages of the site: their Python runs and prints what they show."""

import contextlib
import importlib.util
import io
import pkgutil
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = sorted(
    page for place in ("index.md", "ideas/*.md", "how-to/*.md") for page in DOCS.glob(place)
)
BLOCK = re.compile(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", re.DOTALL)
NUMBER = re.compile(r"-?\d+(\.\d*)?(e-?\d+)?")


def shape(text: str) -> list[str]:
    """The lines of an output without its numbers, which differ between machines."""
    return [" ".join(NUMBER.sub("0", line).split()) for line in text.strip().splitlines()]


def test_there_are_pages():
    assert {page.parent.name for page in PAGES} == {"docs", "ideas", "how-to"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}  # flax looks up the module of a class
    for code, shown in BLOCK.findall(page.read_text(encoding="utf-8")):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, str(page), "exec"), names)
        if shown:
            assert shape(printed.getvalue()) == shape(shown), code


def test_other_numbers_are_the_same_output_and_other_words_are_not():
    assert shape("loss 0.25\n(4, 10)") == shape("loss 1e-05\n(5, 2)")
    assert shape("loss 0.25") != shape("accuracy 0.25")


def exists(path: str) -> bool:
    """Whether a dotted path leads to something."""
    try:
        pkgutil.resolve_name(path)
    except (AttributeError, ModuleNotFoundError):
        return False
    return True


def test_the_names_that_pages_mention_exist():
    text = "\n".join(page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md"))
    mentioned = set(re.findall(r"`(jdl(?:\.\w+)+)[`(]", text))
    assert len(mentioned) > 50
    assert not [name for name in sorted(mentioned) if not exists(name)]
    assert not exists("jdl.emma")


@pytest.fixture(scope="module")
def hooks():
    """What builds the site, where the extra `docs` is installed."""
    for needed in ("mkdocs", "griffe", "latex2mathml"):
        pytest.importorskip(needed, reason="the extra docs is not installed")
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_public_name_is_in_the_reference_once(hooks):
    names = hooks.entries()
    pages = hooks.grouped(names)
    shown = [entry for page in pages.values() for group in page.values() for entry in group]
    assert sorted(shown) == sorted(names)
    assert (
        hooks.Entry("jdl.ema", "jdl.learn.ema.ema") in pages["reference/learners.md"]["Transforms"]
    )


def test_a_public_name_without_a_page_ends_the_build(hooks):
    from mkdocs.exceptions import PluginError

    new = hooks.Entry("jdl.privacy.account", "jdl.privacy.accountant.account")
    with pytest.raises(PluginError, match=r"no page .*\n  jdl.privacy.account"):
        hooks.grouped([new])
    with pytest.raises(PluginError, match=r"without public names: .*jdl.learn.ema"):
        hooks.grouped([])


def test_a_public_name_without_a_docstring_ends_the_build(hooks, tmp_path):
    import griffe
    from mkdocs.exceptions import PluginError

    (tmp_path / "bare.py").write_text('def a():\n    """A."""\n\ndef b():\n    pass\n')
    package = griffe.load("bare", search_paths=[tmp_path])
    assert hooks.in_source_order({"bare.a": "bare.a"}, package)
    with pytest.raises(PluginError, match=r"without a docstring:\n  bare.b"):
        hooks.in_source_order({"bare.a": "bare.a", "bare.b": "bare.b"}, package)


def test_the_command_line_page_has_every_command_and_flag(hooks):
    from mkdocs.exceptions import PluginError

    from jdl.cli.main import COMMANDS

    notes = hooks.head(DOCS / "reference" / "command-line.md")["flags"]
    page = hooks.command_line(notes)
    assert all(f"## jdl {name}" in page for name in COMMANDS)
    assert "`--run.heartbeat-timeout FLOAT` | `5`" in page
    with pytest.raises(PluginError, match="--topology"):
        hooks.command_line({flag: note for flag, note in notes.items() if flag != "--topology"})
    with pytest.raises(PluginError, match="--gone"):
        hooks.command_line({**notes, "--gone": "Nothing."})
