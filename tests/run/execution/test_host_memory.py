"""A process that keeps its freed memory touches no new pages from step to step."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jdl.run.execution import host_memory

PROGRAM = """
import ctypes, resource, sys
from jdl.run.execution.host_memory import keep_freed_pages
if sys.argv[1] == "on":
    assert keep_freed_pages()
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


def faults(setting: str, program: str = PROGRAM) -> int:
    run = subprocess.run(
        [sys.executable, "-c", program, setting],
        env={name: value for name, value in os.environ.items() if name != "XLA_FLAGS"},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(run.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_freed_memory_stays_mapped():
    # Twenty times 64 MB; a page is 4 kB, or where the kernel likes 2 MB.
    unmapped, kept = faults("off"), faults("on")
    assert unmapped > 500 and kept < unmapped / 20, (unmapped, kept)


STEPS = """
import resource, sys
import os
from jdl.cli.process import configure_process
os.environ["JDL_HOST_MEMORY"] = sys.argv[1]
configure_process(cache=False)
import jax, jax.numpy as jnp
step = jax.jit(lambda x: (x + jnp.tanh(x @ x.T) @ x).astype(jnp.float32))
x = jnp.ones((4096, 32))
found = []
for _ in range(6):  # the heap may still grow in some of them
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        step(x).block_until_ready()
    found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(found))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_the_steps_of_a_command_touch_no_new_pages():
    # A step takes 64 MB for a moment: 16,000 pages of 4 kB.
    unmapped, kept = faults("off", STEPS), faults("on", STEPS)
    assert unmapped > 500 and kept < unmapped / 20, (unmapped, kept)


HUGE = """
import ctypes, re
from jdl.run.execution.host_memory import keep_freed_pages, return_freed_pages
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * 4096 // 2**20
before = resident()
assert keep_freed_pages()
return_freed_pages()  # does not shrink the heap that was asked for
libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
place = libc.malloc(64 * 2**20) + 32 * 2**20
parts = re.split(r"\\n(?=[0-9a-f]+-[0-9a-f]+ )", open("/proc/self/smaps").read())
for part in parts:
    first, last = (int(end, 16) for end in part.split()[0].split("-"))
    if first <= place < last:
        print(int(" hg" in part), (last - first) // 2**20, resident() - before)
"""


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="a kernel without huge pages"
)
def test_what_is_kept_is_asked_to_lie_in_huge_pages_and_takes_no_memory_yet():
    run = subprocess.run([sys.executable, "-c", HUGE], capture_output=True, text=True, check=True)
    is_huge, reserved, taken = map(int, run.stdout.split())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    assert is_huge and reserved > memory // 5 and taken < 32


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="a kernel without huge pages"
)
def test_no_more_than_a_quarter_of_the_addresses_that_are_allowed_is_reserved():
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (2**32, -1))\n"
    program = [sys.executable, "-c", limit + HUGE]
    run = subprocess.run(program, capture_output=True, text=True, check=True)
    is_huge, reserved, _ = map(int, run.stdout.split())
    assert is_huge and 900 < reserved <= 1100


def test_a_machine_that_gives_no_such_range_is_left_as_it_is():
    class Library:
        def __init__(self):
            self.malloc = lambda size: None

    host_memory._reserve_huge_pages(Library(), 2**40)


@pytest.mark.parametrize(
    ("wanted", "installed", "found"),
    [
        ("cpu", "jax_plugins", True),
        ("cuda,cpu", None, False),
        (None, "jax_plugins", False),
        (None, "libtpu", False),
        ("", None, True),
        (None, None, True),
    ],
)
def test_where_jax_will_compute_is_told_without_starting_it(monkeypatch, wanted, installed, found):
    monkeypatch.setattr(host_memory.importlib.util, "find_spec", lambda name: name == installed)
    before = getattr(jax.config, "jax_platforms", None)
    jax.config.update("jax_platforms", wanted)
    try:
        assert host_memory.is_for_cpu() is found
    finally:
        jax.config.update("jax_platforms", before)


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_elsewhere_nothing_is_done(monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(host_memory.ctypes, "CDLL", lambda name: pytest.fail("no such library"))
    assert host_memory.keep_freed_pages() is False
    host_memory.return_freed_pages()


@pytest.mark.parametrize("library", [object(), None])
def test_another_c_library_is_left_alone(monkeypatch, library):
    def load(name):
        if library is None:
            raise OSError("no such file")
        return library

    monkeypatch.setattr(host_memory.ctypes, "CDLL", load)
    assert host_memory.keep_freed_pages() is False
    host_memory.return_freed_pages()


HOLES = """
import ctypes, resource, sys
from jdl.run.execution.host_memory import return_freed_pages
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
return_freed_pages()
print((before - pages()) * resource.getpagesize() // 2**20)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_free_memory_below_the_top_is_given_back():
    run = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True)
    assert int(run.stdout) > 100  # of 125 MB
