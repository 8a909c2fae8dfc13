"""What glibc's allocator does with freed memory: keep all of it mapped, or give it back now.

XLA on CPU takes its buffers from malloc and gives them back at every dispatch; above 128 kB glibc
maps and unmaps each anew, so that every step touches thousands of pages for the first time. What is
kept lies in pages of 2 MB where the kernel has them: to look up where thousands are takes time too.
"""

import ctypes
import importlib.util
import os
import sys
from typing import Any

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
"""Names of `mallopt`'s parameters in glibc's malloc.h."""

MALLOPT_SETTINGS = {
    MMAP_MAX: 0,
    TRIM_THRESHOLD: 2**31 - 1,
    TOP_PAD: 64 * 2**20,
}

HUGE_PAGE, MADV_HUGEPAGE = 2**21, 14


def keep_freed_pages() -> bool:
    """Make this process keep freed memory; whether the platform can (Linux with glibc).

    It holds for the whole process and cannot be taken back, so only a program's own main may ask
    for it. Of buffers of 64 MB and more, those of the main thread are kept. The process then holds
    its peak of memory to its end.
    """
    libc = _glibc()
    is_kept = libc is not None and all(
        [libc.mallopt(name, at) for name, at in MALLOPT_SETTINGS.items()]
    )
    if is_kept:
        _ask_for_huge_pages(libc, _at_hand() // 4)
    return is_kept


def _at_hand() -> int:
    """Bytes of the machine's memory, or of the addresses that `ulimit -v` leaves this process."""
    import resource  # is not there on Windows

    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return memory if limit == resource.RLIM_INFINITY else min(memory, limit)


def _ask_for_huge_pages(libc: Any, size: int) -> None:
    """Take addresses for the next blocks, whose pages the kernel makes huge ones when touched.

    No memory is taken. The heap can only be asked for as it is, not as it will grow, and a block
    at its end keeps it from shrinking.
    """
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    begin = libc.malloc(size)
    if begin is None:
        return
    libc.malloc(HUGE_PAGE)  # larger than a hole below, so from above
    first, last = -(-begin // HUGE_PAGE), (begin + size) // HUGE_PAGE
    libc.madvise(
        ctypes.c_void_p(first * HUGE_PAGE),
        ctypes.c_size_t((last - first) * HUGE_PAGE),
        MADV_HUGEPAGE,
    )
    libc.free(ctypes.c_void_p(begin))


def is_for_cpu() -> bool:
    """Whether JAX will compute on CPU; to ask JAX itself would start its backend."""
    import jax

    wanted = getattr(jax.config, "jax_platforms", None)
    if wanted:
        return wanted.partition(",")[0] == "cpu"
    return not any(map(importlib.util.find_spec, ("jax_plugins", "libtpu")))


def return_freed_pages() -> None:
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
