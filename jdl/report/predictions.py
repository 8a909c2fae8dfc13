"""The predictions of a model on a set of examples, and the figures that show them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jdl.core.errors import error
from jdl.core.types import Row
from jdl.data.records import read_test_split
from jdl.plots import training
from jdl.plots.training import members, panels
from jdl.run.evaluate import Result, predict
from jdl.run.members import mean_over_members

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Predictions(NamedTuple):
    """Inputs, labels and outputs of a model on a set of examples; each is optional.

    `inputs` of shape (n, height, width, 1, 3 or 4) are images. `labels` are classes (n, ...),
    integer or one-hot, or the targets of a regression. `outputs` are logits (n, ..., classes) or
    predicted values, with a leading axis for the members of an ensemble.
    """

    inputs: Any = None
    labels: Any = None
    outputs: Any = None
    labels_names: Sequence[str] | None = None
    split: str = "test"


def predict_test_set(data: Any, result: Result) -> Predictions | None:
    """A run's predictions on the test set of its `Data`; None if there is no test set."""
    examples = read_test_split(data)
    if examples is None:
        return None
    names = [str(name) for name in getattr(data, "info", {}).get("labels") or ()] or None
    return Predictions(examples.get("x"), examples.get("y"), predict(result, examples), names)


class ReportFigure(NamedTuple):
    """A figure of the report, with the name of its file, its title and its caption."""

    name: str
    title: str
    caption: str
    figure: "Figure"


class ClassPredictions(NamedTuple):
    """True classes, predicted classes and the probabilities of these, each (n, ...)."""

    truth: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    count: int
    members: int


def report_figures(
    rows: Sequence[Row],
    best: int | None,
    evaluation: Predictions | None,
    metrics: Mapping[str, Any],
) -> list[ReportFigure]:
    """The curves of the log, and either confusion matrix and worst errors, or a parity plot."""
    figures = []
    if panels(rows):
        caption = "A band runs from the lowest to the highest member." if _has_members(rows) else ""
        curves = training.curves(rows, best=best)
        figures.append(ReportFigure("curves", "Training", caption, curves))
    if evaluation is None:
        return figures
    classes = class_predictions(evaluation, metrics, rows)
    if classes is not None:
        figures += _class_figures(evaluation, classes)
    else:
        figures += _regression_figures(evaluation)
    return figures


def _class_figures(evaluation: Predictions, classes: ClassPredictions) -> list[ReportFigure]:
    names = evaluation.labels_names
    if names is not None and len(names) != classes.count:
        names = None
    matrix = np.zeros((classes.count, classes.count), np.int64)
    np.add.at(matrix, (classes.truth, classes.predicted), 1)
    wrong = int((classes.truth != classes.predicted).sum())
    caption = (
        f"{wrong} of {classes.truth.size} {evaluation.split} examples are misclassified. Rows are "
        "true classes, columns predicted classes; colours show each cell's share of its row."
    )
    if classes.members > 1:
        caption += f" Predictions use the mean probability of the {classes.members} members."
    figure = training.confusion_matrix(matrix, names)
    figures = [ReportFigure("confusion", "Confusion matrix", caption, figure)]
    inputs = np.asarray(evaluation.inputs) if evaluation.inputs is not None else np.zeros(0)
    is_image = inputs.ndim == 4 and inputs.shape[-1] in (1, 3, 4)
    if wrong and is_image and classes.truth.shape == inputs.shape[:1]:
        caption = "The misclassified examples with the highest predicted probability."
        grid = training.worst_errors(
            inputs, classes.truth, classes.predicted, classes.confidence, names=names
        )
        figures.append(ReportFigure("mistakes", "Worst errors", caption, grid))
    return figures


def _regression_figures(evaluation: Predictions) -> list[ReportFigure]:
    truth, outputs = _array(evaluation.labels), _array(evaluation.outputs)
    if truth is None or outputs is None or not truth.size:
        return []
    if outputs.ndim == truth.ndim + 1 and outputs.shape[1:] == truth.shape:
        outputs = outputs.mean(0)
    if truth.shape != outputs.shape:
        return []
    caption = f"Each dot is one target value of the {evaluation.split} set."
    figure = training.parity(truth, outputs)
    return [ReportFigure("agreement", "Predicted against true values", caption, figure)]


def class_predictions(
    evaluation: Predictions, metrics: Mapping[str, Any], rows: Sequence[Row]
) -> ClassPredictions | None:
    """Predicted classes of a classification, from the members' mean probability; else None."""
    labels, outputs = _array(evaluation.labels), _array(evaluation.outputs)
    if labels is None or outputs is None or not labels.size or not _has_accuracy(metrics, rows):
        return None
    if len(labels) not in outputs.shape[:2]:
        raise error(
            "evaluation",
            expected=f"one output for each of {len(labels)} labels",
            got=f"outputs of shape {outputs.shape}",
            fix="predict on the examples of these labels",
        )
    if _is_one_hot(labels) and outputs.shape[-1] == labels.shape[-1]:
        labels = labels.argmax(-1)
    is_logits = outputs.ndim > labels.ndim and outputs.shape[-1] > 1
    if is_logits and np.issubdtype(labels.dtype, np.integer):
        return _argmax_classes(labels, outputs)
    if np.isin(labels, (0, 1)).all() and outputs.shape[-labels.ndim :] == labels.shape:
        logits = np.stack([np.zeros_like(outputs), outputs], -1)
        return _argmax_classes(labels.astype(np.int64), logits)
    return None


def _argmax_classes(labels: np.ndarray, logits: np.ndarray) -> ClassPredictions | None:
    logits, member_count = np.asarray(logits, np.float64), 1
    if logits.ndim == labels.ndim + 2:
        member_count, logits = len(logits), mean_over_members(logits, "class_logits")
    probabilities = _softmax(logits)
    if probabilities.shape[:-1] != labels.shape:
        return None
    count = probabilities.shape[-1]
    probabilities, truth = probabilities.reshape(-1, count), labels.ravel()
    # Labels outside the classes mark padding; outputs that are not finite predict no class.
    used = (truth >= 0) & (truth < count) & np.isfinite(probabilities).all(-1)
    probabilities, truth = probabilities[used], truth[used]
    if not truth.size:
        return None
    shape = labels.shape if used.all() else (truth.size,)
    predicted, confidence = probabilities.argmax(-1), probabilities.max(-1)
    truth, predicted, confidence = (a.reshape(shape) for a in (truth, predicted, confidence))
    return ClassPredictions(truth, predicted, confidence, count, member_count)


def _softmax(logits: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        powers = np.exp(logits - logits.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True)


def _is_one_hot(labels: np.ndarray) -> bool:
    if labels.ndim < 2 or labels.shape[-1] < 2:
        return False
    return bool(np.isin(labels, (0, 1)).all() and (labels.sum(-1) == 1).all())


def _has_accuracy(metrics: Mapping[str, Any], rows: Sequence[Row]) -> bool:
    """Whether the run predicts its labels: those of an autoencoder's data are not predicted."""
    return any("accuracy" in name for names in (metrics, *rows) for name in names)


def _array(value: Any) -> np.ndarray | None:
    """A numeric array; None for other values, such as a dict of outputs."""
    if value is None or isinstance(value, Mapping):
        return None
    try:
        array = np.asarray(value)
    except ValueError:
        return None
    is_number = array.dtype.kind in "biuf" or "float" in array.dtype.name
    return array if is_number and array.ndim else None


def _has_members(rows: Sequence[Row]) -> bool:
    vectors = (members(value) for row in rows for value in row.values())
    return any(vector is not None and vector.size > 1 for vector in vectors)


def file_name(name: str) -> str:
    """A figure's name as a file name."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name) or "figure"
