"""The command line: `jdl train | sweep | plan | evaluate | predict | report | list`."""

import sys
from collections.abc import Callable
from typing import Any

USAGE = """\
jdl: deep learning on JAX, where a training run is a few pure functions

  jdl train FILE.py [--field value ...] [--run.dir FOLDER ...]   train, or go on with a run
  jdl sweep FILE.py --sweep.field 1,2,3 [--field value ...]      every combination in one program
  jdl check-sharding FILE.py [--field value ...]                 every layout against one device
  jdl plan FILE.py [--field value ...] [--topology v5e:16x16]    does a step fit, and where not
  jdl evaluate RUN [--json]                                      the test set, from a run's folder
  jdl predict RUN INPUT [--out FILE.csv]                         npz, npy, csv or an image
  jdl report RUN                                                 write the run's report anew
  jdl list [FOLDER]                                              the runs in a folder (runs/)

`jdl train FILE.py --help` lists the fields of an experiment and the options of a run.
Exit codes: 0 done, 1 a check failed or a plan does not fit, 2 unusable input, 3 diverged,
4 another process failed, 130 stopped by Ctrl-C (nothing is lost)."""

COMMANDS = (
    "train", "sweep", "plan", "check-sharding", "evaluate", "predict", "report", "list",
)  # fmt: skip


def command(arguments: list[str] | None = None) -> None:
    """The program `jdl`. Loads no more than the command needs: `--help` needs nothing."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] in ("-h", "--help", "help"):
        print(USAGE)
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
        print(USAGE)
        return None
    if name == "sweep":
        from jdl.cli.sweep import sweep_command

        return sweep_command(rest)
    if name == "check-sharding":
        from jdl.cli.check_sharding import check_sharding_command

        return check_sharding_command(rest)
    if name == "plan":
        from jdl.cli.plan import plan_command

        return plan_command(rest)
    from jdl.cli import train

    return getattr(train, f"{name}_command")(rest)


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
