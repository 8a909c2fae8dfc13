"""What a model answered on a set of examples, and the pictures that show it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jdl.core.errors import error
from jdl.core.types import Row
from jdl.plots import training
from jdl.plots.training import members, panels
from jdl.run.evaluate import Result, predict

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Predictions(NamedTuple):
    """What a model answered on a set of examples; all of it is optional.

    `inputs` are pictures where they have the shape (n, height, width, 1, 3 or 4); `labels` are
    classes (n, ...), one-hot or integer, or numbers of the outputs' shape; `outputs` are logits
    (n, ..., classes) or numbers, with the members of an ensemble on another axis before these.
    """

    inputs: Any = None
    labels: Any = None
    outputs: Any = None
    labels_names: Sequence[str] | None = None
    split: str = "test"


def predict_test_set(data: Any, result: Result) -> Predictions | None:
    """What a run answers on the test part of its `Data`; None where the data has no such part."""
    test = getattr(data, "test", None)
    if test is None:
        return None
    part = test()
    names = getattr(data, "info", {}).get("labels")
    return Predictions(part.get("x"), part.get("y"), predict(result, part), names)


class ReportFigure(NamedTuple):
    """A figure of the report, the name of its file, and the words beside it."""

    name: str
    title: str
    caption: str
    figure: "Figure"


class ClassPredictions(NamedTuple):
    """True and predicted classes, and the probability of the predicted ones."""

    truth: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    count: int
    members: int


def report_figures(
    rows: Sequence[Row],
    best: int | None,
    evaluation: Predictions | None,
    numbers: Mapping[str, Any],
) -> list[ReportFigure]:
    """The curves of the log, and what the answers show: a matrix and mistakes, or agreement."""
    drawn = []
    if panels(rows):
        caption = "A band runs from the lowest to the highest member." if _has_members(rows) else ""
        drawn.append(ReportFigure("curves", "Training", caption, training.curves(rows, best=best)))
    if evaluation is None:
        return drawn
    classes = class_predictions(evaluation, numbers, rows)
    if classes is not None:
        drawn += _class_figures(evaluation, classes)
    else:
        drawn += _regression_figures(evaluation)
    return drawn


def _class_figures(evaluation: Predictions, classes: ClassPredictions) -> list[ReportFigure]:
    names = evaluation.labels_names
    if names is not None and len(names) != classes.count:
        names = None
    matrix = np.zeros((classes.count, classes.count), np.int64)
    np.add.at(matrix, (classes.truth, classes.predicted), 1)
    wrong = int((classes.truth != classes.predicted).sum())
    caption = (
        f"{wrong} of {classes.truth.size} {evaluation.split} examples are taken for another class. "
        "Rows are true classes; colours show each cell's share of its row."
    )
    if classes.members > 1:
        caption += f" The {classes.members} members answer together, by their mean probability."
    drawn = [
        ReportFigure("confusion", "Confusion matrix", caption, training.confusion(matrix, names))
    ]
    inputs = np.asarray(evaluation.inputs) if evaluation.inputs is not None else np.zeros(0)
    is_image = inputs.ndim == 4 and inputs.shape[-1] in (1, 3, 4)
    if wrong and is_image and classes.truth.shape == inputs.shape[:1]:
        caption = "The wrong answers given with the highest probability."
        grid = training.worst_errors(
            inputs, classes.truth, classes.predicted, classes.confidence, names=names
        )
        drawn.append(ReportFigure("mistakes", "Worst mistakes", caption, grid))
    return drawn


def _regression_figures(evaluation: Predictions) -> list[ReportFigure]:
    truth, said = _array(evaluation.labels), _array(evaluation.outputs)
    if truth is None or said is None or not truth.size:
        return []
    if said.ndim == truth.ndim + 1 and said.shape[1:] == truth.shape:
        said = said.mean(0)
    if truth.shape != said.shape:
        return []
    caption = f"Each dot is one number of the {evaluation.split} set."
    return [ReportFigure("agreement", "Predicted and true", caption, training.parity(truth, said))]


def class_predictions(
    evaluation: Predictions, numbers: Mapping[str, Any], rows: Sequence[Row]
) -> ClassPredictions | None:
    """True and predicted classes, where the task was to choose one; members vote by probability."""
    labels, outputs = _array(evaluation.labels), _array(evaluation.outputs)
    if labels is None or outputs is None or not labels.size or not _counts_hits(numbers, rows):
        return None
    if len(labels) not in outputs.shape[:2]:
        raise error(
            "evaluation",
            expected=f"an output for each of {len(labels)} labels",
            got=f"outputs of shape {outputs.shape}",
            fix="predict on the examples that the labels belong to",
        )
    if _is_one_hot(labels) and outputs.shape[-1] == labels.shape[-1]:
        labels = labels.argmax(-1)
    is_logits = outputs.ndim > labels.ndim and outputs.shape[-1] > 1
    if is_logits and np.issubdtype(labels.dtype, np.integer):
        return _chosen(labels, outputs)
    if np.isin(labels, (0, 1)).all() and outputs.shape[-labels.ndim :] == labels.shape:
        return _chosen(labels.astype(np.int64), np.stack([np.zeros_like(outputs), outputs], -1))
    return None


def _chosen(labels: np.ndarray, logits: np.ndarray) -> ClassPredictions | None:
    shares = _softmax(np.asarray(logits, np.float64))
    together = len(shares) if logits.ndim == labels.ndim + 2 else 1
    if logits.ndim == labels.ndim + 2:
        shares = shares.mean(0)
    if shares.shape[:-1] != labels.shape:
        return None
    count = shares.shape[-1]
    shares, truth = shares.reshape(-1, count), labels.ravel()
    # Labels outside the classes mark padding; outputs that are not finite choose nothing.
    used = (truth >= 0) & (truth < count) & np.isfinite(shares).all(-1)
    shares, truth = shares[used], truth[used]
    if not truth.size:
        return None
    shape = labels.shape if used.all() else (truth.size,)
    said, sure = shares.argmax(-1), shares.max(-1)
    return ClassPredictions(
        truth.reshape(shape), said.reshape(shape), sure.reshape(shape), count, together
    )


def _softmax(logits: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        powers = np.exp(logits - logits.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True)


def _is_one_hot(labels: np.ndarray) -> bool:
    if labels.ndim < 2 or labels.shape[-1] < 2:
        return False
    return bool(np.isin(labels, (0, 1)).all() and (labels.sum(-1) == 1).all())


def _counts_hits(numbers: Mapping[str, Any], rows: Sequence[Row]) -> bool:
    """Labels may be there without being what was predicted: an auto-encoder's are not."""
    return any("accuracy" in name for names in (numbers, *rows) for name in names)


def _array(value: Any) -> np.ndarray | None:
    """Numbers as an array; None for other things, such as a dict of outputs."""
    if value is None or isinstance(value, Mapping):
        return None
    try:
        array = np.asarray(value)
    except ValueError:
        return None
    is_number = array.dtype.kind in "biuf" or "float" in array.dtype.name
    return array if is_number and array.ndim else None


def _has_members(rows: Sequence[Row]) -> bool:
    found = [members(value) for row in rows for value in row.values()]
    return any(value is not None and value.size > 1 for value in found)


def file_name(name: str) -> str:
    """A figure's name as that of a file in one folder."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name) or "figure"
