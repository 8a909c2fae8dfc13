"""`jdl report`: write a run's report anew."""

import sys

from jdl.cli import flags, process
from jdl.core.errors import InputError
from jdl.run.evaluate import Result
from jdl.run.experiment import Experiment, open_run, restore
from jdl.run.storage.run_dir import RunDir


def _report(made: Experiment, result: Result, folder: RunDir) -> None:
    from jdl.report.predictions import predict_test_set
    from jdl.report.report import write_report

    figures = made.figures(result) if made.figures else {}
    try:
        page = write_report(folder, evaluation=predict_test_set(made.data, result), figures=figures)
    except InputError as missing:
        print(f"no report: {missing}", file=sys.stderr)
        return
    print(f"report {page}")


def command(given: list[str]) -> int | None:
    """`jdl report RUN`."""
    run, rest = flags.positional(given, "jdl report RUN", "the folder of a run")
    options = flags.parse_simple(rest, {"--experiment": None})
    process.configure_process()
    folder, made = open_run(run, experiment=options["--experiment"])
    _report(made, restore(folder, made), folder)
    return None
