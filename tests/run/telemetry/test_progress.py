"""The screen says where a run is."""

import errno
import io
import re
import sys

import pytest

from jdl.run.telemetry import progress as module
from jdl.run.telemetry.progress import ProgressBar


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module.time, "monotonic", clock)
    return clock


class Terminal(io.StringIO):
    def isatty(self):
        return True


def train(bar, clock, seconds=60):
    """600 steps of 0.1 seconds, with numbers every 100."""
    for step in range(1, 601):
        clock.now += seconds / 600
        bar.at(step)
        if step % 100 == 0:
            numbers = {"step": step, "epoch": step / 60, "loss": 1 / step, "steps_per_second": 10.0}
            bar.show(step, "train", numbers)
            bar.show(step, "valid", {"step": step, "epoch": step / 60, "accuracy": 0.98765})
    bar.close()


def test_without_a_terminal_plain_lines_now_and_then(clock):
    out = io.StringIO()
    train(ProgressBar(600, file=out), clock)
    lines = out.getvalue().splitlines()
    assert "\x1b" not in out.getvalue() and "\r" not in out.getvalue()
    assert len(lines) == 7, lines
    assert lines[0] == "step 1/600"
    assert re.fullmatch(
        r"epoch 5\.0  \|  step 30\d/600  \|  loss 0\.003333  \|  valid accuracy 0\.9877  \|  "
        r"10 steps/s  \|  0:\d\d left",
        lines[3],
    )
    assert lines[-1] == (
        "epoch 10.0  |  step 600/600  |  loss 0.001667  |  valid accuracy 0.9877  |  10 steps/s"
    )


def test_on_a_terminal_a_bar(clock, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    out = Terminal()
    before = sys.stdout, sys.stderr
    train(ProgressBar(600, file=out), clock)
    text = out.getvalue()
    assert "\x1b[" in text and "step 600/600" in text and "valid accuracy 0.9877" in text
    assert text.count("step") < 600  # not drawn at every step
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is back
    assert (sys.stdout, sys.stderr) == before


def test_what_the_program_prints_does_not_go_where_the_bar_goes(clock, monkeypatch, capsys):
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    bar = ProgressBar(2, file=out)
    bar.at(1)
    print("hello")
    bar.close()
    assert capsys.readouterr().out == "hello\n"
    assert "hello" not in out.getvalue()


def test_a_dumb_terminal_gets_plain_lines(clock, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    out = Terminal()
    train(ProgressBar(600, file=out), clock)
    assert out.getvalue() and "\x1b" not in out.getvalue()


def test_quiet(clock):
    for out in (io.StringIO(), Terminal()):
        train(ProgressBar(600, shown=False, file=out), clock)
        assert out.getvalue() == ""


def test_a_resumed_run_measures_its_own_speed(clock):
    out = io.StringIO()
    bar = ProgressBar(1000, file=out)
    bar.at(900)
    clock.now += 20
    bar.at(920)
    assert out.getvalue().splitlines()[-1] == "step 920/1000  |  1 steps/s  |  1:20 left"


def test_close_says_where_it_ended_once(clock):
    out = io.StringIO()
    bar = ProgressBar(10, file=out)
    bar.close()
    assert out.getvalue() == ""
    bar.at(1)
    bar.at(4)
    bar.close()
    bar.close()
    assert [line.split("  ")[0] for line in out.getvalue().splitlines()] == [
        "step 1/10",
        "step 4/10",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3661, "1:01:01")]
)
def test_remaining_time(seconds, text):
    assert module._clock(seconds) == text


def test_words_in_brackets_are_shown_as_they_are(clock, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    out = Terminal()
    bar = ProgressBar(2, file=out)
    bar.show(1, "train", {"loss[red]": 1.0})
    bar.close()
    assert "loss[red] 1" in out.getvalue()


def test_at_is_cheap():
    """The loop calls it for every dispatch."""
    import timeit

    bar = ProgressBar(10, file=io.StringIO())
    bar.at(1)
    assert min(timeit.repeat(lambda: bar.at(2), number=200, repeat=10)) / 200 < 50e-6


class WritesOnly:
    """What some programs use as standard error."""

    def write(self, text):
        return len(text)

    def flush(self):
        pass


class Gone(io.StringIO):
    """A pipe that nobody reads any more."""

    def write(self, text):
        raise BrokenPipeError


class HungUp(Terminal):
    """A terminal whose connection has ended."""

    def write(self, text):
        raise OSError(errno.EIO, "Input/output error")


def closed():
    file = io.StringIO()
    file.close()
    return file


@pytest.mark.parametrize("file", [None, WritesOnly(), closed(), Gone(), HungUp()], ids=type)
def test_a_screen_that_is_gone_ends_no_run(file, clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", file)
    monkeypatch.setattr(sys, "stdout", None)
    train(ProgressBar(600), clock)
    assert sys.stdout is None
