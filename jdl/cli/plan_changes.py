"""Changes to an experiment that could make it fit, the mildest first."""

import dataclasses
import shlex
from collections.abc import Iterator
from typing import Any, NamedTuple

from jdl.parallel.rules import parse

REMATS = ("none", "dots", "full")
MODEL_AXIS_DEVICES = 8
"""Size of the model axis that is tried with the tensor rule, if the mesh has none."""


class MemorySetup(NamedTuple):
    """What decides the memory of a run: the experiment's fields, the mesh and the sharding rule."""

    config: Any
    axes: dict[str, int] | None
    rule: str
    arguments: tuple[str, ...] = ()
    """The flags that turn the first setup into this one."""

    def flags(self) -> str:
        """The flags as you type them."""
        return shlex.join(self.arguments)


def single_changes(first: MemorySetup, devices: int) -> Iterator[MemorySetup]:
    """Setups that differ from the first in one kind of change.

    In this order, each from mild to strong: sharding rule, rematerialisation, bfloat16, gradient
    accumulation, and a smaller batch, which changes the training. Only fields that the experiment
    has are changed.
    """
    for kind in (_rules(first, devices), *(_field(first, *c) for c in _changes(first))):
        yield from kind


def combined_change(first: MemorySetup, devices: int) -> MemorySetup:
    """Every change that leaves the mathematics of a step unchanged, each at its strongest."""
    setup = next(_rules(first, devices), first)
    for name, values in _changes(first):
        if name != "batch_size":
            setup = next(_field(setup, name, values[-1:]), setup)
    return setup


def _changes(first: MemorySetup) -> list[tuple[str, list[Any]]]:
    """Fields of the experiment, with the values to try."""
    values = {
        field.name: getattr(first.config, field.name) for field in dataclasses.fields(first.config)
    }
    split = (first.axes or {}).get("data", 1)
    changes: list[tuple[str, list[Any]]] = []
    if values.get("remat") in REMATS:
        changes.append(("remat", list(REMATS[REMATS.index(values["remat"]) + 1 :])))
    if values.get("precision") == "float32":
        changes.append(("precision", ["bfloat16"]))
    batch = values.get("batch_size")
    if isinstance(batch, int):
        each = batch // split
        parts = [2**n for n in range(1, 7) if each % 2**n == 0]
        accumulate = values.get("accumulate")
        if isinstance(accumulate, int):
            changes.append(("accumulate", [n for n in parts if n > accumulate]))
        changes.append(("batch_size", [batch // n for n in parts]))
    return changes


def _field(first: MemorySetup, name: str, values: list[Any]) -> Iterator[MemorySetup]:
    for value in values:
        config = dataclasses.replace(first.config, **{name: value})
        arguments = (*first.arguments, f"--{name.replace('_', '-')}", str(value))
        yield first._replace(config=config, arguments=arguments)


def _rules(first: MemorySetup, devices: int) -> Iterator[MemorySetup]:
    """Shard the state over the devices, then the transformer's layers as well."""
    if "fsdp" in first.rule or devices == 1:
        axes = None
    else:
        axes = first.axes or {"data": devices}
        yield _with_rule(first, axes, "fsdp")
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
        yield _with_rule(first, axes, "tensor+fsdp")


def _with_rule(first: MemorySetup, axes: dict[str, int], rule: str) -> MemorySetup:
    parse(rule)
    arguments: tuple[str, ...] = ("--run.sharding", rule)
    if axes != first.axes:
        arguments = ("--run.mesh", ",".join(f"{k}={v}" for k, v in axes.items()), *arguments)
    return first._replace(axes=axes, rule=rule, arguments=arguments)
