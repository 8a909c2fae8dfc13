"""Read-ahead by step, with one thread or several, whichever is faster."""

import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, wait
from contextlib import closing, suppress
from typing import Generic, TypeVar

Item = TypeVar("Item")

THREADS = 4
"""Reading threads, where several are faster than one."""

MAX_STEPS = 2**31
"""Steps are below this number."""


def read_in_threads(
    read: Callable[[int], Item], start: int, threads: int | None, ahead: int
) -> Generator[Item, None, None]:
    """Iterate over `read(start)`, `read(start + 1)`, ... in threads; at most `ahead` results wait.

    With `threads=None` the first few are timed with one thread and with four, and the faster
    setting is used from then on: threads help if reading waits for a disk, and hurt if it holds the
    GIL. The threads end when you close or drop the iterator; nothing waits for a read that hangs.
    """
    if threads is None:
        yield from _autotuned(read, start, ahead)
    else:
        with closing(_Readers(read, threads)) as readers:
            yield from _read_on(readers, start, ahead)


class _Readers(Generic[Item]):
    """Daemon threads that call `read`.

    Those of `ThreadPoolExecutor` are none: a source that hangs would keep the interpreter alive.
    """

    def __init__(self, read: Callable[[int], Item], threads: int):
        self._requests = requests = queue.SimpleQueue[tuple[int, Future[Item]] | None]()
        self._threads = threads

        def work() -> None:
            while _answer(read, requests.get()):
                pass

        for number in range(threads):
            threading.Thread(target=work, name=f"jdl-read-{number}", daemon=True).start()

    def request(self, step: int) -> Future[Item]:
        """The future result of `read(step)`."""
        future: Future[Item] = Future()
        self._requests.put((step, future))
        return future

    def close(self) -> None:
        """End the threads after the reads that have begun; nothing waits for these."""
        with suppress(queue.Empty):
            while True:
                self._requests.get_nowait()
        for _ in range(self._threads):
            self._requests.put(None)


def _answer(read: Callable[[int], Item], request: tuple[int, Future[Item]] | None) -> bool:
    """Answer one request; False if there are no more. Keeps no reference to the result."""
    if request is None:
        return False
    step, future = request
    try:
        future.set_result(read(step))
    except BaseException as raised:
        future.set_exception(raised)
    return True


def _read_on(readers: _Readers[Item], start: int, ahead: int) -> Generator[Item, None, None]:
    requests = map(readers.request, range(start, MAX_STEPS))
    waiting = deque(itertools.islice(requests, max(1, ahead)))
    while waiting:
        waiting.extend(itertools.islice(requests, 1))
        yield waiting.popleft().result()


def _autotuned(read: Callable[[int], Item], start: int, ahead: int) -> Generator[Item, None, None]:
    # The first read may import modules and open files, so it is not timed.
    yield read(start)
    begin = time.perf_counter()
    item = read(start + 1)
    single_seconds = time.perf_counter() - begin
    yield item
    few = range(start + 2, start + 2 + THREADS)
    with closing(_Readers(read, THREADS)) as readers:
        begin = time.perf_counter()
        items = deque(map(readers.request, few))
        wait(items)
        pooled_seconds = (time.perf_counter() - begin) / THREADS
        while items:
            yield items.popleft().result()
        if pooled_seconds < single_seconds:
            yield from _read_on(readers, few.stop, ahead)
            return
    yield from read_in_threads(read, few.stop, 1, ahead)
