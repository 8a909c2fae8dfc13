"""Small files: atomic writes, and errors that give the reason."""

import dataclasses
import enum
import errno
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from jdl.core.errors import InputError, error, from_json


def sync_directory(folder: Path) -> None:
    """Make renames and new files in a directory durable, if the system supports it."""
    with suppress(PermissionError):  # Windows opens no directories
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file atomically: a reader or a crash sees all old or all new bytes."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.new")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_directory(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file atomically; raise `InputError` if the system refuses."""
    with explain_write_errors(path):
        write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def write_results(path: Path, value: Any) -> None:
    """Replace a file of results, as `json_text` writes them."""
    with explain_write_errors(path):
        write_bytes(path, (json_text(value, indent=2) + "\n").encode())


def json_text(value: Any, indent: int | None = None) -> str:
    """Results as JSON for any reader: numbers that are not finite, which JSON lacks, become null.

    >>> json_text({"loss": float("nan"), "members": [1.0, float("inf")]})
    '{"loss": null, "members": [1.0, null]}'
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_json(value: Any) -> Any:
    """A configuration as JSON types: dataclasses become dicts, tuples and sets become lists.

    An enum becomes its name. Numbers of other types, such as NumPy's and JAX's, become those of
    Python.

    >>> to_json({"features": (32, 64), "data_dir": Path("data")})
    {'features': [32, 64], 'data_dir': 'data'}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(to_json(key)): to_json(item) for key, item in value.items()}
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, set | frozenset):
        return sorted(map(to_json, value), key=json.dumps)  # its own order changes by process
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Real):
        return int(value) if isinstance(value, Integral) else float(value)
    item = getattr(value, "item", None)
    if getattr(value, "shape", None) == () and callable(item):
        return to_json(item())
    return str(value)


_JSON_BYTES = 2**24


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a run; raise `InputError` for anything else."""
    try:
        if path.exists() and not path.is_file():
            reason = "a directory, a device or a pipe"
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
        expected="a JSON object, as jdl wrote it",
        got=reason,
        fix="restore the file from a backup, or start a new run",
    )


def cannot_write(path: Path, reason: OSError) -> InputError:
    """The error for a file or directory that the system refuses to write."""
    if reason.errno in (errno.ENOSPC, errno.EDQUOT):
        expected, fix = "free space on the disk", "free some space"
    elif reason.errno == errno.ENOENT:
        expected, fix = "an existing directory", "put the directory back, or choose another"
    else:
        expected = "a writable directory"
        fix = "choose another directory, or change its permissions"
    return error(
        f"{path} cannot be written",
        expected=expected,
        got=reason.strerror or str(reason),
        fix=fix,
    )


def removed(path: Path) -> InputError:
    """The error for a run directory that is gone while the run trains."""
    return error(
        f"run directory {path}",
        expected="the directory of this run, until the run ends",
        got="a directory without config.json: that of the run was removed or moved"
        if path.is_dir()
        else "no such directory: it was removed or moved",
        fix="put the run's directory back in its place and resume the run, or start a new run",
    )


def flatten_config(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one dict with dotted names.

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
    """Turn an OSError of the block into an `InputError` that names the path."""
    try:
        yield
    except OSError as bad:
        raise cannot_write(path, bad) from bad
