"""What a step is traced for, where a model or a gradient has to know: its device, its mesh.

Both are promised by whoever traces (`jdl.parallel`), and nothing is known of them elsewhere.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
from jax.sharding import NamedSharding

_PLATFORM: ContextVar[str | None] = ContextVar("platform", default=None)
_BATCH_SHARDING: ContextVar[NamedSharding | None] = ContextVar("examples", default=None)


@contextmanager
def compiled_for(platform: str) -> Iterator[None]:
    """What is traced within is compiled for devices of this kind, which may be absent.

    >>> with compiled_for("tpu"):
    ...     print(platform())
    tpu
    """
    token = _PLATFORM.set(platform)
    try:
        yield
    finally:
        _PLATFORM.reset(token)


def platform() -> str:
    """The kind of device that what is traced now will run on: "cpu", "gpu", "tpu"."""
    return _PLATFORM.get() or jax.default_backend()


def cuda_capability() -> float:
    """The compute capability of this process's NVIDIA device; 0 where there is none."""
    if jax.default_backend() != "gpu":
        return 0.0
    found = str(getattr(jax.devices()[0], "compute_capability", ""))
    return float(found) if re.fullmatch(r"\d+\.\d+", found) else 0.0  # "gfx..." on AMD's


@contextmanager
def batch_sharding(sharding: NamedSharding) -> Iterator[None]:
    """Within, `constrain_batch` splits the leading axis of what it is given like this."""
    token = _BATCH_SHARDING.set(sharding)
    try:
        yield
    finally:
        _BATCH_SHARDING.reset(token)


def constrain_batch(x: jax.Array) -> jax.Array:
    """The same values, kept on the devices that hold their examples.

    XLA places what a step computes by what it is computed from. A table whose columns lie on all
    devices would pull what is looked up in it there as well: every device then computes all
    examples. Nothing happens on one device, and where the axis cannot be divided.
    """
    sharding: Any = _BATCH_SHARDING.get()
    if sharding is None or x.shape[0] % sharding.mesh.shape[sharding.spec[0]]:
        return x
    return jax.lax.with_sharding_constraint(x, sharding)


_SINGLE_STEP = ContextVar("alone", default=False)


@contextmanager
def single_step_program() -> Iterator[None]:
    """What is traced within is one program, and no part of a loop.

    >>> with single_step_program():
    ...     print(in_single_step_program())
    True
    >>> in_single_step_program()
    False
    """
    token = _SINGLE_STEP.set(True)
    try:
        yield
    finally:
        _SINGLE_STEP.reset(token)


def in_single_step_program() -> bool:
    """Whether what is traced is a `single_step_program`; otherwise expect a loop around it."""
    return _SINGLE_STEP.get()
