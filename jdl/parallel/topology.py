"""Devices that a program can be compiled for: those at hand, and TPU slices that are not."""

import os
import re
from collections.abc import Sequence
from math import log, prod
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import mesh_utils, topologies
from jax.sharding import AxisType, Mesh

from jdl.core.errors import did_you_mean, error

INSTALL = 'pip install "jdl-jax[tpu]" in an environment of its own, or make plan-tpu'

# Shapes on offer, from the "TPU v5e", "v5p" and "v6e" pages of cloud.google.com/tpu/docs.
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_SOLID = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16",
          "8x16x16", "16x16x16", "16x16x24")  # fmt: skip
GIB = 2**30


class Chip(NamedTuple):
    """A kind of TPU: its memory as advertised, what a program may use of it, slices on offer."""

    memory: str
    usable: int
    shapes: tuple[str, ...]


CHIPS = {
    # The second number is the one that the compiler names when a program is too large for it.
    "v5e": Chip("16 GB", int(15.75 * GIB), _FLAT),
    "v5p": Chip("95 GB", int(95.74 * GIB), _SOLID),
    "v6e": Chip("32 GB", int(31.25 * GIB), _FLAT),
}


class Target(NamedTuple):
    """Devices to compile for, and the memory of each in bytes where it is known."""

    name: str
    devices: tuple[Any, ...]
    memory: int | None
    slices: int = 1

    @property
    def platform(self) -> str:
        """ "cpu", "gpu" or "tpu"."""
        return self.devices[0].platform


def at_hand() -> Target:
    """The devices of this process."""
    devices = jax.devices()
    stats = devices[0].memory_stats() or {}
    kind = devices[0].device_kind
    return Target(f"{len(devices)} x {kind}", tuple(devices), stats.get("bytes_limit"))


def tpu(topology: str, slices: int = 1) -> Target:
    """`slices` TPU slices of a shape such as "v5e:16x16", "v5p:4x8x8" or "v6e:2x4".

    None has to be there, but the TPU compiler has. Raises `InputError` for a shape that does not
    exist, and where there is no compiler.

    >>> tpu("v5e:16x17")
    Traceback (most recent call last):
    jdl.core.errors.InputError: topology v5e:16x17
      expected: v5e of 1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16, 16x16
      got:      '16x17'
      fix:      the nearest is 16x16, of 256 chips
    """
    kind, _, shape = topology.partition(":")
    if kind not in CHIPS:
        raise error(
            f"topology {topology}",
            expected="kind:shape, such as v5e:16x16",
            got=repr(kind),
            fix=did_you_mean(kind, CHIPS),
        )
    chip = CHIPS[kind]
    if shape not in chip.shapes:
        raise error(
            f"topology {topology}",
            expected=f"{kind} of {', '.join(chip.shapes)}",
            got=repr(shape),
            fix=_nearest(shape, chip.shapes),
        )
    if slices < 1:
        raise error("slices", expected="1 or more", got=str(slices), fix="leave it out")
    devices = _described(topology, _chips(shape), slices)
    name = f"{slices} x {topology}" if slices > 1 else topology
    return Target(f"{name}, {len(devices)} chips", devices, chip.usable, slices)


def _chips(shape: str) -> int:
    return prod(map(int, shape.split("x")))


def _nearest(shape: str, known: Sequence[str]) -> str:
    """The shape of about as many chips, or of that name where it is none."""
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", shape):
        return did_you_mean(shape, known)
    close = min(known, key=lambda one: abs(log(_chips(one) / _chips(shape))))
    return f"the nearest is {close}, of {_chips(close)} chips"


def _described(topology: str, chips: int, slices: int) -> tuple[Any, ...]:
    # The compiler would ask the network which TPU it runs on, and would not share a machine with
    # another program that has loaded it, though it touches no device.
    quiet = {
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
        "TPU_ACCELERATOR_TYPE": "v5e-4",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    options: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if chips < 4:
        options["chips_per_host_bounds"] = [1, 1, 1]
    try:
        described = topologies.get_topology_desc(topology, platform="tpu", **options)
    except Exception as reason:
        missing = "libtpu" in str(reason) or isinstance(reason, ImportError)
        raise error(
            f"topology {topology}",
            expected="the TPU compiler (libtpu)",
            got="it is not installed" if missing else str(reason).splitlines()[0],
            fix=INSTALL,
        ) from None
    return tuple(described.devices)


def mesh_on(target: Target, axes: dict[str, int]) -> Mesh:
    """A mesh over the first devices of a target, neighbours beside one another.

    Over several slices the first axis is the one that crosses from slice to slice.
    """
    names, shape = tuple(axes), tuple(axes.values())
    wanted, there = prod(shape), len(target.devices)
    whole = wanted == there if target.platform == "tpu" else wanted and there % wanted == 0
    if not axes or min(shape) < 1 or not whole or shape[0] % target.slices:
        raise error(
            f"mesh({', '.join(f'{k}={v}' for k, v in axes.items())})",
            expected=f"named sizes whose product is {there}, the devices of {target.name}"
            + (f", the first one a multiple of {target.slices}" if target.slices > 1 else ""),
            got=f"{wanted} places",
            fix="change the sizes, or plan for other devices",
        )
    return Mesh(_arranged(target, shape), names, axis_types=(AxisType.Auto,) * len(shape))


def _arranged(target: Target, shape: Sequence[int]) -> np.ndarray:
    devices = target.devices[: prod(shape)]
    if target.slices > 1:
        within = (shape[0] // target.slices, *shape[1:])
        across = (target.slices, *(1 for _ in shape[1:]))
        return mesh_utils.create_hybrid_device_mesh(within, across, devices)
    return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
