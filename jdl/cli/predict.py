"""`jdl predict`: write a run's predictions for a file of inputs."""

import contextlib
import csv
import logging
import sys
from collections.abc import Iterator
from typing import TextIO

import numpy as np

from jdl.cli import flags, process
from jdl.cli.inputs import describe_scaler, example_shape, read_inputs
from jdl.core.errors import error
from jdl.core.paths import user_path
from jdl.run.evaluate import predict
from jdl.run.experiment import open_run, restore
from jdl.run.storage.files import explain_write_errors

log = logging.getLogger("jdl")


def command(given: list[str]) -> int | None:
    """`jdl predict RUN INPUT [--out FILE.csv]`."""
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
    if result.state.members:  # one row for each example: the mean over members
        outputs = outputs.mean(0)
    rows = outputs.reshape(len(outputs), -1)
    classes = info.get("classes")
    names = info.get("labels") or ()
    if len(names) != rows.shape[1]:
        names = range(rows.shape[1])
    header = [f"output_{i}" for i in range(rows.shape[1])]
    with _output(options["--out"]) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((["prediction"] if classes else []) + header)
        for row in rows:
            predicted = "nan" if np.isnan(row).any() else names[row.argmax()]
            writer.writerow(([predicted] if classes else []) + [f"{v:.7g}" for v in row])
    return None


@contextlib.contextmanager
def _output(path: str | None) -> Iterator[TextIO]:
    """The output file, or standard output."""
    if path is None:
        yield sys.stdout
        return
    with explain_write_errors(user_path(path)):
        file = open(user_path(path), "w", newline="", encoding="utf-8")  # noqa: SIM115
    with file:
        yield file
