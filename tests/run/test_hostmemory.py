"""A process that keeps its freed memory touches no new pages from step to step."""

import subprocess
import sys

import pytest

from jdl.run import hostmemory

PROGRAM = """
import ctypes, resource, sys
from jdl.run.hostmemory import keep_mapped
if sys.argv[1] == "on":
    assert keep_mapped()
libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
def use(size=64 * 2**20):
    place = libc.malloc(size)
    ctypes.memset(place, 1, size)
    libc.free(place)
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(setting: str) -> int:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, setting], capture_output=True, text=True, check=True
    )
    return int(run.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_freed_memory_stays_mapped():
    # Twenty times 64 MB; a page is 4 kB, or where the kernel likes 2 MB.
    unmapped, kept = faults("off"), faults("on")
    assert unmapped > 500 and kept < unmapped / 20, (unmapped, kept)


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_elsewhere_nothing_is_done(monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(hostmemory.ctypes, "CDLL", lambda name: pytest.fail("no such library"))
    assert hostmemory.keep_mapped() is False
    hostmemory.release()


@pytest.mark.parametrize("library", [object(), None])
def test_another_c_library_is_left_alone(monkeypatch, library):
    def load(name):
        if library is None:
            raise OSError("no such file")
        return library

    monkeypatch.setattr(hostmemory.ctypes, "CDLL", load)
    assert hostmemory.keep_mapped() is False
    hostmemory.release()


HOLES = """
import ctypes, resource, sys
from jdl.run.hostmemory import release
libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
blocks = [libc.malloc(65536) for _ in range(2000)]
for block in blocks:
    ctypes.memset(block, 1, 65536)
for block in blocks[:-1]:  # the last one holds the top of the heap
    libc.free(block)
pages = lambda: int(open("/proc/self/statm").read().split()[1])
before = pages()
release()
print((before - pages()) * resource.getpagesize() // 2**20)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_free_memory_below_the_top_is_given_back():
    run = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True)
    assert int(run.stdout) > 100  # of 125 MB
