"""Batches of a stream, put together in a thread beside the steps that come before them."""

import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any, TypeVar

import numpy as np

from jdl.data.arrays import Arrays
from jdl.data.feed import Feed, stack

Item = TypeVar("Item")


def prefetch(items: Iterator[Item]) -> Generator[Item, None, None]:
    """The same items; while one is used, the next is made in a thread.

    An error reaches whoever asks for that item. Closed or dropped, it leaves the item in work to
    the thread, which then closes `items` and ends; nobody waits for it.

    >>> list(prefetch(iter([1, 2])))
    [1, 2]
    """
    wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
    made: queue.SimpleQueue[tuple[list[Item], BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        while wanted.get():
            try:
                made.put(([next(items)], None))
            except BaseException as raised:
                made.put(([], raised))
        if isinstance(items, Generator):
            items.close()

    # A daemon, so that a source that hangs does not keep the interpreter from ending.
    threading.Thread(target=work, name="jdl-ahead", daemon=True).start()
    try:
        wanted.put(True)
        while True:
            item, raised = made.get()
            if isinstance(raised, StopIteration):
                return
            if raised is not None:
                raise raised
            wanted.put(True)
            yield item.pop()  # so that nothing here keeps it in memory
    finally:
        wanted.put(False)


def stacks_of_batches(
    feed: Feed, start: int, size: int, rows: np.ndarray | None = None
) -> Generator[Arrays, None, None]:
    """Stacks [size, B, ...] of the batches of steps start ... start + size - 1, the next size, ...

    `rows` are those of each batch that this process feeds. Arrays in memory are taken a whole
    stack at once; sources, and arrays on disk, are read by the threads of `Feed.stream`.
    """
    if isinstance(feed.data, dict) and not any(map(_is_on_disk, feed.data.values())):
        for first in range(start, 2**31, size):
            yield feed.batches(first, size, rows)
        return
    with closing(feed.stream(start, rows=rows)) as stream:
        while batches := [batch for _, batch in zip(range(size), stream, strict=False)]:
            yield {key: stack(key, batches) for key in batches[0]}


def _is_on_disk(array: Any) -> bool:
    """Whether it is, or is a view of, a file that is mapped to memory."""
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return False
