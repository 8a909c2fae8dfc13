"""A command in the process of a test."""

import pytest

from jdl.cli import main


@pytest.fixture
def call(capfd, monkeypatch, tmp_path):
    """A command in this process: (exit code, stdout, stderr). Each test has its own directory."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        capfd.readouterr()
        try:
            main.command([str(word) for word in words])
            code = 0
        except SystemExit as end:
            code = end.code or 0
        return code, *capfd.readouterr()

    return run
