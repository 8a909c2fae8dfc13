"""What happened to the time of a run: every second stands in one account."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

CATEGORIES = ("setup", "compile", "data", "compute", "evaluate", "save", "other")
"""Setting up and measuring the form of dispatch; tracing and compiling; waiting for batches and
moving them; steps; evaluations; checkpoints; the log and whatever else."""

_COMPILED = "/jax/core/compile/backend_compile_duration"
_WORK = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    _COMPILED,
)
_RECALLED = "/jax/compilation_cache/cache_hits"


class TimeBreakdown:
    """A clock whose seconds all go to one account: that of the innermost `span` they pass in.

    Outside of every span they are "setup". While it is entered, as a context, it listens to JAX:
    what this thread spends on tracing and compiling goes from the open account to "compile".

    A program runs while Python goes on, so an account is what the loop has waited for: batches that
    are ready in time cost nothing under "data", and a checkpoint that is written beside the next
    steps costs under "save" what it keeps them from running.

    >>> clock = TimeBreakdown()
    >>> with clock.span("compute"), clock.span("save"):
    ...     time.sleep(0.01)
    >>> clock.seconds["save"] > 0.01 > clock.seconds["compute"]
    True
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(CATEGORIES, 0.0)
        self.compiled: Counter[str] = Counter()
        """Programs by name, those included that were recalled from the disk."""
        self.recalled = 0
        """How many of them were."""
        self.recompiled: list[dict[str, Any]] = []
        """Compilations of a program after its first: its name, and the leaves that differed."""
        self.devices = 1
        """Devices that the run is on."""
        self.program: Any = None
        """The compiled step, whose `flops()` are known once the run has one."""
        self._open = ["setup"]
        self._at = time.perf_counter()
        self._thread = threading.get_ident()
        self._heard: list[tuple[float, float]] = []

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """While this is open, time goes to the account of that name."""
        self._turn()
        self._open.append(name)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def total(self) -> float:
        """Seconds since the clock was made: the sum of all accounts."""
        self._turn()
        return sum(self.seconds.values())

    def __enter__(self) -> "TimeBreakdown":
        jax.monitoring.register_event_duration_secs_listener(self._hear)
        jax.monitoring.register_event_listener(self._hear_event)
        return self

    def __exit__(self, *raised: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._hear)
        jax.monitoring.unregister_event_listener(self._hear_event)

    def _turn(self) -> None:
        now = time.perf_counter()
        self.seconds[self._open[-1]] += now - self._at
        self._at = now

    def _hear(self, event: str, duration_secs: float, **about: Any) -> None:
        if event not in _WORK or threading.get_ident() != self._thread:
            return
        began, within = time.perf_counter() - duration_secs, 0.0
        # A function that is traced inside another has been heard of before it, and counts once.
        while self._heard and self._heard[-1][0] >= began:
            within += self._heard.pop()[1]
        self._heard.append((began, duration_secs))
        self.seconds["compile"] += duration_secs - within
        self.seconds[self._open[-1]] -= duration_secs - within
        if event == _COMPILED:
            self.compiled[str(about.get("fun_name"))] += 1

    def _hear_event(self, event: str, **about: Any) -> None:
        if event == _RECALLED and threading.get_ident() == self._thread:
            self.recalled += 1
