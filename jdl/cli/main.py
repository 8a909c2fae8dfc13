"""The command line: a table of commands, one module each."""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

COMMANDS = {
    "train": "FILE.py [--field value ...] [--run.dir FOLDER ...]: train, or resume a run",
    "sweep": "FILE.py --sweep.field 1,2,3 [--field value ...]: every combination in one program",
    "check-sharding": "FILE.py [--field value ...]: compare every layout with one device",
    "plan": "FILE.py [--field value ...] [--topology v5e:16x16]: does a step fit, and where not",
    "evaluate": "RUN [--json]: the test set, from a run directory",
    "predict": "RUN INPUT [--out FILE.csv]: predictions for an npz, npy, csv or image file",
    "report": "RUN: write the run's report anew",
    "list": "[FOLDER]: the runs in a folder (runs/)",
}
"""One line a command: its arguments and what it does. Its code is `command` in the module of
`jdl.cli` with its name."""


def usage() -> str:
    """What `jdl --help` prints.

    >>> print(usage().splitlines()[2])
      jdl train FILE.py [--field value ...] [--run.dir FOLDER ...]   train, or resume a run
    """
    lines = [(f"jdl {name} {text.partition(': ')[0]}", text) for name, text in COMMANDS.items()]
    width = max(len(call) for call, _ in lines)
    table = [f"  {call:<{width}}   {text.partition(': ')[2]}" for call, text in lines]
    return "\n".join(
        [
            "jdl: deep learning on JAX, where a training run is a few pure functions",
            "",
            *table,
            "",
            "`jdl train FILE.py --help` lists an experiment's fields and the options of a run.",
            "Exit codes: 0 done, 1 a check failed or a plan does not fit, 2 unusable input, "
            "3 diverged,",
            "4 another process failed, 130 stopped by Ctrl-C (nothing is lost).",
        ]
    )


def command(arguments: list[str] | None = None) -> None:
    """The program `jdl`. Loads no more than the command needs: `--help` needs nothing."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] in ("-h", "--help", "help"):
        print(usage())
        return
    if given[0] == "--version":
        from jdl import __version__

        print(f"jdl {__version__}")
        return
    _guarded(_dispatch, given)


def main(
    config: type, experiment: Callable[[Any], Any], arguments: list[str] | None = None
) -> None:
    """End an experiment's file with this, so that `python FILE.py` is `jdl train FILE.py`.

    Flags are the fields of the dataclass `config`, next to the options of a run (`--run.dir`, ...).
    """
    from jdl.cli import train

    given = sys.argv[1:] if arguments is None else arguments
    _guarded(lambda args: train.train(config, experiment, args), given)


def _dispatch(given: list[str]) -> int | None:
    from jdl.core.errors import did_you_mean, error

    name, rest = given[0], given[1:]
    if name not in COMMANDS:
        raise error(
            "jdl",
            expected=f"a command: {', '.join(COMMANDS)}",
            got=name,
            fix=did_you_mean(name, COMMANDS),
        )
    if rest[:1] in (["-h"], ["--help"]):
        print(usage())
        return None
    return import_module(f"jdl.cli.{name.replace('-', '_')}").command(rest)


def _guarded(call: Callable[[list[str]], int | None], given: list[str]) -> None:
    """Run a command; what the user can mend is one message and an exit code, not a traceback."""
    from jdl.core.errors import Diverged, InputError

    try:
        code = call(given)
    except InputError as bad:
        _end(f"jdl: {bad}", 2)
    except Diverged as bad:
        _end(f"jdl: {bad}", 3)
    except KeyboardInterrupt as stop:
        import signal

        terminated = getattr(stop, "signal", None) == signal.SIGTERM
        _end(f"jdl: {str(stop) or 'interrupted'}", 0 if terminated else 130)
    else:
        if code:
            sys.exit(code)


def _end(message: str, code: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    command()
