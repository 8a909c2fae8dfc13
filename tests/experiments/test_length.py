"""An experiment is read in one sitting."""

import ast

import pytest

from tests.experiments.test_experiments import FILES

LIMIT = 80
WHOLE = 100


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.stem != "by_hand"], ids=lambda path: path.stem
)
def test_at_most_80_lines_after_the_head(path):
    source = path.read_text()
    whole, head = len(source.splitlines()), ast.parse(source).body[0].end_lineno
    assert whole - head <= LIMIT and whole <= WHOLE, f"{whole - head} lines after the head"
    assert ";" not in {token.strip() for token in source.split()}, "joined statements"
