"""Reading by step, ahead of whoever asks, in as many threads as pay."""

import operator
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

from jdl.core.errors import require_package

Item = TypeVar("Item")

THREADS = 4


def read_in_threads(
    read: Callable[[int], Item], start: int, threads: int | None, ahead: int
) -> Generator[Item, None, None]:
    """`read(start)`, `read(start + 1)`, ... without end, in Grain's threads; at most `ahead` wait.

    `threads=None` reads the first few alone and in four threads, and goes on with the faster one:
    what waits for a disk gains by threads, what is held up by Python's lock loses. The threads end
    when the iterator is closed or dropped. Raises `InputError` without Grain.
    """
    grain = require_package("grain", "grain", "a streaming feed", '"jdl-jax[grain]"')

    def after(first: int, threads: int) -> Generator[Item, None, None]:
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
        items = grain.MapDataset.range(operator.index(first), 2**31).map(read)
        with closing(iter(items.to_iter_dataset(options))) as stream:
            yield from stream

    return after(start, threads) if threads is not None else _measured(read, start, after)


def _measured(
    read: Callable[[int], Item], start: int, after: Callable[[int, int], Iterator[Item]]
) -> Generator[Item, None, None]:
    # The first one pays for what is imported and opened, and is not timed.
    yield read(start)
    begin = time.perf_counter()
    item = read(start + 1)
    alone = time.perf_counter() - begin
    yield item
    few = range(start + 2, start + 2 + THREADS)
    with ThreadPoolExecutor(THREADS) as pool:
        begin = time.perf_counter()
        items = list(pool.map(read, few))
        together = (time.perf_counter() - begin) / THREADS
    yield from items
    yield from after(few.stop, THREADS if together < alone else 1)
