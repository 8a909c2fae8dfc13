"""Inputs for `jdl predict`: a file becomes the array that the model was trained on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jdl.core.check import InputError, error


def read_inputs(path: Path, info: Mapping[str, Any]) -> np.ndarray:
    """Examples from .npz (`x`), .npy, .csv (numbers, a header line is skipped) or one image.

    Numbers are in the units of the raw data: what `info["scaler"]` did to the training set is done
    to them. No file can execute code.
    """
    if not path.is_file():
        raise error(str(path), expected="a file of inputs", got="no such file", fix="check the path")
    readers = {".npz": _npz, ".npy": _npy, ".csv": _csv}
    try:
        raw = readers.get(path.suffix.lower(), _image)(path)
    except InputError:
        raise
    except (OSError, ValueError, KeyError) as bad:
        raise error(
            str(path), expected="npz with x, npy, csv or an image", got=str(bad), fix="check the file"
        ) from bad
    shape = tuple(info.get("shape", raw.shape[1:]))
    if raw.shape[1:] != shape and raw.shape[1:] != shape[:-1] and raw.size % max(1, np.prod(shape)):
        raise error(
            str(path),
            expected=f"examples of shape {shape}",
            got=f"{raw.shape[1:]}",
            fix="resize or crop them as the training data was",
        )
    return scaled(raw.astype(np.float32).reshape(-1, *shape), info.get("scaler") or {})


def scaled(x: np.ndarray, scaler: Mapping[str, Any]) -> np.ndarray:
    """What was done to the training inputs: a divisor, or mean and scale."""
    if "divisor" in scaler:
        return (x / np.float32(scaler["divisor"])).astype(np.float32)
    if "mean" in scaler:
        scale = scaler.get("scale", scaler.get("std"))
        return ((x - np.asarray(scaler["mean"])) / np.asarray(scale)).astype(np.float32)
    return x


def _npz(path: Path) -> np.ndarray:
    with np.load(path, allow_pickle=False) as archive:
        return archive["x"]


def _npy(path: Path) -> np.ndarray:
    return np.load(path, allow_pickle=False)


def _csv(path: Path) -> np.ndarray:
    lines = path.read_text().splitlines()
    first = lines[0].split(",") if lines else []
    header = bool(first) and not _is_number(first[0])
    rows = []
    for number, line in enumerate(lines[header:], start=1 + header):
        cells = line.split(",")
        if len(cells) != len(first) or not all(map(_is_number, cells)):
            raise error(
                f"{path}, line {number}",
                expected=f"{len(first)} numbers",
                got=line[:80],
                fix="mend or remove the line",
            )
        rows.append([float(cell) for cell in cells])
    if not rows:
        raise error(str(path), expected="one line or more", got="an empty file", fix="check the file")
    return np.array(rows)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _image(path: Path) -> np.ndarray:
    try:
        from PIL import Image
    except ImportError:
        raise error(
            str(path), expected="pillow, to read images", got="no module named PIL",
            fix='pip install "jdl-jax[report]"',
        ) from None
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))[None, ..., None]
