"""The time of a run by category, and its compilations."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

CATEGORIES = ("setup", "compile", "data", "compute", "evaluate", "save", "other")
"""Setup; tracing and compiling; waiting for batches and moving them; steps; evaluations;
checkpoints; the log and everything else."""

_COMPILED = "/jax/core/compile/backend_compile_duration"
_WORK = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    _COMPILED,
)
_CACHE_HIT = "/jax/compilation_cache/cache_hits"


class TimeBreakdown:
    """A clock that adds each second to one category: that of the innermost open `span`.

    Outside of every span the category is "setup". Inside `with clock:` the time that this thread
    spends on tracing and compiling goes to "compile" instead.

    Programs run asynchronously, so a category holds the time that the loop waits: batches that are
    ready in time cost no "data", and a checkpoint that is written in the background costs as much
    "save" as it delays the next steps.

    >>> clock = TimeBreakdown()
    >>> with clock.span("compute"), clock.span("save"):
    ...     time.sleep(0.01)
    >>> clock.seconds["save"] > 0.01 > clock.seconds["compute"]
    True
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(CATEGORIES, 0.0)
        self.compiled: Counter[str] = Counter()
        """Compilations by name of the program, including those read from the compilation cache."""
        self.recalled = 0
        """Compilations read from the compilation cache."""
        self.recompiled: list[dict[str, Any]] = []
        """Compilations of a program after its first: its name, and the leaves that differ."""
        self.devices = 1
        """Number of devices of the run."""
        self.program: Any = None
        """The compiled step, a `CompilationMonitor`; None before the run has one."""
        self._open = ["setup"]
        self._at = time.perf_counter()
        self._thread = threading.get_ident()
        self._events: list[tuple[float, float]] = []

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """In the block, time goes to the category of that name."""
        self._add()
        self._open.append(name)
        try:
            yield
        finally:
            self._add()
            self._open.pop()

    def total(self) -> float:
        """Seconds since the clock was created: the sum of all categories."""
        self._add()
        return sum(self.seconds.values())

    def __enter__(self) -> "TimeBreakdown":
        jax.monitoring.register_event_duration_secs_listener(self._on_duration)
        jax.monitoring.register_event_listener(self._on_event)
        return self

    def __exit__(self, *raised: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._on_duration)
        jax.monitoring.unregister_event_listener(self._on_event)

    def _add(self) -> None:
        now = time.perf_counter()
        self.seconds[self._open[-1]] += now - self._at
        self._at = now

    def _on_duration(self, event: str, duration_secs: float, **about: Any) -> None:
        if event not in _WORK or threading.get_ident() != self._thread:
            return
        began, nested = time.perf_counter() - duration_secs, 0.0
        # A function that is traced inside another reports first, and must count once.
        while self._events and self._events[-1][0] >= began:
            nested += self._events.pop()[1]
        self._events.append((began, duration_secs))
        self.seconds["compile"] += duration_secs - nested
        self.seconds[self._open[-1]] -= duration_secs - nested
        if event == _COMPILED:
            self.compiled[str(about.get("fun_name"))] += 1

    def _on_event(self, event: str, **about: Any) -> None:
        if event == _CACHE_HIT and threading.get_ident() == self._thread:
            self.recalled += 1
