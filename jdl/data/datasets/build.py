"""Steps that all data sets share: check, split by class, scale by the training split."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jdl.core.errors import error
from jdl.core.paths import user_path
from jdl.data.arrays import as_arrays, check_arrays, check_labels
from jdl.data.prepare import split
from jdl.data.prepare.scale import Scaler, divide
from jdl.data.records import Arrays, Data

PARTS = {"train": 0.7, "valid": 0.1, "test": 0.2}


def data_folder(name: str, dir: str | Path | None, files: str) -> Path:
    """The folder of a data set's files: `dir`, or the environment variable JDL_DATA_DIR."""
    folder = dir if dir is not None else os.environ.get("JDL_DATA_DIR")
    if not folder:
        raise error(
            f'data set "{name}"',
            expected=f"the folder of the {files}",
            got="no dir=, and JDL_DATA_DIR is not set",
            fix="pass dir= or set JDL_DATA_DIR, or use the built-in set: digits",
        )
    return user_path(folder)


def find_file(name: str, folder: Path, spellings: Sequence[str], fix: str) -> Path:
    """The file with one of the names `spellings`, in the folder or its subfolder `name`."""
    places = [folder, folder / name]
    for path in (place / spelling for place in places for spelling in spellings):
        if path.is_file():
            return path
    raise error(
        f'data set "{name}"',
        expected=f"a file {' or '.join(spellings[:2])}",
        got=f"none in {' or '.join(map(str, places))}",
        fix=fix,
    )


def prepare(data: Mapping[str, Any], where: str, *, notice: bool = True) -> Arrays:
    """Checked arrays: labels int (n,), regression targets (n, k), grey images (n, H, W, 1)."""
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
            expected="integer class labels of shape (n,)",
            got=f"shape {list(y.shape)}" + (", one-hot" if y.shape[1] > 1 else ""),
            fix="y[:, 0]" if y.shape[1] == 1 else "y.argmax(1)",
        )
    check_labels(y, int(y.max()) + 1, f'{where}["y"]')
    result["y"] = y if y.dtype == np.int64 else y.astype(np.int32)
    return result


def classes_of(arrays: Arrays) -> int | None:
    """The number of classes, from the largest label; None if `y` is not a label."""
    y = arrays.get("y")
    return int(y.max()) + 1 if y is not None and y.dtype.kind in "iu" else None


def by_class(whole: Arrays, fractions: tuple[float, ...], seed: int) -> tuple[np.ndarray, ...]:
    """Indices of the parts, stratified by class if there are labels."""
    labels = whole.get("y")
    if labels is not None and labels.ndim == 1 and labels.dtype.kind in "iu":
        return split.stratified(labels, fractions, seed)
    return split.random(len(whole["x"]), fractions, seed)


def rows(arrays: Arrays, index: np.ndarray) -> Arrays:
    """The given rows of every array."""
    return {key: value[index] for key, value in arrays.items()}


def three_parts(whole: Arrays, seed: int) -> dict[str, Arrays]:
    """Train, valid and test from a set without splits."""
    indices = by_class(whole, tuple(PARTS.values()), seed)
    return {part: rows(whole, index) for part, index in zip(PARTS, indices, strict=True)}


def hold_out(
    train: Arrays, test: Arrays, sizes: tuple[float, float], seed: int
) -> dict[str, Arrays]:
    """Train, valid and test from a set with a test split; valid is taken from train."""
    keep, valid = split.stratified(train["y"], sizes, seed)
    return {"train": rows(train, keep), "valid": rows(train, valid), "test": test}


def check_alike(parts: dict[str, Arrays], where: str) -> None:
    """Raise `InputError` unless all splits have the entries, shapes and dtypes of train."""

    def describe(arrays: Arrays) -> dict[str, Any]:
        return {key: (value.shape[1:], str(value.dtype)) for key, value in arrays.items()}

    for part, arrays in parts.items():
        if describe(arrays) != describe(parts["train"]):
            raise error(
                f"{where}, {part} part",
                expected=f"shapes and dtypes of the training part, {describe(parts['train'])}",
                got=str(describe(arrays)),
                fix="prepare all parts in the same way",
            )


def finish(
    parts: dict[str, Arrays],
    scaler: Scaler | None,
    about: dict[str, Any],
    classes: int | None,
) -> Data:
    """Fit the scaler on the training split and apply it to every split."""
    scaler = scaler or (divide(255) if parts["train"]["x"].dtype == np.uint8 else None)
    statistics = scaler.fit(parts["train"]["x"]) if scaler else None

    def apply(arrays: Arrays) -> Arrays:
        if scaler is None or statistics is None:
            return dict(arrays)
        return {**arrays, "x": scaler.apply(statistics, arrays["x"])}

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
