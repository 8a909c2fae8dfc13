"""Read the inputs of `jdl predict` from a file, scaled like the training data."""

import csv
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jdl.core.errors import error
from jdl.data.arrays import check_arrays
from jdl.data.prepare import scale
from jdl.data.readers.binary import read_lines, read_npy, read_npz
from jdl.data.readers.images import GREY_MODES, SUFFIXES, read_image


def read_inputs(
    path: Path, info: Mapping[str, Any], shape: tuple[int, ...] | None = None
) -> np.ndarray:
    """Read examples (n, ...) from an .npz file (its array x), .npy, .csv or an image.

    The file holds raw values; they are scaled as `info["scaler"]` scaled the training set. `shape`
    is that of a training example, by default `info["shape"]`; an image is read in colour if it has
    3 channels. A first line of a .csv file that holds no number is a header. No file can execute
    code.

    Raises `InputError` for a file that cannot be read or whose shape is not that of the training
    data.
    """
    if not path.is_file():
        raise error(str(path), expected="an input file", got="no such file", fix="check the path")
    expected = info.get("shape", shape)
    readers: dict[str, Callable[[Path], np.ndarray]] = {
        ".npz": _npz,
        ".npy": read_npy,
        ".csv": _csv,
        **dict.fromkeys(SUFFIXES, lambda path: _image(path, expected)),
    }
    read = readers.get(path.suffix.lower())
    if read is None:
        raise error(
            str(path),
            expected=f"a file that ends in {', '.join(readers)}",
            got=path.suffix or "no suffix",
            fix="save the inputs with np.savez(path, x=x)",
        )
    raw = read(path)
    _check_values(raw, path)
    raw = raw.astype(np.float32)
    shape = tuple(raw.shape[1:] if expected is None else expected)
    is_table = path.suffix.lower() == ".csv"  # a row is an example, whatever their number
    if not (_are_examples(raw.shape[1:], shape) or (_is_one(raw.shape, shape) and not is_table)):
        raise error(
            str(path),
            expected=f"examples of shape {shape}",
            got=f"{raw.shape[1:]}" if raw.ndim else "a single number",
            fix="resize, crop or transpose them like the training data",
        )
    return scale_inputs(raw.reshape(-1, *shape), info.get("scaler") or {})


def _check_values(raw: np.ndarray, path: Path) -> None:
    """Raise `InputError` unless there are finite real numbers."""
    if raw.size and raw.dtype.kind != "c":
        check_arrays({"x": np.atleast_1d(raw)}, name=str(path))
        return
    raise error(
        str(path),
        expected="real numbers" if raw.size else "at least one example",
        got="complex numbers" if raw.size else f"an array of shape {raw.shape}",
        fix="save the parts that the run was trained on, such as x.real"
        if raw.size
        else "save the examples to predict for",
    )


def _are_examples(given: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether an example of shape `given` is one of `shape`: flat, or with other axes of size 1."""
    axes, expected = ([size for size in sizes if size != 1] for sizes in (given, shape))
    is_flat = len(axes) <= 1 or len(expected) <= 1
    return axes == expected or (is_flat and math.prod(axes) == math.prod(expected))


def _is_one(given: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether a whole array is one example: a flat one, or with other axes of size 1."""
    axes, expected = ([size for size in sizes if size != 1] for sizes in (given, shape))
    return axes == expected or (len(axes) <= 1 and math.prod(axes) == math.prod(expected))


def example_shape(data: Any) -> tuple[int, ...] | None:
    """The shape of the `x` of a training example; None if it is not known."""
    arrays = getattr(data, "train", data)  # of a Data
    arrays = getattr(arrays, "data", arrays)  # of a Feed
    return np.shape(arrays["x"])[1:] if isinstance(arrays, Mapping) and "x" in arrays else None


def describe_scaler(statistics: Mapping[str, Any]) -> str:
    """What `scale_inputs` does, as the end of a sentence that begins with "inputs".

    >>> describe_scaler({"divisor": 255})
    'are divided by 255, like the training data'
    """
    if "divisor" in statistics:
        return f"are divided by {statistics['divisor']:g}, like the training data"
    if "mean" in statistics:
        return "are standardized with the mean and deviation of the training data"
    if "low" in statistics:
        return "are scaled with the minimum and maximum of the training data"
    return "are used as they are: the data of the run have no scaler"


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
    """The rows of a CSV file; a first line without any number is a header."""
    table = list(csv.reader(read_lines(path, "a CSV file in UTF-8")))
    first = table[0] if table else []
    header = any(first) and not any(map(_is_number, first))
    _check_first_line(path, first)
    rows = []
    for number, cells in enumerate(table[header:], start=1 + header):
        if len(cells) != len(first) or not all(map(_is_number, cells)):
            raise error(
                f"{path}, line {number}",
                expected=f"{len(first)} numbers",
                got=",".join(cells)[:80],
                fix="correct or remove the line",
            )
        rows.append([float(cell) for cell in cells])
    if not rows:
        raise error(
            str(path),
            expected="at least one line of numbers",
            got="a header alone" if table else "an empty file",
            fix="check the file",
        )
    return np.array(rows)


def _check_first_line(path: Path, first: list[str]) -> None:
    """Raise `InputError` for semicolons, and for the numbers that pandas gives to its columns."""
    if len(first) == 1 and (";" in first[0] or "\t" in first[0]):
        raise error(
            f"{path}, line 1",
            expected="numbers separated by commas",
            got=first[0][:80],
            fix="save the file with commas, and with points in its numbers",
        )
    if len(first) > 1 and first == [str(i) for i in range(len(first))]:
        raise error(
            f"{path}, line 1",
            expected="an example, or a header without numbers",
            got=f"{','.join(first)[:80]}, the names that pandas gives to columns without names",
            fix="save the file with header=False; write an example of these numbers as 0.0,1.0,...",
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _image(path: Path, shape: tuple[int, ...] | None) -> np.ndarray:
    """An image (1, height, width, channels) with the channels of the training examples."""
    image = read_image(path)
    if shape is None:
        channels = 1 if image.mode in GREY_MODES else 3
    elif len(shape) == 3:
        channels = shape[-1]
    else:
        channels = 3 if math.prod(shape) == 3 * image.width * image.height else 1
    mode = {1: "L", 3: "RGB", 4: "RGBA"}.get(channels)
    if mode is None:
        raise error(
            str(path),
            expected=f"examples of shape {shape}",
            got="an image file, with 1, 3 or 4 channels",
            fix="save the inputs with np.savez(path, x=x)",
        )
    pixels = np.asarray(image.convert(mode))
    return pixels[None, ..., None] if mode == "L" else pixels[None]
