"""Ctrl-C and SIGTERM: noticed between dispatches, so that nothing is lost."""

import signal
import threading
from types import FrameType
from typing import Any


class Interrupted(KeyboardInterrupt):
    """A run was asked to stop, and did, with its state saved in its folder (if it has one)."""

    def __init__(self, number: int, step: int, result: Any):
        super().__init__(f"stopped by {signal.Signals(number).name} after step {step}")
        self.signal, self.step, self.result = number, step, result


class Signals:
    """Within the block a first Ctrl-C is only noted (as is SIGTERM, where `terminate` says so).

    A second Ctrl-C interrupts at once. Off the main thread nothing is installed.
    """

    def __init__(self, terminate: bool):
        self.received: int | None = None
        self._numbers = [signal.SIGINT, signal.SIGTERM] if terminate else [signal.SIGINT]
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            for number in self._numbers:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number
