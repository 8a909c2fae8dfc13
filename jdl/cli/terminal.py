"""Text for terminals that cannot show every character, such as those of cp1252 or latin-1."""

import codecs
import io
import sys

ASCII_FORMS = {"±": "+/-", "–": "-", "×": "x", "−": "-"}
"""What replaces the characters that the program itself prints."""


def allow_any_text() -> None:
    """Let standard output and error replace characters of another encoding instead of raising."""
    codecs.register_error("jdl.ascii", _to_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="jdl.ascii")


def _to_ascii(failed: UnicodeError) -> tuple[str, int]:
    if not isinstance(failed, UnicodeEncodeError):
        raise failed
    text = failed.object[failed.start : failed.end]
    plain = (ASCII_FORMS.get(c) or c.encode("ascii", "backslashreplace").decode() for c in text)
    return "".join(plain), failed.end
