"""Paths as users give them, the order of names, and the files that systems leave behind."""

import os
import re
from pathlib import Path

from jdl.core.errors import error

SYSTEM_NAMES = {
    "$recycle.bin",
    "@eadir",
    "__macosx",
    "__pycache__",
    "desktop.ini",
    "lost+found",
    "system volume information",
    "thumbs.db",
}
"""Names, in lower case, of files and folders that operating systems and tools write."""


def user_path(path: str | os.PathLike[str], name: str | None = None) -> Path:
    """A path that a user gave, with `~` replaced by the home directory.

    Raises `InputError`, about the argument `name`, for what is no path, and if there is no home
    directory to replace `~` by.

    >>> user_path("data/mnist").parts
    ('data', 'mnist')
    """
    text = os.fspath(path) if isinstance(path, str | bytes | os.PathLike) else None
    if not isinstance(text, str) or not text or "\0" in text or not _can_be_encoded(text):
        held = getattr(path, "name", None)
        if isinstance(text, bytes):
            fix = f"pass {os.fsdecode(text)!r}"
        elif isinstance(held, str):  # tempfile.TemporaryDirectory, and open files
            fix = f"pass its name: {held!r}"
        else:
            fix = 'pass a path, such as "runs/1"' if name == "run_dir" else "pass a path"
        expected = "the path of a file or directory"
        raise error(name or "path", expected=expected, got=repr(path)[:80], fix=fix)
    try:
        return Path(text).expanduser()
    except RuntimeError as reason:
        raise error(
            f"path {path}",
            expected="a path, or a home directory for ~",
            got=str(reason),
            fix="write the path without ~, or set HOME",
        ) from None


def _can_be_encoded(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def is_system_file(path: Path) -> bool:
    """Whether a relative path is hidden or written by the system, or lies in such a folder.

    >>> [is_system_file(Path(name)) for name in ("cat/.DS_Store", "__MACOSX/0.png", "cat/0.png")]
    [True, True, False]
    """
    return any(part[0] == "." or part.lower() in SYSTEM_NAMES for part in path.parts)


def natural_key(name: str) -> tuple[list[str | int], str]:
    """A sort key that orders the numbers in names by value.

    >>> sorted(["10", "2", "1", "b10", "b9"], key=natural_key)
    ['1', '2', '10', 'b9', 'b10']
    """
    parts = re.split(r"(\d+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name
