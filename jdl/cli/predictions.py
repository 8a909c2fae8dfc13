"""The table that `jdl predict` writes: a line per example, its predicted classes and outputs."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

Table = tuple[list[str], Iterator[list[Any]]]


def prediction_table(
    outputs: np.ndarray, output: str | None, names: Sequence[str], classes: int | None
) -> Table:
    """The header and the rows, from the outputs `(examples, ...)` of one model.

    Class logits are followed to the most likely class, binary ones to 1 where the logit is
    positive; an output that is not finite predicts "nan". Sequences have a column for each token.
    `output` is that of `Info`, `names` those of the classes, and `classes` their number, by which a
    task of your own is known to classify.

    >>> logits = np.array([[2.0], [-1.0]])
    >>> header, rows = prediction_table(logits, "binary_logits", ("no", "yes"), 2)
    >>> header, list(rows)
    (['prediction', 'output_0'], [['yes', '2'], ['no', '-1']])
    """
    predicted = predicted_classes(outputs, output, classes)
    count = 2 if output == "binary_logits" else outputs.shape[-1] if outputs.ndim > 1 else 1
    label = names if len(names) == count else range(count)
    header = _columns("output", outputs.shape[1:] or (1,))
    if predicted is None:
        return header, (_numbers(row) for row in outputs)
    is_lone = output == "binary_logits" and predicted.shape[1:] == (1,)
    shape = () if is_lone else predicted.shape[1:]
    rows = (
        [("nan" if k < 0 else label[k]) for k in chosen.ravel()] + _numbers(row)
        for chosen, row in zip(predicted, outputs, strict=True)
    )
    return _columns("prediction", shape) + header, rows


def predicted_classes(
    outputs: np.ndarray, output: str | None, classes: int | None
) -> np.ndarray | None:
    """The predicted classes, -1 where an output is not finite; None if the model predicts none."""
    if output == "binary_logits":
        return np.where(np.isfinite(outputs), outputs > 0, -1)
    is_own = output is None and outputs.ndim == 2 and outputs.shape[1] == classes
    if outputs.ndim < 2 or not (output == "class_logits" or is_own):
        return None
    return np.where(np.isfinite(outputs).all(-1), outputs.argmax(-1), -1)


def _columns(name: str, shape: tuple[int, ...]) -> list[str]:
    """One name per number: `output_0`, or `output_0_2` for two axes."""
    places = itertools.product(*map(range, shape))
    return ["_".join([name, *map(str, place)]) for place in places]


def _numbers(row: np.ndarray) -> list[str]:
    return [f"{value:.7g}" for value in np.ravel(row)]
