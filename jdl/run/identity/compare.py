"""Two fingerprints compared: what differs, what may differ, and what cannot be compared."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from jdl.core.errors import error

SHOWN_CHANGES = 4
"""Pairs of constants, or of leaves, that a message shows."""


@dataclass
class Comparison:
    """How a run differs from the one in its directory."""

    differences: list[str] = field(default_factory=list)
    """What another run has: a resume is refused."""
    notices: list[str] = field(default_factory=list)
    """What could not be compared."""
    schedule: list[Any] | None = None
    """The old constants of the step's schedules, where they changed with the number of steps."""


def compare_fingerprints(old: Mapping[str, Any], new: Mapping[str, Any]) -> Comparison:
    """Compare two records of `Fingerprint`.

    Programs are compared at equal versions, and a schedule may follow a larger number of steps:
    its counts of steps may have grown with it. No other constant may change, so that a learning
    rate cannot change together with `epochs`.
    """
    found = Comparison()
    try:
        _compare_data(old["data"], new["data"], found)
        leaves = _changed(old["state"], new["state"], {**new["state"], **old["state"]})
        if leaves:  # and with them the program
            found.differences.append(f"state: {_listed(leaves)}")
            return found
        changed = _changed(old["versions"], new["versions"], old["versions"])
        if changed:
            found.notices.append(f"the program was not compared: {'; '.join(changed)}")
        elif not (old["program"] and new["program"]):
            found.notices.append("the program was not compared: jax_disable_jit is on")
        else:
            for name in ("init", "step"):
                _compare_programs(name, old, new, found)
    except (KeyError, TypeError, ValueError, AttributeError) as bad:
        raise error(
            "fingerprint.json",
            expected="the fingerprint that jdl wrote",
            got=f"another form ({bad!r})",
            fix="restore the file from a backup; without the file the run resumes unchecked",
        ) from bad
    return found


def _compare_data(old: Mapping[str, Any], new: Mapping[str, Any], found: Comparison) -> None:
    for name in dict.fromkeys([*old, *new]):
        was, now = old.get(name), new.get(name)
        if was is None or now is None:
            found.differences.append(f"data: {name} is {_where(was)}")
        elif was["hash of"] != now["hash of"] or now["hash"] is None:
            kinds = dict.fromkeys([was["hash of"], now["hash of"]])
            found.notices.append(f"data: {name} was not compared (hash of {', '.join(kinds)})")
        elif was != now:
            shapes = _changed(was, now, ("dtype", "shape", "examples"))
            detail = "; ".join(shapes) or f"another hash of {now['hash of']}"
            found.differences.append(f"data: {name} differs ({detail})")


def _compare_programs(
    name: str, old: Mapping[str, Any], new: Mapping[str, Any], found: Comparison
) -> None:
    was, now = old["program"][name], new["program"][name]
    sizes = [[len(side["constants"]), len(side["schedule"])] for side in (was, now)]
    if was["structure"] != now["structure"] or sizes[0] != sizes[1]:
        found.differences.append(f"program: {name} computes something else")
        return
    changed = [*_pairs(was["constants"], now["constants"])]
    schedule = [*_pairs(was["schedule"], now["schedule"])]
    before, after = old["steps"], new["steps"]
    if after > before and all(follows_steps(*pair, before, after) for pair in schedule):
        if schedule and name == "step" and not changed:
            found.schedule = was["schedule"]
    else:
        changed += schedule
    if changed:
        shown = [f"{_shown(a)} in the run, {_shown(b)} now" for a, b in changed]
        found.differences.append(f"program: {name} has other constants ({_listed(shown)})")


def follows_steps(was: Any, now: Any, before: int, after: int) -> bool:
    """Whether a constant may be a count of steps of a run that grew from `before` to `after`.

    Such a count grew in proportion (a decay over all steps, a warm-up over a tenth of them), or by
    as many steps as the run did (what is left after a warm-up); rounded to whole steps.

    >>> follows_steps(16.0, 32.0, 16, 32), follows_steps(13, 29, 16, 32)
    (True, True)
    >>> follows_steps(0.1, 0.2, 16, 32), follows_steps(16.0, 24.0, 16, 32)
    (False, False)
    """
    if isinstance(was, list) and isinstance(now, list):
        return len(was) == len(now) and all(
            follows_steps(a, b, before, after) for a, b in zip(was, now, strict=True)
        )
    return was == now or _grew(was, now, before, after)


def _grew(was: Any, now: Any, before: int, after: int) -> bool:
    if not all(type(x) in (int, float) and float(x).is_integer() for x in (was, now)):
        return False
    ratio = after / before
    rounding = 1 + ratio
    return abs(now - was * ratio) <= rounding or abs(now - was - (after - before)) <= rounding


def _pairs(was: list[Any], now: list[Any]) -> Iterator[tuple[Any, Any]]:
    return ((a, b) for a, b in zip(was, now, strict=True) if repr(a) != repr(b))


def _changed(was: Mapping[str, Any], now: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    return [
        f"{name}: {was.get(name, 'absent')} in the run, {now.get(name, 'absent')} now"
        for name in names
        if was.get(name) != now.get(name)
    ]


def _listed(changes: list[str]) -> str:
    changes = [*dict.fromkeys(changes)]
    more = [f"and {len(changes) - SHOWN_CHANGES} more"] if len(changes) > SHOWN_CHANGES else []
    return "; ".join([*changes[:SHOWN_CHANGES], *more])


def _where(was: Any) -> str:
    return "absent in the run, given now" if was is None else "given in the run, absent now"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "other arrays" if str(value).startswith("sha256") else str(value)[:60]
