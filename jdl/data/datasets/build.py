"""What every source does with its arrays: check, split by class, scale by the training part."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jdl.core.errors import error
from jdl.data.arrays import as_arrays, check_arrays, check_labels
from jdl.data.prepare import split
from jdl.data.prepare.scale import Scaler, divide
from jdl.data.records import Arrays, Data

PARTS = {"train": 0.7, "valid": 0.1, "test": 0.2}


def prepare(data: Mapping[str, Any], where: str, *, notice: bool = True) -> Arrays:
    """Checked arrays: labels int [n], regression targets [n, k], grey 8-bit images [n, H, W, 1]."""
    arrays = as_arrays(data, name=where, notice=notice)
    check_arrays(arrays, name=where)
    result = dict(arrays)
    if arrays["x"].dtype == np.uint8 and arrays["x"].ndim == 3:
        result["x"] = arrays["x"][..., None]
    y = arrays.get("y")
    if y is None:
        return result
    if y.dtype.kind not in "iub":
        result["y"] = y[:, None] if y.ndim == 1 else y
        return result
    if y.ndim == 2 and (y.shape[1] == 1 or ((y.sum(1) == 1).all() and (y <= 1).all())):
        raise error(
            f'{where}["y"]',
            expected="class labels as integers, shape [n]",
            got=f"shape {list(y.shape)}" + (", one-hot" if y.shape[1] > 1 else ""),
            fix="y[:, 0]" if y.shape[1] == 1 else "y.argmax(1)",
        )
    check_labels(y, int(y.max()) + 1, f'{where}["y"]')
    result["y"] = y if y.dtype == np.int64 else y.astype(np.int32)
    return result


def classes_of(arrays: Arrays) -> int | None:
    """Number of classes by the largest label; None where `y` is no label."""
    y = arrays.get("y")
    return int(y.max()) + 1 if y is not None and y.dtype.kind in "iu" else None


def by_class(whole: Arrays, fractions: tuple[float, ...], seed: int) -> tuple[np.ndarray, ...]:
    """Indices of the parts, in proportion by class where there are labels."""
    labels = whole.get("y")
    if labels is not None and labels.ndim == 1 and labels.dtype.kind in "iu":
        return split.stratified(labels, fractions, seed)
    return split.random(len(whole["x"]), fractions, seed)


def rows(arrays: Arrays, index: np.ndarray) -> Arrays:
    """The given rows of every array."""
    return {key: value[index] for key, value in arrays.items()}


def three_parts(whole: Arrays, seed: int) -> dict[str, Arrays]:
    """Train, valid and test for a set that comes in one piece."""
    indices = by_class(whole, tuple(PARTS.values()), seed)
    return {part: rows(whole, index) for part, index in zip(PARTS, indices, strict=True)}


def check_alike(parts: dict[str, Arrays], where: str) -> None:
    """Raises unless all parts have the training part's entries, shapes and dtypes."""

    def look(arrays: Arrays) -> dict[str, Any]:
        return {key: (value.shape[1:], str(value.dtype)) for key, value in arrays.items()}

    for part, arrays in parts.items():
        if look(arrays) != look(parts["train"]):
            raise error(
                f"{where}, {part} part",
                expected=f"shapes and dtypes of the training part, {look(parts['train'])}",
                got=str(look(arrays)),
                fix="prepare all parts in the same way",
            )


def finish(
    parts: dict[str, Arrays],
    scaler: Scaler | None,
    about: dict[str, Any],
    classes: int | None,
) -> Data:
    """Fits the scaler on the training part and applies it to each."""
    scaler = scaler or (divide(255) if parts["train"]["x"].dtype == np.uint8 else None)
    statistics = scaler.fit(parts["train"]["x"]) if scaler else None
    apply: Callable[[Arrays], Arrays] = (
        (lambda arrays: {**arrays, "x": scaler.apply(statistics, arrays["x"])})
        if scaler and statistics is not None
        else dict
    )
    train = apply(parts["train"])
    info = {
        **about,
        "classes": classes,
        "shape": train["x"].shape[1:],
        "sizes": {part: len(parts[part]["x"]) for part in PARTS},
        "scaler": statistics,
        "target": "class labels" if classes else "as given, not scaled",
    }
    test = parts["test"]
    return Data(train, apply(parts["valid"]), lambda: apply(test), info)
