"""The watchdog of several processes: a fault in one ends all of them within seconds, with a reason.

Without it an exception in one process leaves the others blocked inside a collective for minutes,
where no Python runs. So each process has two threads that do not train. One exchanges heartbeats
through the key-value store of `jax.distributed`; the other checks them, and ends the process with
`os._exit`. Process 0 checks all processes, the others check process 0.
"""

import faulthandler
import json
import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple, NoReturn

import jax

from jdl.core.errors import Diverged, InputError
from jdl.run.distributed.collectives import is_failed_collective
from jdl.run.distributed.exit_reporter import exit_reporter
from jdl.run.distributed.signals import Interrupted

EXIT_CODE_OTHER_FAILED = 4
"""Exit code of a process that ends because another one failed."""

SECONDS_BETWEEN_CHECKS = 0.5
"""Seconds between two checks."""


class Heartbeat(NamedTuple):
    """The status that a process reports."""

    number: int
    """Counts heartbeats; grows as long as the process runs."""
    place: int
    """Counts phases of training, in the same way in all processes."""
    limit: float
    """Seconds that the process may stay in this phase while others are ahead."""
    doing: str
    """The phase, such as "training after step 40"."""


FINAL_PHASE = "done"
JOINING_HEARTBEAT = Heartbeat(0, 0, math.inf, "joining")
"""The heartbeat of a process that has not reported yet."""


class Failure(NamedTuple):
    """The process that failed, and the reason."""

    process: int
    reason: str


class HealthCheck:
    """Finds a process that is silent, or that keeps the others waiting.

    >>> check = HealthCheck(limit=5)
    >>> ahead, behind = Heartbeat(1, 8, 5, "step 40"), Heartbeat(1, 7, 5, "step 30")
    >>> check({0: ahead, 1: behind}, now=0)
    >>> check({0: ahead._replace(number=2), 1: behind._replace(number=2)}, now=6).reason
    'process 1 has not moved for 6 s while others wait for it, at: step 30'
    """

    def __init__(self, limit: float):
        self._limit = limit
        self._numbers: dict[int, tuple[Any, float]] = {}
        self._places: dict[int, tuple[Any, float]] = {}

    def __call__(self, beats: Mapping[int, Heartbeat | None], now: float) -> Failure | None:
        """The first fault, if any. `now` is in seconds on a clock that stops with this process."""
        ahead = max((b.place for b in beats.values() if b and b.doing != FINAL_PHASE), default=0)
        for process, beat in beats.items():
            number, place, limit, doing = beat or JOINING_HEARTBEAT
            if doing == FINAL_PHASE:
                continue
            silent = now - self._since(self._numbers, process, number, now)
            behind = now - self._since(self._places, process, (place, place < ahead), now)
            if silent > self._limit:
                return Failure(
                    process,
                    f"process {process} has been silent for {silent:.0f} s (last seen at: {doing}):"
                    " it was killed or frozen, or its machine is down",
                )
            if place < ahead and behind > limit:
                return Failure(
                    process,
                    f"process {process} has not moved for {behind:.0f} s while others wait for it, "
                    f"at: {doing}",
                )
        return None

    @staticmethod
    def _since(seen: dict[int, tuple[Any, float]], process: int, value: Any, now: float) -> float:
        """The time since when the value is the same."""
        if process not in seen or seen[process][0] != value:
            seen[process] = (value, now)
        return seen[process][1]


class Watchdog:
    """The two watchdog threads of one process.

    `limit` is the seconds that a process may be silent or keep others waiting; `start` the seconds
    for a phase that takes longer: the first of its kind, which compiles, or one reported as slow.
    """

    def __init__(self, client: Any, index: int, count: int, limit: float, start: float):
        self._client, self._index, self._count = client, index, count
        self._limit, self._start = limit, start
        self._place, self._now, self._allowed = 0, "starting", start
        self._known: set[str] = set()
        self._beats: dict[int, Heartbeat | None] = {}
        self._reported: Failure | None = None
        self._answered = 0
        self._key = f"jdl/{'others' if index else 'first'}/{index}"
        self._over, self._ending = threading.Event(), threading.Lock()
        self._dismiss = exit_reporter(index)

    def begin(self) -> None:
        """Start both threads."""
        for work in (self._exchange, self._check):
            threading.Thread(target=work, name=f"jdl{work.__name__}", daemon=True).start()

    def at(self, doing: str, step: int | None = None, slow: bool = False) -> None:
        """Report that the training thread enters a phase, the same in every process."""
        self._known.add(self._now.partition(" ")[0])
        self._allowed = self._start if slow or doing not in self._known else self._limit
        self._now = doing if step is None else f"{doing} after step {step}"
        self._place += 1

    def leave(self) -> None:
        """Wait until all processes are done, and stop the watchdog."""
        self._now = FINAL_PHASE
        self._client.wait_at_barrier("jdl/done", 24 * 3600 * 1000)
        self._over.set()
        self._dismiss()

    def fail(self, failure: BaseException) -> NoReturn:
        """End this process because of an exception, and report it to the others."""
        # A failed collective is usually caused by another process. Wait for the check thread, which
        # will soon know that process, and end with its reason.
        if is_failed_collective(failure):
            time.sleep(self._limit + 4 * SECONDS_BETWEEN_CHECKS)
        self._ending.acquire()
        text = f"{type(failure).__name__}: {failure}".strip()
        if isinstance(failure, InputError):
            text = str(failure)
        elif isinstance(failure, SystemExit):
            text = f"exit code {failure.code or 0} before the end of the run"
        else:
            traceback.print_exception(failure)
        reason = f"process {self._index} has ended. {text}"
        self._end(Failure(self._index, reason), _exit_code(failure))

    def _end_with(self, failure: Failure, report: bool = True) -> NoReturn:
        """End this process because of a failure that a check found."""
        self._ending.acquire()  # only one thread ends the process
        self._end(failure, EXIT_CODE_OTHER_FAILED, report)

    def _end(self, failure: Failure, code: int, report: bool = True) -> NoReturn:
        """Print the reason, report it to the others, and exit."""
        sys.stdout.flush()
        print(f"jdl: process {self._index} ends. {failure.reason}", file=sys.stderr, flush=True)
        if failure.process == self._index and code == EXIT_CODE_OTHER_FAILED:
            faulthandler.dump_traceback()
        if report:
            reporter = threading.Thread(target=self._report, args=(failure,), daemon=True)
            reporter.start()
            reporter.join(2.0)  # process 0 may be frozen
        if self._index == 0:
            # Process 0 holds the store from which the others read the reason.
            time.sleep(2 * SECONDS_BETWEEN_CHECKS)
        self._dismiss()
        os._exit(code)

    def _report(self, failure: Failure) -> None:
        try:
            self._client.key_value_set("jdl/failure/first", json.dumps(failure))
        except jax.errors.JaxRuntimeError:  # reported already, or process 0 is gone
            return

    def _exchange(self) -> None:
        """Send and receive heartbeats, as long as process 0 answers."""
        number = 0
        while not self._over.is_set():
            number += 1
            beat = Heartbeat(number, self._place, self._allowed, self._now)
            try:
                self._client.key_value_set(self._key, json.dumps(beat), allow_overwrite=True)
                self._receive(beat)
            except jax.errors.JaxRuntimeError as unreachable:
                if not self._over.is_set():
                    reason = str(unreachable).splitlines()[0]
                    reason = f"process 0, which coordinates the others, has ended ({reason})"
                    self._end_with(Failure(0, reason), report=False)
            self._answered = number
            time.sleep(SECONDS_BETWEEN_CHECKS)

    def _receive(self, own: Heartbeat) -> None:
        failures = self._client.key_value_dir_get("jdl/failure")
        if failures:
            self._reported = Failure(*json.loads(failures[0][1]))
        texts = self._client.key_value_dir_get("jdl/others" if self._index == 0 else "jdl/first")
        beats = {int(key.rpartition("/")[2]): Heartbeat(*json.loads(text)) for key, text in texts}
        if self._index == 0:
            beats[0] = own
        watched = range(self._count) if self._index == 0 else [0]
        self._beats = {process: beats.get(process) for process in watched}

    def _check(self) -> None:
        """Check heartbeats on a clock of its own, which stops while this machine sleeps."""
        check_processes, check_store = HealthCheck(self._limit), HealthCheck(self._limit)
        clock, last = 0.0, time.monotonic()
        while not self._over.wait(SECONDS_BETWEEN_CHECKS):
            now = time.monotonic()
            clock, last = clock + min(now - last, 2 * SECONDS_BETWEEN_CHECKS), now
            store = Heartbeat(self._answered, 0, self._limit, "answering the others")
            failure = (
                self._reported
                or check_processes(self._beats, clock)
                or check_store({0: store}, clock)
            )
            if failure is not None and not self._over.is_set():
                self._end_with(failure)


def _exit_code(failure: BaseException) -> int:
    """The exit code of the same exception in a run of one process; never 0."""
    if isinstance(failure, SystemExit):
        return failure.code if isinstance(failure.code, int) and failure.code else 1
    known = {InputError: 2, Diverged: 3, KeyboardInterrupt: 130}
    return next((code for kind, code in known.items() if isinstance(failure, kind)), 1)


@contextmanager
def _silence() -> Iterator[None]:
    """Discard standard output, including what a library writes without Python."""
    sys.stdout.flush()
    stdout, devnull = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(stdout, 1)
        os.close(stdout)
        os.close(devnull)


@contextmanager
def watch_processes(limit: float, start: float) -> Iterator[Watchdog]:
    """In the block, a fault in any process ends all of them; only process 0 prints to stdout.

    `limit` and `start` are seconds, as in `Watchdog`. Pass `Options(on_phase=watchdog.at)` to the
    run. `Interrupted` and `Diverged`, which all processes raise at the same step, are raised again;
    any other exception ends the process here.
    """
    from jax._src import distributed  # the key-value store has no public name

    joined = distributed.global_state  # jax.process_index() would start the backend, unwatched
    index = joined.process_id
    watchdog = Watchdog(joined.client, index, joined.num_processes, limit, start)
    watchdog.begin()
    try:
        with _silence() if index else nullcontext():
            yield watchdog
        watchdog.leave()
    except (Interrupted, Diverged):
        watchdog.leave()
        raise
    except BaseException as failure:
        watchdog.fail(failure)
