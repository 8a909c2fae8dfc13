"""Read the inputs of `jdl predict` from a file, scaled like the training data."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jdl.core.errors import error
from jdl.data.arrays import check_arrays
from jdl.data.prepare import scale
from jdl.data.readers.binary import read_lines, read_npy, read_npz
from jdl.data.readers.images import SUFFIXES, read_image


def read_inputs(path: Path, info: Mapping[str, Any]) -> np.ndarray:
    """Read examples (n, ...) from an .npz file (its array x), .npy, .csv or an image.

    The file holds raw values; they are scaled as `info["scaler"]` scaled the training set. The
    header line of a .csv file is ignored. No file can execute code. Raises `InputError` for a file
    that cannot be read or whose shape is not that of the training data.
    """
    if not path.is_file():
        raise error(str(path), expected="an input file", got="no such file", fix="check the path")
    readers = {".npz": _npz, ".npy": read_npy, ".csv": _csv} | dict.fromkeys(SUFFIXES, _image)
    read = readers.get(path.suffix.lower())
    if read is None:
        raise error(
            str(path),
            expected=f"a file that ends in {', '.join(readers)}",
            got=path.suffix or "no suffix",
            fix="save the inputs with np.savez(path, x=x)",
        )
    raw = read(path)
    if raw.size:
        check_arrays({"x": np.atleast_1d(raw)}, name=str(path))
    raw = raw.astype(np.float32)
    shape = tuple(info.get("shape", raw.shape[1:]))
    elements = math.prod(shape)
    if not raw.size or elements not in (raw.size, math.prod(raw.shape[1:])):
        raise error(
            str(path),
            expected=f"examples of shape {shape}",
            got=f"{raw.shape[1:]}",
            fix="resize or crop them like the training data",
        )
    return scale_inputs(raw.reshape(-1, *shape), info.get("scaler") or {})


def scale_inputs(x: np.ndarray, statistics: Mapping[str, Any]) -> np.ndarray:
    """Scale inputs with the statistics of the training set."""
    if "divisor" in statistics:
        return scale.divide(statistics["divisor"]).apply(dict(statistics), x)
    if "mean" in statistics:
        return scale.standardise.apply(dict(statistics), x)
    return scale.minmax.apply(dict(statistics), x) if "low" in statistics else x


def _npz(path: Path) -> np.ndarray:
    arrays = read_npz(path)
    if "x" not in arrays:
        raise error(
            str(path),
            expected="an array x",
            got=", ".join(arrays) or "no arrays",
            fix="save it with np.savez(path, x=x)",
        )
    return arrays["x"]


def _csv(path: Path) -> np.ndarray:
    lines = read_lines(path, "a CSV file in UTF-8")
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
                fix="correct or remove the line",
            )
        rows.append([float(cell) for cell in cells])
    if not rows:
        raise error(
            str(path), expected="at least one line", got="an empty file", fix="check the file"
        )
    return np.array(rows)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _image(path: Path) -> np.ndarray:
    return np.asarray(read_image(path).convert("L"))[None, ..., None]
