"""Reading ahead: the same batches in the same order, and errors where they are asked for."""

import itertools
import os
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

from jdl.core.errors import InputError
from jdl.data.feed import Feed
from jdl.data.loader import read_in_threads
from jdl.data.prefetch import prefetch, stacks_of_batches
from tests.support.runs import ROOT
from tests.support.sources import Source, numbers


def mapped(data, folder):
    """The same arrays as files that are mapped to memory."""
    for key, value in data.items():
        np.save(folder / f"{key}.npy", value)
    return {key: np.load(folder / f"{key}.npy", mmap_mode="r") for key in data}


@pytest.mark.parametrize("kind", ["memory", "disk", "source"])
@pytest.mark.parametrize("rows", [None, np.array([1, 3])])
def test_stacks_are_the_batches_in_their_order(kind, rows, tmp_path):
    data = numbers(23)
    kinds = {"memory": lambda: data, "disk": lambda: mapped(data, tmp_path)}
    feed = Feed(kinds.get(kind, lambda: Source(data))(), 5, seed=4)
    found = stacks_of_batches(feed, 7, 3, rows)
    for first, stack in zip(range(7, 22, 3), found, strict=False):
        for number in range(3):
            batch = feed.batch(first + number, rows)
            assert stack.keys() == batch.keys()
            for key in batch:
                np.testing.assert_array_equal(stack[key][number], batch[key])
                assert stack[key].dtype == batch[key].dtype
    found.close()


def readers() -> set[threading.Thread]:
    return {t for t in threading.enumerate() if t.name.startswith(("jdl-ahead", "jdl-read"))}


@pytest.mark.parametrize("kind", ["memory", "disk", "source"])
def test_only_sources_and_disks_have_threads_of_their_own(kind, tmp_path):
    data, before = numbers(23), readers()
    kinds = {"memory": lambda: data, "disk": lambda: mapped(data, tmp_path)}
    found = stacks_of_batches(Feed(kinds.get(kind, lambda: Source(data))(), 5), 0, 2)
    for _ in range(4):  # the first few of a stream are read here, and timed
        next(found)
    assert bool(readers() - before) == (kind != "memory")
    found.close()


def test_batches_of_different_shapes_are_named():
    class Growing(Source):
        def __getitem__(self, index):
            return {"x": np.zeros(3 if self.data["y"][index] < 4 else 5, np.float32)}

    feed = Feed(Growing(numbers(8)), 1)
    with pytest.raises(InputError, match=r'"x" of a source\n.*same shape'):
        next(stacks_of_batches(feed, 0, 8))


def test_one_item_is_made_while_another_is_used():
    begun, may = [], threading.Event()

    def items():
        for number in itertools.count():
            begun.append(number)
            yield number
            may.wait(5)

    found = prefetch(items())
    assert next(found) == 0
    may.set()
    until = time.monotonic() + 5
    while len(begun) < 2 and time.monotonic() < until:
        time.sleep(0.001)
    time.sleep(0.02)
    assert begun == [0, 1]  # one, and no further
    assert next(found) == 1
    found.close()


@pytest.mark.parametrize("how", ["close", "drop"])
def test_whoever_closes_does_not_wait_and_the_thread_ends(how):
    begun, may, closed = threading.Event(), threading.Event(), threading.Event()

    def slow():
        try:
            yield 0
            begun.set()
            may.wait(5)
            yield 1
        finally:
            closed.set()

    before = readers()
    found = prefetch(slow())
    next(found)
    (thread,) = readers() - before
    assert begun.wait(5)
    began = time.monotonic()
    if how == "close":
        found.close()
    del found
    assert time.monotonic() - began < 1 and not closed.is_set()
    may.set()
    assert closed.wait(5)
    thread.join(5)
    assert not thread.is_alive()


def test_an_error_comes_where_its_item_is_asked_for_and_ends_the_thread():
    def items():
        yield 0
        raise OSError("disk gone")

    before = readers()
    found = prefetch(items())
    assert next(found) == 0
    time.sleep(0.02)  # it has been raised by now, and nobody has heard of it
    with pytest.raises(OSError, match="disk gone"):
        next(found)
    for thread in readers() - before:
        thread.join(5)
        assert not thread.is_alive()


def test_nothing_keeps_an_item_that_was_used():
    class Big:
        alive = 0

        def __init__(self):
            Big.alive += 1

        def __del__(self):
            Big.alive -= 1

    found = prefetch(Big() for _ in range(9))
    for _ in range(4):
        next(found)
    time.sleep(0.02)
    assert Big.alive == 1  # the one that is ready
    found.close()


def test_what_waits_is_read_in_threads_and_what_computes_is_not():
    def read_by(read):
        names = []

        def noting(step):
            read(step)
            names.append(threading.current_thread().name)
            return step

        found = read_in_threads(noting, 3, None, 8)
        assert [next(found) for _ in range(40)] == list(range(3, 43))
        found.close()
        return {name for name in names[20:] if "jdl-read" in name}

    held = threading.Lock()

    def compute(step):
        # As Python's own lock does, but for sure: one at a time, and slower where others want it.
        with held:
            time.sleep(0.005 if threading.current_thread() is threading.main_thread() else 0.02)

    assert len(read_by(lambda step: time.sleep(0.03))) > 1
    assert len(read_by(compute)) == 1


def test_the_first_batches_raise_as_later_ones_do():
    for bad in (0, 1, 3, 9):

        def read(step, bad=bad):
            if step == bad:
                raise OSError("disk gone")
            return step

        found = read_in_threads(read, 0, None, 8)
        with pytest.raises(OSError, match="disk gone"):
            list(found)


HANGS = """
    import sys, threading, time
    from jdl.data.loader import read_in_threads

    begun = threading.Event()

    def read(step):
        if step == int(sys.argv[1]):
            begun.set()
            time.sleep(60)
        return step

    threading.Thread(target=lambda: list(read_in_threads(read, 0, None, 8)), daemon=True).start()
    begun.wait()
"""


@pytest.mark.parametrize("step", [3, 12])
def test_a_source_that_hangs_keeps_no_process_alive(step):
    """In the threads that are timed, and in those that read on."""
    command = [sys.executable, "-c", textwrap.dedent(HANGS), str(step)]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, timeout=30)


def test_a_stream_that_ends_is_not_fed_short():
    class Short(Feed):
        def stream(self, start=0, **how):
            yield from map(self.batch, range(start, start + 5))

    found = stacks_of_batches(Short(Source(numbers(23)), 5), 2, 3)
    assert len(next(found)["x"]) == 3
    with pytest.raises(RuntimeError, match="the stream of batches ended at step 7"):
        next(found)
