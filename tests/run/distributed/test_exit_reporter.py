"""A process that is ended from below Python has somebody to say so, and no other process has."""

import subprocess
import sys

import pytest

from jdl.run.distributed import exit_reporter

PROGRAM = """
import os, signal, sys
from jdl.run.distributed.exit_reporter import exit_reporter
dismiss = exit_reporter(3)
{end}
"""
INTERRUPTED = """
signal.signal(signal.SIGINT, signal.SIG_IGN)
os.killpg(0, signal.SIGINT)
dismiss()
"""
SILENT = {
    "dismissed": "dismiss()",
    "dismissed twice": "dismiss(); dismiss()",
    "dismissed, and gone at once": "dismiss(); os._exit(4)",
    "interrupted with its group": INTERRUPTED,
}
SAID = {
    "aborted": "os.abort()",
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "gone": "os._exit(1)",
}


def heard(end: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(end=end)],
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,
    )
    return run.stderr


@pytest.mark.parametrize("end", SAID)
def test_an_end_from_below_is_said(end):
    assert exit_reporter.exit_message(3) in heard(SAID[end]).splitlines()


@pytest.mark.parametrize("end", SILENT)
def test_an_end_that_was_said_is_not_said_again(end):
    assert heard(SILENT[end]) == ""


def test_without_a_shell_there_is_no_witness(monkeypatch):
    monkeypatch.setattr(exit_reporter.os, "access", lambda *_: False)
    monkeypatch.setattr(exit_reporter.subprocess, "Popen", lambda *_, **__: pytest.fail("no shell"))
    exit_reporter.exit_reporter(0)()
