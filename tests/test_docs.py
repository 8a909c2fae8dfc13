"""The pages of the site: their Python runs and prints what they show."""

import contextlib
import io
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
