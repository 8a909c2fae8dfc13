"""The modules of its own that an experiment imports: where they are, and what they hold."""

import ast
import hashlib
from pathlib import Path


def local_modules(path: Path, folder: Path | None = None) -> dict[str, Path]:
    """The modules next to a file that it imports, and that these import, by name.

    `folder` is where they are, if that is not the folder of the file. A package stands for its
    `__init__.py`.
    """
    folder = path.resolve().parent if folder is None else folder
    found: dict[str, Path] = {}
    waiting = [path]
    while waiting:
        for name in _imported_names(waiting.pop()) - found.keys():
            for file in (folder / f"{name}.py", folder / name / "__init__.py"):
                if file.is_file() and file.resolve() != path.resolve():
                    found[name] = file
                    waiting.append(file)
                    break
    return found


def module_digests(path: Path, folder: Path | None = None) -> dict[str, str]:
    """The SHA-256 of each local module that a file imports, of all files of a package, by name."""
    digests = {}
    for name, file in sorted(local_modules(path, folder).items()):
        files = sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]
        content = b"\0".join(each.read_bytes() for each in files)
        digests[name] = hashlib.sha256(content).hexdigest()
    return digests


def _imported_names(path: Path) -> set[str]:
    """The first parts of the names that a file imports, wherever it does."""
    try:
        nodes = [*ast.walk(ast.parse(path.read_bytes()))]
    except (OSError, SyntaxError, ValueError):  # executing it will tell
        return set()
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names} - {"jdl"}
