"""The one context variable of jdl: which kind of program a step is being traced for.

The fastest program for one and the same function differs from device to device, and XLA does not
always find it. So whoever traces a step can declare what is known about the program, and a
primitive (a convolution, an embedding) chooses its implementation accordingly. Results differ by
rounding only.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
from jax.sharding import NamedSharding


class Lowering(NamedTuple):
    """What is known about the program that is being traced."""

    platform: str | None = None
    """The kind of device it is compiled for; None is the default backend of this process."""
    batch_sharding: NamedSharding | None = None
    """The sharding of the leading axis of a batch."""
    single_step: bool = False
    """Whether the program is one step without a loop around it."""


_NOTHING = Lowering()
_LOWERING: ContextVar[Lowering] = ContextVar("lowering", default=_NOTHING)


@contextmanager
def lowering_for(**fields: Any) -> Iterator[None]:
    """Trace with these fields of `Lowering`.

    >>> with lowering_for(platform="tpu", single_step=True):
    ...     print(platform(), is_single_step())
    tpu True
    >>> is_single_step()
    False
    """
    token = _LOWERING.set(_LOWERING.get()._replace(**fields))
    try:
        yield
    finally:
        _LOWERING.reset(token)


def platform() -> str:
    """The kind of device that the traced program will run on: "cpu", "gpu" or "tpu"."""
    return _LOWERING.get().platform or jax.default_backend()


def is_single_step() -> bool:
    """Whether the traced program is one step; otherwise expect a loop around it."""
    return _LOWERING.get().single_step


def constrain_batch(x: jax.Array) -> jax.Array:
    """Keep (batch, ...) values on the devices that hold their examples.

    XLA propagates shardings from operands. If the columns of an embedding table are split over all
    devices, XLA would split its rows' features instead of the examples, and every device would
    compute all examples. This does nothing on one device, or if the axis cannot be divided.
    """
    sharding: Any = _LOWERING.get().batch_sharding
    if sharding is None or x.shape[0] % sharding.mesh.shape[sharding.spec[0]]:
        return x
    return jax.lax.with_sharding_constraint(x, sharding)


def cuda_capability() -> float:
    """The compute capability of this process's NVIDIA GPU; 0 without one."""
    if jax.default_backend() != "gpu":
        return 0.0
    capability = str(getattr(jax.devices()[0], "compute_capability", ""))
    return float(capability) if re.fullmatch(r"\d+\.\d+", capability) else 0.0  # AMD: "gfx..."
