"""What glibc's allocator does with freed memory: keep all of it mapped, or give it back now.

XLA on CPU takes its buffers from malloc and gives them back at every dispatch; above 128 kB glibc
maps and unmaps each anew, so that every step touches thousands of pages for the first time.
"""

import ctypes
import importlib.util
import sys
from typing import Any

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX, ARENA_MAX = -1, -2, -4, -8
"""Names of `mallopt`'s parameters in glibc's malloc.h."""

SETTINGS = {
    MMAP_MAX: 0,
    TRIM_THRESHOLD: 2**31 - 1,
    TOP_PAD: 64 * 2**20,
    ARENA_MAX: 1,
}


def keep_mapped() -> bool:
    """Make this process keep freed memory; whether the platform can (Linux with glibc).

    It holds for the whole process and cannot be taken back, so only a program's own main may ask
    for it, and before JAX starts its backend: threads keep the allocator they began with. The
    process then holds its peak of memory to its end.
    """
    libc = _glibc()
    return libc is not None and all([libc.mallopt(name, at) for name, at in SETTINGS.items()])


def is_for_cpu() -> bool:
    """Whether JAX will compute on CPU; to ask JAX itself would start its backend."""
    import jax

    wanted = getattr(jax.config, "jax_platforms", None)
    if wanted:
        return wanted.partition(",")[0] == "cpu"
    return not any(map(importlib.util.find_spec, ("jax_plugins", "libtpu")))


def release() -> None:
    """Give back what lies free between blocks in use (glibc only; elsewhere nothing is done).

    Compiling leaves a hundred MB or two of it; the next program would be compiled on top.
    """
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.gnu_get_libc_version  # noqa: B018  (musl has mallopt too, and ignores it)
    except (OSError, AttributeError):
        return None
    return libc
