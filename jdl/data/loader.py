"""Read-ahead by step, with one thread or several, whichever is faster."""

import operator
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

from jdl.core.errors import require_package

Item = TypeVar("Item")

THREADS = 4
"""Reading threads, where several are faster than one."""


def read_in_threads(
    read: Callable[[int], Item], start: int, threads: int | None, ahead: int
) -> Generator[Item, None, None]:
    """Iterate over `read(start)`, `read(start + 1)`, ... in Grain's threads; at most `ahead` wait.

    With `threads=None` the first few are timed with one thread and with four, and the faster
    setting is used from then on: threads help if reading waits for a disk, and hurt if it holds the
    GIL. The threads end when you close or drop the iterator. Raises `InputError` if Grain is not
    installed.
    """
    grain = require_package("grain", "grain", "a streaming feed", '"jdl-jax[grain]"')

    def stream_from(first: int, threads: int) -> Generator[Item, None, None]:
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
        items = grain.MapDataset.range(operator.index(first), 2**31).map(read)
        with closing(iter(items.to_iter_dataset(options))) as stream:
            yield from stream

    if threads is None:
        return _autotuned(read, start, stream_from)
    return stream_from(start, threads)


def _autotuned(
    read: Callable[[int], Item], start: int, stream_from: Callable[[int, int], Iterator[Item]]
) -> Generator[Item, None, None]:
    # The first read may import modules and open files, so it is not timed.
    yield read(start)
    begin = time.perf_counter()
    item = read(start + 1)
    single_seconds = time.perf_counter() - begin
    yield item
    few = range(start + 2, start + 2 + THREADS)
    with ThreadPoolExecutor(THREADS) as pool:
        begin = time.perf_counter()
        items = list(pool.map(read, few))
        pooled_seconds = (time.perf_counter() - begin) / THREADS
    yield from items
    yield from stream_from(few.stop, THREADS if pooled_seconds < single_seconds else 1)
