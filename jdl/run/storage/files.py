"""Small files, written whole or not at all, and read with the reason where they cannot be."""

import dataclasses
import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jdl.core.errors import InputError, error, from_json


def sync_directory(folder: Path) -> None:
    """Make renames and new names in a folder durable (where the system can)."""
    with suppress(PermissionError):  # Windows opens no directories
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file at once: a reader, or a crash, sees the old content or the new one whole."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.new")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_directory(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file at once; `InputError` where the system refuses."""
    with explain_write_errors(path):
        write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def to_json(value: Any) -> Any:
    """A configuration as JSON can hold it: dataclasses and mappings become dicts, tuples lists.

    >>> to_json({"features": (32, 64), "data_dir": Path("data")})
    {'features': [32, 64], 'data_dir': 'data'}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


_JSON_BYTES = 2**24


def read_json(path: Path) -> dict[str, Any]:
    """The object in one of the small files of a run; `InputError` for anything else."""
    try:
        if path.exists() and not path.is_file():
            reason = "a folder, a device or a pipe"
        elif path.stat().st_size > _JSON_BYTES:
            reason = f"more than {_JSON_BYTES} bytes"
        else:
            value = from_json(path.read_text(encoding="utf-8"))
            if isinstance(value, dict):
                return value
            reason = f"a {type(value).__name__}"
    except (OSError, ValueError) as bad:
        reason = getattr(bad, "strerror", None) or str(bad)
    raise error(
        f"{path}",
        expected="a JSON object that jdl wrote",
        got=reason,
        fix="restore the file from a backup, or start a new run",
    )


def cannot_write(path: Path, reason: OSError) -> InputError:
    """The error for a file or folder that the system refuses to write."""
    full = reason.errno in (errno.ENOSPC, errno.EDQUOT)
    return error(
        f"{path} cannot be written",
        expected="room on the disk" if full else "a folder that can be written",
        got=reason.strerror or str(reason),
        fix="free some room" if full else "choose another folder, or change its permissions",
    )


def flatten_config(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted name.

    >>> flatten_config({"run": {"seed": 0}})
    {'run.seed': 0}
    """
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten_config(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


@contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """What the system refuses to write is said plainly."""
    try:
        yield
    except OSError as bad:
        raise cannot_write(path, bad) from bad
