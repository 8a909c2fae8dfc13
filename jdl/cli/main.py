"""The entry points of the command line, and the table of its commands."""

import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

COMMANDS = {
    "train": "FILE.py [--field value ...] [--run.dir DIR ...]: train, or resume a run",
    "sweep": "FILE.py --sweep.field 1,2,3 [--field value ...]: train every combination at once",
    "check-sharding": "FILE.py [--field value ...]: compare every layout with one device",
    "plan": "FILE.py [--field value ...] [--topology v5e:16x16]: estimate whether a step fits",
    "evaluate": "RUN [--json]: evaluate a run on its test set",
    "predict": "RUN INPUT [--out FILE.csv]: predict for an npz, npy, csv or image file",
    "report": "RUN: write the report of a run again",
    "list": "[DIR]: list the runs in a directory (default: runs)",
}
"""The arguments and the purpose of each command. Its code is the function `command` in the module
of `jdl.cli` with the command's name."""


def usage() -> str:
    """The text of `jdl --help`.

    >>> print(usage().splitlines()[2])
      jdl train FILE.py [--field value ...] [--run.dir DIR ...]     train, or resume a run
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
            "`jdl COMMAND --help` lists the arguments of a command, `jdl train FILE.py --help` the",
            "fields of an experiment and the run options.",
            "Exit codes: 0 success, 1 a check failed or a plan does not fit, 2 invalid input,",
            "3 training diverged, 4 another process failed, 130 stopped by Ctrl-C (run saved).",
        ]
    )


def command(arguments: list[str] | None = None) -> None:
    """Run the program `jdl`; it imports only what the command needs, and nothing for `--help`."""
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
    """Run an experiment's file as a program: `python FILE.py` then equals `jdl train FILE.py`.

    Its flags are the fields of the dataclass `config` and the options of a run (`--run.dir`, ...).
    Errors of the user end the program with a message and an exit code. End the file with:

        if __name__ == "__main__":
            jdl.main(Config, experiment)
    """
    from jdl.cli import train

    given = sys.argv[1:] if arguments is None else arguments
    _guarded(lambda args: train.train(config, experiment, args), given)


def _dispatch(given: list[str]) -> int | None:
    from jdl.cli.command_help import command_help, takes_experiment
    from jdl.core.errors import did_you_mean, error

    name, rest = given[0], given[1:]
    if name not in COMMANDS:
        raise error(
            "jdl",
            expected=f"a command: {', '.join(COMMANDS)}",
            got=name,
            fix=did_you_mean(name, COMMANDS),
        )
    if {"-h", "--help"} & set(rest[:1] if takes_experiment(name) else rest):
        print(command_help(name, COMMANDS[name]))
        return None
    return import_module(f"jdl.cli.{name.replace('-', '_')}").command(rest)


def _guarded(call: Callable[[list[str]], int | None], given: list[str]) -> None:
    """Run a command; an error that the user can fix ends it with a message and an exit code."""
    from jdl.cli.terminal import allow_any_text
    from jdl.core.errors import Diverged, InputError

    allow_any_text()
    try:
        code = call(given)
    except InputError as bad:
        _end(f"jdl: {bad}", 2)
    except Diverged as bad:
        _end(f"jdl: {bad}", 3)
    except BrokenPipeError:  # the reader, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt as stop:
        import signal

        terminated = getattr(stop, "signal", None) == signal.SIGTERM
        _end(
            f"jdl: {getattr(stop, 'reason', str(stop)) or 'interrupted'}", 0 if terminated else 130
        )
    else:
        if code:
            sys.exit(code)


def _end(message: str, code: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    command()
