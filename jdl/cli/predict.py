"""`jdl predict`: write a run's predictions for a file of inputs."""

import contextlib
import csv
import logging
from collections.abc import Iterator
from typing import TextIO

import numpy as np

from jdl.cli import flags, process
from jdl.cli.answer import answer_on_stdout
from jdl.cli.inputs import describe_scaler, example_shape, read_inputs
from jdl.cli.predictions import prediction_table
from jdl.core.errors import error
from jdl.core.paths import user_path
from jdl.run.evaluate import predict
from jdl.run.experiment import open_run, restore
from jdl.run.members import mean_over_members
from jdl.run.storage.files import explain_write_errors

log = logging.getLogger("jdl")


def command(given: list[str]) -> int | None:
    """`jdl predict RUN INPUT [--out FILE.csv]`."""
    with answer_on_stdout() as answer:
        return _predict(given, answer)


def _predict(given: list[str], answer: TextIO) -> None:
    run, rest = flags.positional(given, "jdl predict RUN INPUT", "a run directory")
    source, rest = flags.positional(rest, "jdl predict RUN INPUT", "an input file")
    options = flags.parse_simple(rest, {"--out": None, "--experiment": None})
    process.configure_process()
    folder, experiment = open_run(run, experiment=options["--experiment"])
    if "sweep" in folder.config():
        raise error(
            run,
            expected="the run of one learner or of an ensemble",
            got="a sweep, whose members are different learners",
            fix="train one point of the sweep with jdl train, or use jdl.predict in Python",
        )
    info = getattr(experiment.data, "info", {})
    inputs = read_inputs(user_path(source), info, example_shape(experiment.data))
    log.info("inputs %s", describe_scaler(info.get("scaler") or {}))
    result = restore(folder, experiment)
    outputs = predict(result, inputs)
    if not isinstance(outputs, np.ndarray):
        raise error(
            run,
            expected="a model with one array of outputs",
            got=f"a {type(outputs).__name__}",
            fix="call jdl.predict(jdl.load(run), inputs) in Python",
        )
    output = result.learner.info.output
    if result.state.members:
        outputs = mean_over_members(outputs, output)
    header, rows = prediction_table(outputs, output, info.get("labels") or (), info.get("classes"))
    with _output(options["--out"], answer) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


@contextlib.contextmanager
def _output(path: str | None, answer: TextIO) -> Iterator[TextIO]:
    """The output file, or `answer` if there is none."""
    if path is None:
        yield answer
        return
    with explain_write_errors(user_path(path)):
        file = open(user_path(path), "w", newline="", encoding="utf-8")  # noqa: SIM115
    with file:
        yield file
