"""`jdl report`: write the report of a run again."""

import sys

from jdl.cli import flags, process
from jdl.core.errors import InputError
from jdl.run.evaluate import Result
from jdl.run.experiment import Experiment, open_run, restore
from jdl.run.storage.run_dir import RunDir


def write(experiment: Experiment, result: Result, folder: RunDir) -> None:
    """Write the report of a run and print its path; without the extra, say so and go on."""
    try:
        _write(experiment, result, folder)
    except InputError as reason:
        print(f"no report: {reason}", file=sys.stderr)


def _write(experiment: Experiment, result: Result, folder: RunDir) -> None:
    from jdl.report.predictions import predict_test_set
    from jdl.report.report import write_report

    figures = experiment.figures(result) if experiment.figures else {}
    evaluation = predict_test_set(experiment.data, result)
    page = write_report(folder, evaluation=evaluation, figures=figures)
    print(f"report {folder.given / page.name}")


def command(given: list[str]) -> int | None:
    """`jdl report RUN`."""
    run, rest = flags.positional(given, "jdl report RUN", "a run directory")
    options = flags.parse_simple(rest, {"--experiment": None})
    process.configure_process()
    folder, experiment = open_run(run, experiment=options["--experiment"])
    _write(experiment, restore(folder, experiment), folder)
    return None
