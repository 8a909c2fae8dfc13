"""Targets to compile for: the devices of this process, and TPU slices that are not here."""

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

INSTALL = 'pip install "jdl-jax[tpu]" in a separate environment, or run make plan-tpu'

# Topologies by the "TPU v5e", "v5p" and "v6e" pages of cloud.google.com/tpu/docs.
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_SOLID = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16",
          "8x16x16", "16x16x16", "16x16x24")  # fmt: skip
GIB = 2**30


class Chip(NamedTuple):
    """A kind of TPU: advertised memory, bytes that a program can use, and available slices."""

    memory: str
    usable: int
    shapes: tuple[str, ...]


CHIPS = {
    # The usable memory is the one in the compiler's out-of-memory error.
    "v5e": Chip("16 GB", int(15.75 * GIB), _FLAT),
    "v5p": Chip("95 GB", int(95.74 * GIB), _SOLID),
    "v6e": Chip("32 GB", int(31.25 * GIB), _FLAT),
}


class Target(NamedTuple):
    """Devices to compile for, and the memory of each in bytes (None: unknown)."""

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
    """`slices` TPU slices of a topology such as "v5e:16x16", "v5p:4x8x8" or "v6e:2x4".

    The TPU compiler must be installed; the TPUs need not exist. Raises `InputError` for an unknown
    topology, and if there is no compiler.

    >>> tpu("v5e:16x17")
    Traceback (most recent call last):
    jdl.core.errors.InputError: topology v5e:16x17
      expected: v5e with one of 1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16, 16x16
      got:      '16x17'
      fix:      use the nearest one, 16x16 with 256 chips
    """
    kind, _, shape = topology.partition(":")
    if kind not in CHIPS:
        raise error(
            f"topology {topology}",
            expected=f"KIND:SHAPE with a kind of {', '.join(CHIPS)}, such as v5e:16x16",
            got=repr(kind),
            fix=did_you_mean(kind, CHIPS),
        )
    chip = CHIPS[kind]
    if shape not in chip.shapes:
        raise error(
            f"topology {topology}",
            expected=f"{kind} with one of {', '.join(chip.shapes)}",
            got=repr(shape),
            fix=_nearest(shape, chip.shapes),
        )
    if slices < 1:
        raise error("slices", expected="1 or more", got=str(slices), fix="leave it out for 1")
    devices = _topology_devices(topology, _chips(shape), slices)
    name = f"{slices} x {topology}" if slices > 1 else topology
    return Target(f"{name}, {len(devices)} chips", devices, chip.usable, slices)


def _chips(shape: str) -> int:
    return prod(map(int, shape.split("x")))


def _nearest(shape: str, known: Sequence[str]) -> str:
    """A fix with the shape of the nearest number of chips, or the most similar name."""
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", shape):
        return did_you_mean(shape, known)
    close = min(known, key=lambda one: abs(log(_chips(one) / _chips(shape))))
    return f"use the nearest one, {close} with {_chips(close)} chips"


def _topology_devices(topology: str, chips: int, slices: int) -> tuple[Any, ...]:
    # Without these the compiler queries the network for the TPU it runs on, and fails if another
    # program on this machine has loaded it, though it uses no device.
    environment = {
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
        "TPU_ACCELERATOR_TYPE": "v5e-4",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
    }
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    options: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if chips < 4:
        options["chips_per_host_bounds"] = [1, 1, 1]
    try:
        description = topologies.get_topology_desc(topology, platform="tpu", **options)
    except Exception as reason:
        missing = "libtpu" in str(reason) or isinstance(reason, ImportError)
        raise error(
            f"topology {topology}",
            expected="the TPU compiler (libtpu)",
            got="libtpu is not installed" if missing else str(reason).splitlines()[0],
            fix=INSTALL,
        ) from None
    return tuple(description.devices)


def mesh_on(target: Target, axes: dict[str, int]) -> Mesh:
    """A mesh over the first devices of a target, ordered so that neighbours are close.

    With several slices the first axis crosses between slices. Raises `InputError` if the sizes do
    not match the number of devices.
    """
    names, shape = tuple(axes), tuple(axes.values())
    size, count = prod(shape), len(target.devices)
    is_full = size == count if target.platform == "tpu" else size and count % size == 0
    if not axes or min(shape) < 1 or not is_full or shape[0] % target.slices:
        relation = "is" if target.platform == "tpu" else "divides"
        raise error(
            f"mesh({', '.join(f'{k}={v}' for k, v in axes.items())})",
            expected=f"axes whose product {relation} {count}, the devices of {target.name}"
            + (f", the first one a multiple of {target.slices}" if target.slices > 1 else ""),
            got=f"a product of {size}" if axes else "no axes",
            fix="change the sizes, or plan for other devices",
        )
    return Mesh(_device_array(target, shape), names, axis_types=(AxisType.Auto,) * len(shape))


def _device_array(target: Target, shape: Sequence[int]) -> np.ndarray:
    devices = target.devices[: prod(shape)]
    if target.slices > 1:
        within = (shape[0] // target.slices, *shape[1:])
        across = (target.slices, *(1 for _ in shape[1:]))
        return mesh_utils.create_hybrid_device_mesh(within, across, devices)
    return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
