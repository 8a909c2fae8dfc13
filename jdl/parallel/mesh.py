"""Device meshes; every mesh of jdl is made here."""

import math
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import AxisType, Mesh

from jdl.core.errors import error
from jdl.core.nouns import describe


def mesh(**axes: int) -> Mesh:
    """Make a device mesh from names and sizes of its axes: `mesh(data=4, model=2)`.

    The axis `data`, or the first axis if there is no `data`, splits the batch. If the product of
    the sizes is less than the number of devices, the first devices are used. All axes have
    `AxisType.Auto`: XLA chooses the sharding of intermediate values, as Flax's layers need.

    Raises `InputError` unless the product of the sizes divides the number of devices.

    >>> mesh(data=1, model=len(jax.devices())).axis_names
    ('data', 'model')
    """
    devices = len(jax.devices())
    size = math.prod(axes.values())
    if not axes or min(axes.values()) < 1 or devices % size:
        raise error(
            f"mesh({', '.join(f'{k}={v}' for k, v in axes.items())})",
            expected=f"axes of size 1 or more whose product divides the {devices} devices",
            got=f"a product of {size}" if axes else "no axes",
            fix="change the sizes, or run on more devices "
            "(on CPU: XLA_FLAGS=--xla_force_host_platform_device_count=8)",
        )
    shape, names = tuple(axes.values()), tuple(axes)
    types = (AxisType.Auto,) * len(axes)
    return jax.make_mesh(shape, names, axis_types=types, devices=jax.devices()[:size])


def batch_axis(mesh: Mesh) -> str:
    """The axis that splits the batch: `data`, or the first axis if there is no `data`."""
    return "data" if "data" in mesh.axis_names else mesh.axis_names[0]


def check_mesh(value: Any, where: str) -> None:
    """Raise `InputError` unless `value` is a device mesh.

    >>> check_mesh(8, "shard: mesh")
    Traceback (most recent call last):
    jdl.core.errors.InputError: shard: mesh
      expected: a device mesh
      got:      8, an int
      fix:      pass jdl.mesh(data=8)
    """
    if isinstance(value, Mesh):
        return
    axes = f"data={value}" if isinstance(value, int) else "data=8"
    if isinstance(value, Mapping):
        axes = ", ".join(f"{name}={size}" for name, size in value.items())
    fix = f"pass jdl.mesh({axes})"
    raise error(where, expected="a device mesh", got=describe(value), fix=fix)
