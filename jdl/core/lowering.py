"""The one context of jdl: what a step is being traced for, where a primitive has to know.

A model is a function of its arguments, and so is a learner. But the fastest program for the same
function differs from device to device, and XLA does not always find it. So whoever traces a step
may promise what is known by then, and a primitive (a convolution, an embedding) chooses its form by
it. Values do not depend on it, but for rounding.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
from jax.sharding import NamedSharding


class Lowering(NamedTuple):
    """What is promised about the program that is being traced."""

    platform: str | None = None
    """The kind of device it is compiled for, which may be absent; None: this process's own."""
    batch_sharding: NamedSharding | None = None
    """How the leading axis of a batch lies on a mesh."""
    single_step: bool = False
    """Whether it is one step and no loop around it; otherwise expect a loop."""


_NOTHING = Lowering()
_LOWERING: ContextVar[Lowering] = ContextVar("lowering", default=_NOTHING)


@contextmanager
def lowering_for(**promised: Any) -> Iterator[None]:
    """Trace with these fields of `Lowering` promised.

    >>> with lowering_for(platform="tpu", single_step=True):
    ...     print(platform(), is_single_step())
    tpu True
    >>> is_single_step()
    False
    """
    token = _LOWERING.set(_LOWERING.get()._replace(**promised))
    try:
        yield
    finally:
        _LOWERING.reset(token)


def platform() -> str:
    """The kind of device that what is traced now will run on: "cpu", "gpu", "tpu"."""
    return _LOWERING.get().platform or jax.default_backend()


def is_single_step() -> bool:
    """Whether what is traced is a program of one step; otherwise expect a loop around it."""
    return _LOWERING.get().single_step


def constrain_batch(x: jax.Array) -> jax.Array:
    """The same values, kept on the devices that hold their examples.

    XLA places what a step computes by what it is computed from. A table whose columns lie on all
    devices would pull what is looked up in it there as well: every device then computes all
    examples. Nothing happens on one device, and where the axis cannot be divided.
    """
    sharding: Any = _LOWERING.get().batch_sharding
    if sharding is None or x.shape[0] % sharding.mesh.shape[sharding.spec[0]]:
        return x
    return jax.lax.with_sharding_constraint(x, sharding)


def cuda_capability() -> float:
    """The compute capability of this process's NVIDIA device; 0 where there is none."""
    if jax.default_backend() != "gpu":
        return 0.0
    found = str(getattr(jax.devices()[0], "compute_capability", ""))
    return float(found) if re.fullmatch(r"\d+\.\d+", found) else 0.0  # "gfx..." on AMD's
