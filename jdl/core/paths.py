"""Paths as users give them, the order of names, and the files that systems leave behind."""

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


def user_path(path: str | Path) -> Path:
    """A path that a user gave, with `~` replaced by the home directory.

    Raises `InputError` if there is no home directory to replace it by.

    >>> user_path("data/mnist").parts
    ('data', 'mnist')
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as reason:
        raise error(
            f"path {path}",
            expected="a path, or a home directory for ~",
            got=str(reason),
            fix="write the path without ~, or set HOME",
        ) from None


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
