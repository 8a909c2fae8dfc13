"""Freed memory in glibc: keep it mapped for reuse, or return it to the system.

XLA on CPU allocates its buffers with malloc and frees them in every dispatch. glibc maps and unmaps
buffers above 128 kB each time, so every step has thousands of page faults. Memory that is kept is
in huge pages of 2 MB if the kernel has them, which also saves TLB misses.
"""

import ctypes
import importlib.util
import os
import sys
from typing import Any

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
"""Parameters of `mallopt` in glibc's malloc.h."""

MALLOPT_SETTINGS = {
    MMAP_MAX: 0,
    TRIM_THRESHOLD: 2**31 - 1,
    TOP_PAD: 64 * 2**20,
}

HUGE_PAGE, MADV_HUGEPAGE = 2**21, 14


def keep_freed_pages() -> bool:
    """Make this process keep freed memory; return whether it could (Linux with glibc).

    It affects the whole process and cannot be undone, so only a program's main should call it. The
    process keeps its peak of memory until it ends. Buffers of 64 MB and more are kept in the main
    thread only.
    """
    libc = _glibc()
    is_kept = libc is not None and all(
        [libc.mallopt(name, at) for name, at in MALLOPT_SETTINGS.items()]
    )
    if is_kept:
        _reserve_huge_pages(libc, _available_bytes() // 4)
    return is_kept


def _available_bytes() -> int:
    """The memory of the machine, or the limit of `ulimit -v` if it is lower."""
    import resource  # not on Windows

    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return memory if limit == resource.RLIM_INFINITY else min(memory, limit)


def _reserve_huge_pages(libc: Any, size: int) -> None:
    """Grow the heap's address range and mark it for huge pages; this takes no memory yet.

    `madvise` applies to addresses that exist, not to a heap that grows later. A block at the end
    keeps the heap from shrinking.
    """
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    begin = libc.malloc(size)
    if begin is None:
        return
    libc.malloc(HUGE_PAGE)  # fits in no hole below, so it lies above
    first, last = -(-begin // HUGE_PAGE), (begin + size) // HUGE_PAGE
    libc.madvise(
        ctypes.c_void_p(first * HUGE_PAGE),
        ctypes.c_size_t((last - first) * HUGE_PAGE),
        MADV_HUGEPAGE,
    )
    libc.free(ctypes.c_void_p(begin))


def is_for_cpu() -> bool:
    """Whether JAX will compute on CPU, found without starting its backend."""
    import jax

    platforms = getattr(jax.config, "jax_platforms", None)
    if platforms:
        return platforms.partition(",")[0] == "cpu"
    return not any(map(importlib.util.find_spec, ("jax_plugins", "libtpu")))


def return_freed_pages() -> None:
    """Return free memory between blocks in use to the system (glibc only).

    Compiling leaves 100 to 200 MB of it, which would add to the peak of the next compilation.
    """
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.gnu_get_libc_version  # noqa: B018  (musl has mallopt too, but ignores it)
    except (OSError, AttributeError):
        return None
    return libc
