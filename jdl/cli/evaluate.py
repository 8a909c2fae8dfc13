"""`jdl evaluate`: evaluate a run on its test set."""

from typing import Any, TextIO

from jdl.cli import flags, process
from jdl.cli.answer import answer_on_stdout
from jdl.core.errors import error
from jdl.data.records import read_test_split
from jdl.run.evaluate import evaluate
from jdl.run.experiment import Experiment, open_run, restore
from jdl.run.storage.files import json_text


def command(given: list[str]) -> int | None:
    """`jdl evaluate RUN [--json]`."""
    with answer_on_stdout() as answer:
        return _evaluate(given, answer)


def _evaluate(given: list[str], answer: TextIO) -> None:
    from jdl.report.report import result_line

    run, rest = flags.positional(given, "jdl evaluate RUN [--json]", "a run directory")
    options = flags.parse_simple(rest, {"--json": False, "--experiment": None})
    process.configure_process()
    folder, experiment = open_run(run, experiment=options["--experiment"])
    data = _test_data(experiment)
    metrics, n = evaluate(restore(folder, experiment), data), len(next(iter(data.values())))
    if options["--json"]:
        print(json_text({"split": "test", "n": n, **metrics}), file=answer)
        return
    print(result_line(metrics, n), file=answer)
    for name, value in metrics.items():
        if isinstance(value, float):
            print(f"  {name} {value:.6g}", file=answer)


def _test_data(experiment: Experiment) -> Any:
    data = read_test_split(experiment.data)
    if data is None:
        raise error(
            "jdl evaluate",
            expected="an experiment whose data has a test set",
            got="none",
            fix="give the experiment a jdl.Data with a test split, from jdl.data.load or "
            "from_arrays; or call jdl.evaluate(jdl.load(run), data) in Python",
        )
    return data
