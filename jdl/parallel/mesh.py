"""The one place where device meshes are made."""

import math

import jax
from jax.sharding import AxisType, Mesh

from jdl.core.errors import error


def mesh(**axes: int) -> Mesh:
    """A mesh of devices with named axes: `mesh(data=4, model=2)`.

    All axes are of type Auto: XLA places the intermediate values, as Flax's layers expect.
    The axis called `data` (the first, where none is) splits the batch.

    >>> mesh(data=len(jax.devices())).axis_names
    ('data',)
    """
    devices = len(jax.devices())
    wanted = math.prod(axes.values())
    if not axes or min(axes.values()) < 1 or devices % wanted:
        raise error(
            f"mesh({', '.join(f'{k}={v}' for k, v in axes.items())})",
            expected=f"named sizes whose product divides the {devices} devices",
            got=f"{wanted} places",
            fix="change the sizes, or run on more devices "
            "(on CPU: XLA_FLAGS=--xla_force_host_platform_device_count=8)",
        )
    shape, names = tuple(axes.values()), tuple(axes)
    types = (AxisType.Auto,) * len(axes)
    return jax.make_mesh(shape, names, axis_types=types, devices=jax.devices()[:wanted])


def batch_axis(mesh: Mesh) -> str:
    """The axis that splits the batch: `data`, or the first where none is called so."""
    return "data" if "data" in mesh.axis_names else mesh.axis_names[0]
