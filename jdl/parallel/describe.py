"""The layout of a state on a mesh, as a table."""

import re
from collections import defaultdict
from collections.abc import Iterable
from math import prod
from typing import Any, NamedTuple

from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jdl.core import tree
from jdl.core.text import align_columns, format_bytes, format_shape
from jdl.core.types import TrainState

MAX_LINES = 24
"""Most lines of parameters; beyond, those below 1 % of the bytes are joined into one line."""

Cells = tuple[str, str, str, str]


class PlacedLeaf(NamedTuple):
    """One array: path, shape, spec, bytes, and bytes on each device."""

    path: str
    shape: tuple[int, ...]
    spec: PartitionSpec
    bytes: int
    here: int

    @property
    def is_split(self) -> bool:
        """Whether a device holds only a part of it."""
        return self.here < self.bytes


def describe_layout(state: TrainState) -> str | None:
    """The layout of a state, or of shapes with shardings, as a table; None if it is on no mesh.

    There is one line for each parameter, or for equal parameters of numbered blocks; one line for
    each of model state, optimizer state and extra; and one for each of their leaves that is sharded
    differently from its parameter.

    >>> import jax, jdl
    >>> split = NamedSharding(jdl.mesh(data=1), PartitionSpec("data"))
    >>> w = jax.ShapeDtypeStruct((4, 3), "float32", sharding=split)
    >>> print(describe_layout(TrainState((), (), {"w": w}, {}, ())))
    layout on the mesh data=1 (1 × cpu):
    leaf      shape  spec  bytes per device
    params/w  4x3    data          48 bytes
    a device holds 48 bytes of 48 bytes; 0 of 1 leaves are split
    """
    leaves, mesh = _leaves_and_mesh(state)
    if mesh is None:
        return None
    params = [leaf for leaf in leaves if leaf.path.startswith("params/")]
    lines: list[Cells] = [("leaf", "shape", "spec", "bytes per device"), *_parameters(params)]
    for part in ("model_state", "opt_state", "extra"):
        own = [leaf for leaf in leaves if leaf.path.startswith(f"{part}/")]
        lines += _part_lines(part, own, params) if own else []
    split = sum(leaf.is_split for leaf in leaves)
    sizes = ", ".join(f"{name}={size}" for name, size in mesh.shape.items())
    here, whole = (sum(getattr(leaf, name) for leaf in leaves) for name in ("here", "bytes"))
    kind = mesh.devices.flat[0].device_kind
    return "\n".join(
        [
            f"layout on the mesh {sizes} ({mesh.size} × {kind}):",
            *align_columns(lines),
            f"a device holds {format_bytes(here)} of {format_bytes(whole)}; "
            f"{split} of {len(leaves)} leaves "
            "are split",
        ]
    )


def share_per_device(state: TrainState) -> float:
    """The share of a state's bytes on one device, from 0 to 1."""
    leaves, _ = _leaves_and_mesh(state)
    return _sum(leaves) / max(1, sum(leaf.bytes for leaf in leaves))


def _leaves_and_mesh(state: TrainState) -> tuple[list[PlacedLeaf], Mesh | None]:
    """All leaves except keys, and the mesh if the state is on one."""
    leaves, mesh = [], None
    for path, leaf in tree.flatten(state).items():
        sharding = getattr(leaf, "sharding", None)
        on_mesh = isinstance(sharding, NamedSharding)
        mesh = sharding.mesh if on_mesh and isinstance(sharding.mesh, Mesh) else mesh
        if tree.is_key(leaf):
            continue
        here = sharding.shard_shape(leaf.shape) if on_mesh else leaf.shape
        leaves.append(
            PlacedLeaf(
                path,
                leaf.shape,
                sharding.spec if on_mesh else PartitionSpec(),
                leaf.size * leaf.dtype.itemsize,
                prod(here) * leaf.dtype.itemsize,
            )
        )
    return leaves, mesh


def _parameters(params: list[PlacedLeaf]) -> list[Cells]:
    """A line for each kind of parameter; if there are many, one line for all small ones."""
    kinds, total = _kinds(params), sum(leaf.here for leaf in params)
    small: list[PlacedLeaf] = []
    if len(kinds) > MAX_LINES:
        small = [x for kind in kinds.values() if _sum(kind) < total / 100 for x in kind]
    lines = [_line(name, kind) for name, kind in kinds.items() if kind[0] not in small]
    if small:
        lines.append((f"params  ({len(small)} smaller leaves)", "", "", format_bytes(_sum(small))))
    return lines


def _part_lines(part: str, leaves: list[PlacedLeaf], params: list[PlacedLeaf]) -> list[Cells]:
    """One line for all leaves that are sharded like their parameter, and one for each other."""

    def differs(leaf: PlacedLeaf) -> bool:
        own = [
            param.spec
            for param in params
            if leaf.shape == param.shape and leaf.path.endswith(param.path.removeprefix("params"))
        ]
        return bool(own) and leaf.spec not in own

    other = [leaf for leaf in leaves if differs(leaf)]
    rest = [leaf for leaf in leaves if leaf not in other]
    lines = [_line(f"{name}  (unlike its parameter)", k) for name, k in _kinds(other).items()]
    split = sum(leaf.is_split for leaf in rest)
    name = f"{part}  ({len(rest)} leaves, {split} split)"
    return [*lines, (name, "", "", format_bytes(_sum(rest)))] if rest else lines


def _kinds(leaves: Iterable[PlacedLeaf]) -> dict[str, list[PlacedLeaf]]:
    """Leaves by name; equal leaves of numbered blocks share one name with `_*`."""
    groups: dict[Any, list[PlacedLeaf]] = defaultdict(list)
    for leaf in leaves:
        groups[re.sub(r"_\d+(?=/[^/]+/)", "_*", leaf.path), leaf.shape, leaf.spec].append(leaf)
    named: dict[str, list[PlacedLeaf]] = {}
    for (pattern, _, _), group in groups.items():
        if len(group) == 1 or pattern in named:
            named |= {leaf.path: [leaf] for leaf in group}
        else:
            named[pattern] = group
    return named


def _line(name: str, group: list[PlacedLeaf]) -> Cells:
    times = f"  ({len(group)} times)" if len(group) > 1 else ""
    return (
        name + times,
        format_shape(group[0].shape),
        spec_text(group[0].spec),
        format_bytes(_sum(group)),
    )


def _sum(leaves: Iterable[PlacedLeaf]) -> int:
    return sum(leaf.here for leaf in leaves)


def spec_text(spec: PartitionSpec) -> str:
    """A spec in the syntax of `--run.sharding`, or "whole".

    >>> spec_text(PartitionSpec(None, ("data", "model"))), spec_text(PartitionSpec())
    ('None,data+model', 'whole')
    """
    if all(names is None for names in spec):
        return "whole"
    return ",".join(
        "None" if names is None else names if isinstance(names, str) else "+".join(names)
        for names in spec
    )
