"""Changes to an experiment that could make it fit, one after the other, the mildest first."""

import dataclasses
import shlex
from collections.abc import Iterator
from typing import Any, NamedTuple

from jdl.parallel.rules import parse

REMATS = ("none", "dots", "full")
MODEL_AXIS_DEVICES = 8
"""Devices over which the tensor rule is tried to split the layers, where no axis does so yet."""


class MemorySetup(NamedTuple):
    """What of a run decides about memory: the experiment's fields, the mesh and the rule."""

    config: Any
    axes: dict[str, int] | None
    rule: str
    words: tuple[str, ...] = ()
    """The flags that make it out of the first one."""

    def flags(self) -> str:
        """The flags as they are typed."""
        return shlex.join(self.words)


def single_changes(first: MemorySetup, devices: int) -> Iterator[MemorySetup]:
    """Setups that differ from the first by one kind of change.

    In this order, each kind from its mildest form on: the rule, what is kept for the backward
    pass, bfloat16, parts of the batch one after the other, and a smaller batch, which is another
    training run. Only fields that the experiment has are changed.
    """
    for kind in (_rules(first, devices), *(_field(first, *c) for c in _changes(first))):
        yield from kind


def combined_change(first: MemorySetup, devices: int) -> MemorySetup:
    """The strongest form of every change that leaves the mathematics of a step as it is."""
    setup = next(_rules(first, devices), first)
    for name, values in _changes(first):
        if name != "batch_size":
            setup = next(_field(setup, name, values[-1:]), setup)
    return setup


def _changes(first: MemorySetup) -> list[tuple[str, list[Any]]]:
    """Fields of the experiment, each with the values to try."""
    have = {
        field.name: getattr(first.config, field.name) for field in dataclasses.fields(first.config)
    }
    split = (first.axes or {}).get("data", 1)
    found: list[tuple[str, list[Any]]] = []
    if have.get("remat") in REMATS:
        found.append(("remat", list(REMATS[REMATS.index(have["remat"]) + 1 :])))
    if have.get("precision") == "float32":
        found.append(("precision", ["bfloat16"]))
    batch = have.get("batch_size")
    if isinstance(batch, int):
        each = batch // split
        parts = [2**n for n in range(1, 7) if each % 2**n == 0]
        now = have.get("accumulate")
        if isinstance(now, int):
            found.append(("accumulate", [n for n in parts if n > now]))
        found.append(("batch_size", [batch // n for n in parts]))
    return found


def _field(first: MemorySetup, name: str, values: list[Any]) -> Iterator[MemorySetup]:
    for value in values:
        config = dataclasses.replace(first.config, **{name: value})
        words = (*first.words, f"--{name.replace('_', '-')}", str(value))
        yield first._replace(config=config, words=words)


def _rules(first: MemorySetup, devices: int) -> Iterator[MemorySetup]:
    """The whole state split over the devices, then the transformer's layers too."""
    if "fsdp" in first.rule or devices == 1:
        axes = None
    else:
        axes = first.axes or {"data": devices}
        yield _placed(first, axes, "fsdp")
    if "tensor" in first.rule or devices % MODEL_AXIS_DEVICES or first.axes is None:
        return
    if "model" not in first.axes and first.axes.get("data", 0) % MODEL_AXIS_DEVICES == 0:
        axes = first.axes | {
            "data": first.axes["data"] // MODEL_AXIS_DEVICES,
            "model": MODEL_AXIS_DEVICES,
        }
    elif "model" in first.axes:
        axes = first.axes
    if axes is not None and "model" in axes:
        yield _placed(first, axes, "tensor+fsdp")


def _placed(first: MemorySetup, axes: dict[str, int], rule: str) -> MemorySetup:
    parse(rule)
    words: tuple[str, ...] = ("--run.sharding", rule)
    if axes != first.axes:
        words = ("--run.mesh", ",".join(f"{k}={v}" for k, v in axes.items()), *words)
    return first._replace(axes=axes, rule=rule, words=words)
