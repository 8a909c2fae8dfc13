"""`time.json`: time by category and speed, for each session of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jdl.core.errors import from_json
from jdl.core.flops import Flops
from jdl.run.storage.files import write_json
from jdl.run.telemetry.clock import CATEGORIES, TimeBreakdown
from jdl.run.telemetry.recompilation import describe_recompilation

Session = dict[str, Any]

LARGEST_AMOUNT = 1e30
"""Seconds and FLOPs of a session are below this."""

PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H200": 989e12,
    "NVIDIA L4": 121e12,
}
"""Peak FLOP/s of dense bfloat16 matrix products on one device, by the vendor's data sheet (Google
Cloud TPU documentation, NVIDIA). CPUs have no entry."""

MAX_RECOMPILATIONS = 10
"""Most recompilations that `recompilations` describes."""


def session(clock: TimeBreakdown, first: int, last: int, work: Flops | None) -> Session:
    """The record of one session of a run, from step `first` to step `last`."""
    clock.total()
    return {
        "first_step": first,
        "last_step": last,
        "time_seconds": dict(clock.seconds),
        "programs": clock.compiled.total(),
        "recalled": clock.recalled,
        "recompiled": clock.recompiled,
        "flops": None if work is None else work.count,
        "devices": clock.devices,
        "device_kind": jax.devices()[0].device_kind,
    }


def write(path: Path, before: Sequence[Session], now: Session) -> None:
    """Write the sessions of a run; `now` is left out if it took no step."""
    sessions = [*before, now] if now["last_step"] > now["first_step"] else [*before]
    if sessions:
        write_json(path, {"sessions": sessions})


def read(path: Path) -> list[Session]:
    """The sessions of a run, without damaged ones; empty if the file is absent or damaged.

    No run depends on it.
    """
    try:
        found = from_json(path.read_text(encoding="utf-8"))["sessions"] if path.is_file() else []
        return [one for one in found if _is_session(one)]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _is_session(one: Any) -> bool:
    """Whether a record has the types and ranges that `session` writes."""
    if not (isinstance(one, dict) and isinstance(one.get("time_seconds"), dict)):
        return False
    steps, flops = (one.get("first_step"), one.get("last_step")), one.get("flops")
    return (
        all(map(_is_amount, one["time_seconds"].values()))
        and all(type(step) is int and _is_amount(step) for step in steps)
        and _are_recompilations(one.get("recompiled", []))
        and (flops is None or (_is_amount(flops) and _names_devices(one)))
    )


def _is_amount(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < LARGEST_AMOUNT


def _are_recompilations(found: Any) -> bool:
    return isinstance(found, list) and all(
        isinstance(one, dict)
        and isinstance(one.get("program"), str)
        and isinstance(one.get("changed"), list)
        and all(isinstance(leaf, str) for leaf in one["changed"])
        for one in found
    )


def _names_devices(one: Session) -> bool:
    devices = one.get("devices")
    return isinstance(one.get("device_kind"), str) and type(devices) is int and devices > 0


def totals(sessions: Sequence[Session]) -> dict[str, float]:
    """Seconds of each category over all sessions.

    >>> totals([{"time_seconds": {"save": 1.0}}, {"time_seconds": {"save": 2.0}}])["save"]
    3.0
    """
    return {
        name: sum(one["time_seconds"].get(name, 0.0) for one in sessions) for name in CATEGORIES
    }


def summary_line(sessions: Sequence[Session]) -> str:
    """The time in one line: total, share of each category, recompilations and speed.

    >>> summary_line([{"time_seconds": {"compute": 3.0, "compile": 1.0}}])
    '4.0 s: compute 75 %, compile 25 %'
    """
    seconds = totals(sessions)
    total = sum(seconds.values())
    shares = [(n, s / total) for n, s in seconds.items() if total > 0 and s / total >= 0.005]
    shares.sort(key=lambda pair: -pair[1])
    text = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares)
    return "; ".join([f"{total:.1f} s: {text}", *notes(sessions)])


def notes(sessions: Sequence[Session]) -> list[str]:
    """The recompilations of all sessions, and the speed of the last one."""
    lines = []
    count = sum(len(one.get("recompiled", ())) for one in sessions)
    if count:
        lines.append(f"{count} recompilation{'s' * (count > 1)}")
    rate = speed(sessions[-1]) if sessions else None
    if rate is not None:
        last = sessions[-1]
        lines.append(f"{_short(last['flops'])}FLOP a step, {_short(rate)}FLOP/s")
        peak = PEAK_FLOPS.get(last["device_kind"])
        if peak is not None:
            share = 100 * rate / (peak * last["devices"])
            each = f"{last['device_kind']} at {_short(peak)}FLOP/s"
            lines.append(f"{share:.1f} % of {last['devices']} x {each} (model-FLOPs utilisation)")
    return lines


def recompilations(sessions: Sequence[Session]) -> list[str]:
    """One line for each of the first recompilations, with the leaves that changed."""
    found = [one for each in sessions for one in each.get("recompiled", ())]
    return [
        describe_recompilation(one["program"], one["changed"]) for one in found[:MAX_RECOMPILATIONS]
    ]


def speed(one: Mapping[str, Any]) -> float | None:
    """FLOP/s of a session while it trained, including waits for data and the log."""
    seconds = one["time_seconds"]
    spent = sum(seconds.get(name, 0.0) for name in ("compute", "data", "other"))
    if not one.get("flops") or spent <= 0:
        return None
    return one["flops"] * (one["last_step"] - one["first_step"]) / spent


def _short(value: float) -> str:
    """A number with an SI prefix.

    >>> _short(1.97e14), _short(804)
    ('197 T', '804 ')
    """
    for size, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {prefix}"
    return f"{value:.0f} "
