"""Settings from JSON, by the declared types of a dataclass."""

import collections.abc
import dataclasses
import datetime
import enum
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jdl.core.errors import InputError, error
from jdl.run.storage.files import to_json

RESERVED_NAMES = ("run", "fit", "sweep")
"""Names that config.json uses itself; no field can have them."""

_FROM_TEXT: dict[Any, Any] = {
    Path: Path,
    complex: complex,
    datetime.date: datetime.date.fromisoformat,
    datetime.datetime: datetime.datetime.fromisoformat,
    datetime.time: datetime.time.fromisoformat,
}
_PLAIN = {
    int: (int,),
    float: (int, float),
    bool: (bool,),
    str: (str,),
    types.NoneType: (type(None),),
}
_LISTS = {list: list, set: set, frozenset: frozenset, collections.abc.Set: frozenset}


def check_settings(config: Any) -> None:
    """Raise `InputError`, naming the field, for a setting that config.json would not give back."""
    for field in dataclasses.fields(config):
        if field.name in RESERVED_NAMES:
            raise error(
                f"Config.{field.name}",
                expected=f"a field with another name than {', '.join(RESERVED_NAMES)}",
                got=field.name,
                fix="rename the field: config.json holds something else under this name",
            )
    try:
        restored = config_from_json(type(config), to_json(config))
    except InputError as bad:
        raise error(
            "Config",
            expected="settings that config.json can restore",
            got=str(bad).replace("\n", "; "),
            fix="correct the field's type, or use numbers, text, enums, paths, tuples, lists, "
            "sets, dicts or dataclasses of them",
        ) from bad
    for field in dataclasses.fields(config):
        before, after = getattr(config, field.name), getattr(restored, field.name)
        if not _equal(before, after):
            raise error(
                f"Config.{field.name}",
                expected="a setting that comes back from config.json with the same value",
                got=f"{before!r}"[:80] + f", which comes back as {after!r}"[:100],
                fix="declare the type that the value has, such as tuple[int, ...] for a tuple",
            )


def config_from_json(config: type, values: Mapping[str, Any]) -> Any:
    """A dataclass from the JSON that `to_json` made of it, each field by its type.

    Names that are no fields are left out. Raises `InputError` for a value of another type.
    """
    hints = typing.get_type_hints(config)
    fields = {}
    for field in dataclasses.fields(config):
        if field.init and field.name in values:
            hint, value = hints[field.name], values[field.name]
            try:
                fields[field.name] = _restore(hint, value)
            except (ValueError, TypeError, KeyError) as bad:
                raise invalid_config(
                    field.name, getattr(hint, "__name__", str(hint)), value
                ) from bad
    try:
        return config(**fields)
    except TypeError as bad:
        raise invalid_config(config.__name__, "a value for every field", str(bad)) from bad


def grid_from_json(config: type, grid: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The values of each field of a sweep."""
    hints = typing.get_type_hints(config)
    try:
        return {
            name: [_restore(hints[name], value) for value in values]
            for name, values in grid.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError) as bad:
        raise invalid_config("sweep", "lists of values by field", grid) from bad


def invalid_config(name: str, expected: str, got: Any) -> InputError:
    """The error for a value that is not of its field's type."""
    return error(
        f"config.json, {name}",
        expected=expected,
        got=repr(got)[:80],
        fix="restore the file from a backup, or start a new run",
    )


def _restore(hint: Any, value: Any) -> Any:
    """A value of type `hint`; raises `ValueError`, `TypeError` or `KeyError` if it is none."""
    origin, parts = typing.get_origin(hint) or hint, typing.get_args(hint)
    if isinstance(hint, typing.NewType):
        return _restore(hint.__supertype__, value)
    if origin is typing.Literal:
        same = [part for part in parts if _as_json(part) == (type(value), value)]
        return same[0] if same else _refuse(value)
    if origin in (typing.Union, types.UnionType):
        return _restore_union(parts, value)
    if origin in _PLAIN:
        fits = isinstance(value, _PLAIN[origin]) and (origin is bool or type(value) is not bool)
        return value if fits else _refuse(value)
    if origin in _FROM_TEXT:
        return _FROM_TEXT[origin](value if isinstance(value, str) else _refuse(value))
    if isinstance(origin, type) and issubclass(origin, enum.Enum):
        return origin[value]
    if isinstance(origin, type) and issubclass(origin, np.generic):
        return origin(value)
    if dataclasses.is_dataclass(origin):
        return _restore_nested(typing.cast(type, origin), value)
    if isinstance(origin, type) and issubclass(origin, collections.abc.Mapping):
        return _restore_dict(parts, value)
    if origin in _LISTS:
        items = value if isinstance(value, list) else _refuse(value)
        return _LISTS[origin](_restore(parts[0] if parts else Any, item) for item in items)
    if origin in (tuple, collections.abc.Sequence):
        return _restore_tuple(origin, parts, value if isinstance(value, list) else _refuse(value))
    return tuple(value) if isinstance(value, list) else value


def _as_json(value: Any) -> tuple[type, Any]:
    value = to_json(value)
    return type(value), value


def _restore_union(parts: tuple[Any, ...], value: Any) -> Any:
    for part in parts:
        try:
            return _restore(part, value)
        except (InputError, ValueError, TypeError, KeyError):
            continue
    return _refuse(value)


def _restore_tuple(origin: Any, parts: tuple[Any, ...], value: list[Any]) -> tuple[Any, ...]:
    if origin is not tuple or parts[1:] == (...,):
        parts = parts[:1] * len(value)
    elif not parts and value:
        parts = (Any,) * len(value)
    return tuple(_restore(part, item) for part, item in zip(parts, value, strict=True))


def _restore_dict(parts: tuple[Any, ...], value: Any) -> dict[Any, Any]:
    """A dict; JSON has its keys as text."""
    if not isinstance(value, dict):
        _refuse(value)
    key, item = parts or (Any, Any)
    return {_restore_key(key, name): _restore(item, inner) for name, inner in value.items()}


def _restore_key(hint: Any, name: str) -> Any:
    if hint in (int, float):
        return hint(name)
    return {"True": True, "False": False}[name] if hint is bool else _restore(hint, name)


def _restore_nested(config: type, value: Any) -> Any:
    names = {field.name for field in dataclasses.fields(config)}
    if not isinstance(value, dict) or not set(value) <= names:
        _refuse(value)
    return config_from_json(config, value)


def _refuse(value: Any) -> Any:
    raise ValueError(f"{value!r} is of another type")


def _equal(before: Any, after: Any) -> bool:
    """Whether two values are equal, NaN included; False for what cannot be compared."""
    same_kind = type(before) is type(after) or (
        isinstance(before, int | float | np.generic) and isinstance(after, int | float)
    )
    try:
        return same_kind and (bool(before == after) or repr(before) == repr(after))
    except (ValueError, TypeError):
        return False
