"""`jdl report`: write a run's report anew."""

import sys

from jdl.cli import flags, process
from jdl.core.errors import InputError
from jdl.run.evaluate import Result
from jdl.run.experiment import Experiment, opened, restored
from jdl.run.storage.run_dir import RunFolder


def _report(made: Experiment, result: Result, folder: RunFolder) -> None:
    from jdl.report.predictions import evaluation_of
    from jdl.report.report import write_report

    pictures = made.pictures(result) if made.pictures else {}
    try:
        page = write_report(folder, evaluation=evaluation_of(made.data, result), pictures=pictures)
    except InputError as missing:
        print(f"no report: {missing}", file=sys.stderr)
        return
    print(f"report {page}")


def report_command(given: list[str]) -> int | None:
    """`jdl report RUN`."""
    run, rest = flags.first(given, "jdl report RUN", "the folder of a run")
    options = flags.small(rest, {"--experiment": None})
    process.set_up()
    folder, made = opened(run, experiment=options["--experiment"])
    _report(made, restored(folder, made), folder)
    return None
