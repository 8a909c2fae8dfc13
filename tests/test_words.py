"""The words of the package: names of constants, and phrases that plain English does without."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

ADJECTIVES = re.compile(
    r"SMALL|FEW|LARGE|CLOSE|LONG|SHORT|SLOW|FAST|ONCE|TOLD|VALID|UNKNOWN|DONE|FULL|EMPTY|[A-Z]+(ED|ING)"
)
"""Names that say how something is, not what."""

PHRASES = re.compile(
    r"\b(of which|such as it is|looks? at|go(es)? on with|beside|(is|are) told|pictures|mend"
    r"|in place of|what is right|as it were|is to be|makes of)\b",
    re.IGNORECASE,
)

PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "jdl").rglob("*.py")]


def constants(source: str) -> list[str]:
    """Public names in capitals that a module defines."""
    found = []
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        found += [
            t.id for t in targets if isinstance(t, ast.Name) and t.id.isupper() and t.id[0] != "_"
        ]
    return found


def test_no_constant_is_one_adjective():
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / "jdl").rglob("*.py")
        for name in constants(path.read_text())
        if ADJECTIVES.fullmatch(name)
    ]
    assert wrong == []


def test_a_bad_constant_is_found():
    [name] = constants("SMALL = 3\nlower = 2\n")
    assert ADJECTIVES.fullmatch(name) and not ADJECTIVES.fullmatch("PACK_BELOW_ELEMENTS")


def test_plain_english():
    found = [
        f"{path.relative_to(ROOT)}, line {number}: {line.strip()}"
        for path in PAGES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if PHRASES.search(line)
    ]
    assert found == []


def test_a_translated_phrase_is_found():
    assert PHRASES.search("Beside the loss it reports accuracy, of which the mean counts.")
