"""Batches prepared in a thread while the step before them runs."""

import itertools
import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any, TypeVar

import numpy as np

from jdl.data.arrays import Arrays
from jdl.data.feed import Feed, stack
from jdl.data.loader import MAX_STEPS

Item = TypeVar("Item")


def prefetch(items: Iterator[Item]) -> Generator[Item, None, None]:
    """Iterate over `items`, with the next item prepared in a thread while you use one.

    An error is raised at the item that it belongs to. If you close or drop the iterator, the thread
    finishes its current item, closes `items` and ends; nothing waits for it.

    >>> list(prefetch(iter([1, 2])))
    [1, 2]
    """
    requests: queue.SimpleQueue[bool] = queue.SimpleQueue()
    results: queue.SimpleQueue[tuple[list[Item], BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        while requests.get():
            try:
                results.put(([next(items)], None))
            except BaseException as raised:
                results.put(([], raised))
        if isinstance(items, Generator):
            items.close()

    # A daemon thread: a source that hangs must not keep the interpreter alive.
    threading.Thread(target=work, name="jdl-ahead", daemon=True).start()
    try:
        requests.put(True)
        while True:
            item, raised = results.get()
            if isinstance(raised, StopIteration):
                return
            if raised is not None:
                raise raised
            requests.put(True)
            yield item.pop()  # keeps no reference to the item
    finally:
        requests.put(False)


def stacks_of_batches(
    feed: Feed, start: int, size: int, rows: np.ndarray | None = None
) -> Generator[Arrays, None, None]:
    """Iterate over stacks (size, batch, ...) of the batches of `size` steps each, from `start`.

    `rows` are the positions in each batch that this process feeds. Arrays in memory are gathered a
    whole stack at once; sources and memory-mapped arrays are read by the threads of `Feed.stream`.
    """
    if isinstance(feed.data, dict) and not any(map(_is_on_disk, feed.data.values())):
        for first in range(start, MAX_STEPS, size):
            yield feed.batches(first, size, rows)
        return
    with closing(feed.stream(start, rows=rows)) as stream:
        for first in range(start, MAX_STEPS, size):
            batches = list(itertools.islice(stream, size))
            if len(batches) < size:  # a step would train on the batch before it
                raise RuntimeError(f"the stream of batches ended at step {first + len(batches)}")
            yield {key: stack(key, batches) for key in batches[0]}


def _is_on_disk(array: Any) -> bool:
    """Whether the array is a memory-mapped file, or a view of one."""
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return False
