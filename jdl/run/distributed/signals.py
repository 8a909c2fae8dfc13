"""Ctrl-C and SIGTERM, handled between dispatches so that nothing is lost."""

import os
import signal
import threading
from types import FrameType
from typing import Any


class Interrupted(KeyboardInterrupt):
    """A signal stopped the run, after its state was saved (if it has a run directory).

    `signal` is the signal's number, `step` the last step, `result` the `Result` up to there, and
    `reason` the message alone. After an interrupted cell of a notebook, `sys.last_value.result` is
    the result.
    """

    def __init__(self, number: int, step: int, result: Any):
        self.reason = f"stopped by {signal.Signals(number).name} after step {step}"
        super().__init__(
            f"{self.reason}; the exception's .result is the result so far "
            "(in a notebook: sys.last_value.result)"
        )
        self.signal, self.step, self.result = number, step, result


class Signals:
    """In the block, the first Ctrl-C (and SIGTERM, with `terminate`) only sets `received`.

    A second Ctrl-C raises KeyboardInterrupt. Outside the main thread this does nothing.
    """

    def __init__(self, terminate: bool):
        self.received: int | None = None
        self._numbers = [signal.SIGINT, signal.SIGTERM] if terminate else [signal.SIGINT]
        self._before: dict[int, Any] = {}
        self._process = os.getpid()

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            for number in self._numbers:
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def pass_on(self) -> int | None:
        """After a block that ended by itself: the signal it received, for the caller to raise.

        If the program has a handler of its own for it, this calls the handler and returns None.
        """
        handler = None if self.received is None else self._before[self.received]
        if self.received is None or not callable(handler) or handler is signal.default_int_handler:
            return self.received
        signal.raise_signal(self.received)
        return None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # in a child that was forked in the block
            signal.signal(number, self._before[number])
            signal.raise_signal(number)
            return
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number
