"""Several processes end together: a fault in one is seen by all, said, and ends them in seconds.

An exception in one process would leave the others blocked inside a collective for minutes, where no
Python runs; so each process has two threads that do not train. One tells the others through the
key-value store of `jax.distributed` where its training is, and reads what they tell; the other
judges, and ends the process with `os._exit`. Process 0 judges all, the others judge process 0.
"""

import faulthandler
import json
import math
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple, NoReturn

import jax

from jdl.core.errors import Diverged, InputError
from jdl.run.distributed.exit_reporter import exit_reporter
from jdl.run.distributed.signals import Interrupted

EXIT_CODE_OTHER_FAILED = 4
"""The exit code of a process that ends because of another one."""

SECONDS_BETWEEN_CHECKS = 0.5
"""Seconds between two looks."""


class Heartbeat(NamedTuple):
    """What a process tells of itself."""

    number: int
    """Grows as long as its threads run."""
    place: int
    """Grows with its training, in the same way in all processes."""
    limit: float
    """Seconds that it may stay at this place while others are ahead."""
    doing: str


DONE = "done"
JOINING = Heartbeat(0, 0, math.inf, "joining")
"""Stands for a process that has told nothing yet."""


class Failure(NamedTuple):
    """Why all processes have to end, and because of which."""

    process: int
    reason: str


class HealthCheck:
    """Finds the process that is silent, or that keeps the others waiting.

    >>> judge = HealthCheck(limit=5)
    >>> ahead, behind = Heartbeat(1, 8, 5, "step 40"), Heartbeat(1, 7, 5, "step 30")
    >>> judge({0: ahead, 1: behind}, now=0)
    >>> judge({0: ahead._replace(number=2), 1: behind._replace(number=2)}, now=6).reason
    'process 1 has not moved for 6 s while others wait for it, at: step 30'
    """

    def __init__(self, limit: float):
        self._limit = limit
        self._spoke: dict[int, tuple[Any, float]] = {}
        self._stood: dict[int, tuple[Any, float]] = {}

    def __call__(self, beats: Mapping[int, Heartbeat | None], now: float) -> Failure | None:
        """The first fault there is; `now` is the judge's own time, which stops when it does."""
        ahead = max((b.place for b in beats.values() if b and b.doing != DONE), default=0)
        for process, beat in beats.items():
            number, place, limit, doing = beat or JOINING
            if doing == DONE:
                continue
            silent = now - self._since(self._spoke, process, number, now)
            behind = now - self._since(self._stood, process, (place, place < ahead), now)
            if silent > self._limit:
                return Failure(
                    process,
                    f"process {process} is silent since {silent:.0f} s (last seen at: {doing}): "
                    "it was killed or frozen, or its machine is gone",
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
        """When this value was first seen."""
        if process not in seen or seen[process][0] != value:
            seen[process] = (value, now)
        return seen[process][1]


class Watchdog:
    """The two threads of one process.

    `limit` is in seconds of silence or standstill, `start` in seconds for what may take longer: the
    first time of anything (it compiles), and whatever is said to be slow.
    """

    def __init__(self, client: Any, index: int, count: int, limit: float, start: float):
        self._client, self._index, self._count = client, index, count
        self._limit, self._start = limit, start
        self._place, self._now, self._allowed = 0, "starting", start
        self._known: set[str] = set()
        self._beats: dict[int, Heartbeat | None] = {}
        self._told: Failure | None = None
        self._answered = 0
        self._key = f"jdl/{'others' if index else 'first'}/{index}"
        self._over, self._ending = threading.Event(), threading.Lock()
        self._dismiss = exit_reporter(index)

    def begin(self) -> None:
        """Start both threads."""
        for work in (self._talk, self._look):
            threading.Thread(target=work, name=f"jdl{work.__name__}", daemon=True).start()

    def at(self, doing: str, step: int | None = None, slow: bool = False) -> None:
        """The training thread has come to its next work (the same in every process)."""
        self._known.add(self._now.partition(" ")[0])
        self._allowed = self._start if slow or doing not in self._known else self._limit
        self._now = doing if step is None else f"{doing} after step {step}"
        self._place += 1

    def leave(self) -> None:
        """Wait until all processes have come to their end, and stop watching."""
        self._now = DONE
        self._client.wait_at_barrier("jdl/done", 24 * 3600 * 1000)
        self._over.set()
        self._dismiss()

    def fail(self, failure: BaseException) -> NoReturn:
        """End this process because of an exception, and tell the others why."""
        # After an echo the watch knows in a moment whose end it was, and says so in its own thread.
        if _is_echo(failure):
            time.sleep(self._limit + 4 * SECONDS_BETWEEN_CHECKS)
        self._ending.acquire()
        text = f"{type(failure).__name__}: {failure}".strip()
        if isinstance(failure, InputError):
            text = str(failure)
        elif isinstance(failure, SystemExit):
            text = f"exit code {failure.code or 0} before the end of the run"
        else:
            traceback.print_exception(failure)
        self._end(Failure(self._index, f"process {self._index} has ended. {text}"), _code(failure))

    def _follow(self, verdict: Failure, tell: bool = True) -> NoReturn:
        """End this process by a verdict."""
        self._ending.acquire()  # one thread says it, once
        self._end(verdict, EXIT_CODE_OTHER_FAILED, tell)

    def _end(self, verdict: Failure, code: int, tell: bool = True) -> NoReturn:
        """Say why, in every process, and be gone."""
        sys.stdout.flush()
        print(f"jdl: process {self._index} ends. {verdict.reason}", file=sys.stderr, flush=True)
        if verdict.process == self._index and code == EXIT_CODE_OTHER_FAILED:
            faulthandler.dump_traceback()
        if tell:
            teller = threading.Thread(target=self._tell, args=(verdict,), daemon=True)
            teller.start()
            teller.join(2.0)  # process 0 may be frozen
        if self._index == 0:
            # It holds the store that the others read the reason from.
            time.sleep(2 * SECONDS_BETWEEN_CHECKS)
        self._dismiss()
        os._exit(code)

    def _tell(self, verdict: Failure) -> None:
        try:
            self._client.key_value_set("jdl/verdict/first", json.dumps(verdict))
        except jax.errors.JaxRuntimeError:  # told already, or nobody is left to listen
            return

    def _talk(self) -> None:
        """Tell and hear, for as long as process 0 answers."""
        number = 0
        while not self._over.is_set():
            number += 1
            beat = Heartbeat(number, self._place, self._allowed, self._now)
            try:
                self._client.key_value_set(self._key, json.dumps(beat), allow_overwrite=True)
                self._hear(beat)
            except jax.errors.JaxRuntimeError as failure:
                if not self._over.is_set():
                    gone = str(failure).splitlines()[0]
                    reason = f"process 0, which the others meet at, is gone ({gone})"
                    self._follow(Failure(0, reason), tell=False)
            self._answered = number
            time.sleep(SECONDS_BETWEEN_CHECKS)

    def _hear(self, own: Heartbeat) -> None:
        found = self._client.key_value_dir_get("jdl/verdict")
        if found:
            self._told = Failure(*json.loads(found[0][1]))
        texts = self._client.key_value_dir_get("jdl/others" if self._index == 0 else "jdl/first")
        heard = {int(key.rpartition("/")[2]): Heartbeat(*json.loads(text)) for key, text in texts}
        if self._index == 0:
            heard[0] = own
        watched = range(self._count) if self._index == 0 else [0]
        self._beats = {process: heard.get(process) for process in watched}

    def _look(self) -> None:
        """Judge, in a time of its own: a machine that sleeps or stalls is no fault of others."""
        judge, answers = HealthCheck(self._limit), HealthCheck(self._limit)
        clock, last = 0.0, time.monotonic()
        while not self._over.wait(SECONDS_BETWEEN_CHECKS):
            now = time.monotonic()
            clock, last = clock + min(now - last, 2 * SECONDS_BETWEEN_CHECKS), now
            store = Heartbeat(self._answered, 0, self._limit, "answering the others")
            verdict = self._told or judge(self._beats, clock) or answers({0: store}, clock)
            if verdict is not None and not self._over.is_set():
                self._follow(verdict)


def _is_echo(failure: BaseException | None) -> bool:
    """Whether a collective failed, most probably because another process has ended."""
    if failure is None:
        return False
    # Gloo's own errors come as ValueError, most others as JaxRuntimeError; both begin so.
    is_jax = isinstance(failure, ValueError | RuntimeError) and not isinstance(failure, InputError)
    is_status = is_jax and re.match(r"[A-Z_]+: ", str(failure)) is not None
    return is_status or _is_echo(failure.__cause__)


def _code(failure: BaseException) -> int:
    """The exit code that the same exception has in a run of one process; never 0."""
    if isinstance(failure, SystemExit):
        return failure.code if isinstance(failure.code, int) and failure.code else 1
    known = {InputError: 2, Diverged: 3, KeyboardInterrupt: 130}
    return next((code for kind, code in known.items() if isinstance(failure, kind)), 1)


@contextmanager
def _silence() -> Iterator[None]:
    """Nothing reaches standard output, not even what a library writes past Python."""
    sys.stdout.flush()
    screen, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(screen, 1)
        os.close(screen)
        os.close(nowhere)


@contextmanager
def watch_processes(limit: float, start: float) -> Iterator[Watchdog]:
    """Within the block a fault in any process ends all of them; process 0 alone prints.

    A run reports to the watchdog by `Options(on_phase=watchdog.at)`.

    An exception that all raise at the same step (a signal, training that diverged) goes on; any
    other one ends the process here.
    """
    from jax._src import distributed  # the key-value store has no public name

    joined = distributed.global_state  # asking jax itself would start its backend, unwatched
    index = joined.process_id
    watch = Watchdog(joined.client, index, joined.num_processes, limit, start)
    watch.begin()
    try:
        with _silence() if index else nullcontext():
            yield watch
        watch.leave()
    except (Interrupted, Diverged):
        watch.leave()
        raise
    except BaseException as failure:
        watch.fail(failure)
