"""The progress bar."""

import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TextIO

from jdl.core.text import metrics_of


class ProgressBar:
    """Progress and newest metrics of a run: a bar on a terminal, else a line every 10 seconds.

    `shown=False` prints nothing. Calls are cheap: the bar is drawn at most four times a second.
    """

    def __init__(self, total: int, *, shown: bool = True, file: TextIO | None = None):
        self.total = total
        self.file = file or sys.stderr
        self._shown = shown and self.file is not None  # services may have no standard error
        self._live = self._shown and _is_terminal(self.file) and os.environ.get("TERM") != "dumb"
        self._interval = 0.25 if self._live else 10.0
        self._progress: Any = None
        self._texts: dict[str, str] = {}
        self._epoch: float | None = None
        self._step = 0
        self._drawn: int | None = None
        self._due = 0.0
        self._began: tuple[int, float] | None = None

    def at(self, step: int) -> None:
        """Set the current step."""
        self._step = step
        now = time.monotonic()
        if self._began is None:
            self._began = (step, now)
        if self._shown and now >= self._due:
            self._draw(now)

    def show(self, step: int, split: str, scalars: Mapping[str, float]) -> None:
        """Show the newest scalars of a split: the first four that are no times."""
        self._epoch = scalars.get("epoch", self._epoch)
        metrics = list(metrics_of(scalars).items())[:4]
        text = "  ".join(f"{name} {value:.4g}" for name, value in metrics)
        self._texts[split] = text if split == "train" else f"{split} {text}"
        self._drawn = None
        if self._shown and time.monotonic() >= self._due:
            self._draw(time.monotonic())

    def close(self) -> None:
        """Show the last step, and restore the terminal."""
        if self._shown and self._drawn != self._step and (self._step or self._texts):
            self._draw(time.monotonic())
        self._stop()

    def _stop(self) -> None:
        progress, self._progress = self._progress, None
        if progress is not None:
            with suppress(OSError, ValueError):
                progress.stop()

    def _line(self, now: float) -> str:
        parts = [f"step {self._step}/{self.total}"]
        if self._epoch is not None:
            parts.insert(0, f"epoch {self._epoch:.1f}")
        parts += self._texts.values()
        first, began = self._began or (self._step, now)
        if self._step > first and now > began:
            speed = (self._step - first) / (now - began)
            parts.append(f"{speed:.3g} steps/s")
            if self._step < self.total:
                parts.append(f"{_clock((self.total - self._step) / speed)} left")
        return "  |  ".join(parts)

    def _draw(self, now: float) -> None:
        self._due, self._drawn = now + self._interval, self._step
        try:
            self._write(now)
        except (OSError, ValueError):  # nobody reads the file any more, or it was closed
            self._shown = False
            self._stop()

    def _write(self, now: float) -> None:
        if not self._live:
            print(self._line(now), file=self.file, flush=True)
            return
        if self._progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            self._progress = Progress(
                BarColumn(bar_width=20),
                TextColumn("{task.description}", markup=False),
                console=Console(file=self.file),
                auto_refresh=False,
                # Else the program's own prints would go to the file of the bar.
                redirect_stdout=_is_terminal(sys.stdout),
            )
            self._progress.add_task("", total=self.total)
            self._progress.start()
        task = self._progress.task_ids[0]
        self._progress.update(task, completed=self._step, description=self._line(now), refresh=True)


def _is_terminal(file: Any) -> bool:
    """Whether a file is a terminal; objects that programs use as one may not tell."""
    try:
        return file.isatty()
    except (AttributeError, ValueError):
        return False


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds, such as "1:02:03"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
