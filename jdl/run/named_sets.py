"""One validation set, or several by name."""

from collections.abc import Mapping
from typing import Any

from jdl.core.errors import error

Arrays = Mapping[str, Any]


def sets_of(valid: Any) -> dict[str, Any]:
    """The validation sets by name; a single one has the name "", and None is no set.

    >>> one = {"x": [1.0, 2.0]}
    >>> list(sets_of(one)), list(sets_of({"clean": one, "noisy": one})), sets_of(None)
    ([''], ['clean', 'noisy'], {})
    """
    if valid is None:
        return {}
    return dict(valid) if has_names(valid) else {"": valid}


def has_names(valid: Any) -> bool:
    """Whether `valid` is a dict of dicts: several sets by name."""
    is_dict = isinstance(valid, Mapping) and len(valid) > 0
    return is_dict and all(isinstance(part, Mapping) for part in valid.values())


def check_names(valid: Any) -> None:
    """Raise `InputError` unless the names of several sets can be part of a metric's name."""
    for name in sets_of(valid) if has_names(valid) else ():
        if not isinstance(name, str) or not name or "/" in name:
            raise error(
                "valid: name of a set",
                expected="text without a slash, as metrics are called NAME/loss",
                got=repr(name),
                fix='choose a short name, such as valid={"clean": ..., "noisy": ...}',
            )


def check_rule(rule: str | None, patience: int | None, valid: Any, argument: str = "best") -> None:
    """Raise `InputError` unless a rule such as "min loss" says which of several sets it means."""
    if not has_names(valid) or not (rule or patience):
        return
    names = list(sets_of(valid))
    sign, _, metric = (rule or "min loss").partition(" ")
    name, slash, _ = metric.partition("/")
    if not (slash and name in names):
        raise error(
            argument,
            expected=f"a metric of one of the sets {', '.join(names)}",
            got=repr(rule) if rule else f"none, with patience {patience}",
            fix=f'say which set decides: "{sign} {names[0]}/{metric}"',
        )


def join(name: str, metric: str) -> str:
    """The name of a metric of one set: "clean/loss", or "loss" if there is only one set.

    >>> join("clean", "loss"), join("", "loss")
    ('clean/loss', 'loss')
    """
    return f"{name}/{metric}" if name else metric


def title(name: str) -> str:
    """What messages call a set.

    >>> title("clean"), title("")
    ('validation data "clean"', 'validation data')
    """
    return f'validation data "{name}"' if name else "validation data"
