"""Series of different lengths: a reader of .ts files, and padding that keeps the lengths."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jdl.core.errors import InputError, did_you_mean, error
from jdl.core.paths import user_path
from jdl.data.arrays import to_float32
from jdl.data.prepare.scale import Scaler, Statistics
from jdl.data.readers.binary import read_lines, read_number


class Series(NamedTuple):
    """Padded series with their lengths and labels."""

    x: np.ndarray
    """float32 (n, time, channels), zero after each series' length."""
    lengths: np.ndarray
    """int32 (n,)."""
    y: np.ndarray | None
    """Classes int32 (n,), targets float32 (n, 1), or None if the file has neither."""
    labels: tuple[str, ...]
    """Class names, in the order of the header."""


def read_ts(path: str | Path) -> Series:
    r"""Read the series of a .ts file, as the UEA archive and sktime write them.

    Examples may differ in length; the channels of one example may not. The result is padded with
    zeros to (n, time, channels). Loening et al., "sktime: A Unified Interface for Machine Learning
    with Time Series", 2019, describe the format. Raises `InputError`, naming file and line, for
    channels that differ in length or number, a value that is missing or not a number, an unknown
    class, and time stamps, which are not supported.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "steps.ts"
    >>> _ = path.write_text("@classLabel true up down\n@data\n1,2,3:up\n2,1:down\n")
    >>> series = read_ts(path)
    >>> series.x.shape, series.lengths.tolist(), series.y.tolist(), series.labels
    ((2, 3, 1), [3, 2], [0, 1], ('up', 'down'))
    """
    path = user_path(path)
    lines = [line.strip() for line in read_lines(path, "a .ts file that can be read")]
    classes, has_target, first = _header(path, lines)
    examples, ends = [], []
    for number, line in enumerate(lines[first:], start=first + 1):
        if line and not line.startswith("#"):
            parts = line.split(":")
            ends.append((number, parts.pop().strip()) if has_target else (number, ""))
            examples.append(_example(path, number, parts, examples))
    if not examples:
        raise _wrong(path, len(lines), "at least one example after @data", "none", "check the file")
    x, lengths = pad_sequences(examples)
    if classes:
        y = np.array([_class(path, at, end, classes) for at, end in ends], np.int32)
    elif has_target:
        y = np.array([[_number(path, at, end)] for at, end in ends], np.float32)
    else:
        y = None
    return Series(x, lengths, y, classes)


def pad_sequences(
    examples: Sequence[np.ndarray], steps: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Pad arrays (time, channels) with zeros to one float32 array, and return the lengths.

    The arrays have shapes (n, steps, channels) and (n,), int32. `steps` defaults to the longest
    length. Raises `InputError` for no series, an empty one or one longer than `steps`, series that
    differ in channels, and values that float32 cannot hold.

    >>> x, lengths = pad_sequences([np.ones((2, 1)), np.ones((3, 1))])
    >>> x.shape, lengths.tolist()
    ((2, 3, 1), [2, 3])
    """
    shapes = [np.shape(example) for example in examples]
    wrong = next((s for s in shapes if len(s) != 2 or s[1] != shapes[0][1]), None)
    if not shapes or wrong is not None:
        raise error(
            "series",
            expected="at least one array, each of shape (time, channels) with the same channels",
            got=f"shapes {list(shapes[0])} and {list(wrong or ())}" if shapes else "none",
            fix="pass x[:, None] for a series of numbers, and fill in missing channels",
        )
    lengths = np.array([shape[0] for shape in shapes], np.int32)
    steps = int(lengths.max()) if steps is None else steps
    if lengths.min() < 1 or lengths.max() > steps:
        raise error(
            "series",
            expected=f"from 1 to {steps} steps in each series",
            got=f"from {lengths.min()} to {lengths.max()}",
            fix="leave steps out to pad to the longest series, and drop empty ones",
        )
    x = np.zeros((len(examples), steps, shapes[0][1]), np.float32)
    for number, (row, example) in enumerate(zip(x, examples, strict=True)):
        row[: len(example)] = to_float32(np.asarray(example), f"series {number}")
    return x, lengths


def true_steps(x: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """All steps that are not padding, (steps, channels): the values to fit a scaler on.

    >>> true_steps(np.ones((2, 3, 1)), np.array([1, 3])).shape
    (4, 1)
    """
    return x[np.arange(x.shape[1])[None] < lengths[:, None]]


def scale_series(
    scaler: Scaler, statistics: Statistics, x: np.ndarray, lengths: np.ndarray
) -> np.ndarray:
    """The series (n, time, channels), scaled; padding stays zero."""
    exists = np.arange(x.shape[1])[None] < lengths[:, None]
    return np.where(exists[..., None], scaler.apply(statistics, x), np.float32(0))


def _header(path: Path, lines: Sequence[str]) -> tuple[tuple[str, ...], bool, int]:
    """The class names, whether a class or target ends each line, and the number of header lines."""
    classes: tuple[str, ...] = ()
    has_target = False
    for number, line in enumerate(lines, start=1):
        if not line or line.startswith("#"):
            continue
        word, *values = line.split()
        word = word.lower()
        if not word.startswith("@"):
            break
        if word == "@data":
            return classes, has_target, number
        is_true = bool(values) and values[0].lower() == "true"
        if word == "@timestamps" and is_true:
            raise _wrong(path, number, "series without time stamps", line, "resample them first")
        if word == "@classlabel" and is_true:
            classes, has_target = tuple(values[1:]), True
            if not classes:
                raise _wrong(
                    path, number, "the names of the classes", line, "list all classes on that line"
                )
            twice = [name for name, count in Counter(classes).items() if count > 1]
            if twice:
                raise _wrong(
                    path, number, "each class once", f"{twice[0]!r} twice", "leave out the second"
                )
        if word == "@targetlabel" and is_true:
            has_target = True
    raise _wrong(
        path, len(lines), "a line @data after the header", "none", "check that this is a .ts file"
    )


def _example(path: Path, at: int, parts: list[str], before: list[np.ndarray]) -> np.ndarray:
    channels = [[_number(path, at, value) for value in part.split(",")] for part in parts]
    sizes = [len(channel) for channel in channels]
    if len(set(sizes)) != 1:
        raise _wrong(
            path,
            at,
            "channels of one length",
            f"channels of {', '.join(map(str, sizes))} steps" if sizes else "no channel",
            "fill in or cut the series so that all channels have the same length",
        )
    if before and len(channels) != before[0].shape[1]:
        raise _wrong(
            path,
            at,
            f"{before[0].shape[1]} channels, as in the examples before",
            f"{len(channels)}",
            "separate channels with colons, and put the class after the last one",
        )
    return np.array(channels, np.float32).T


def _number(path: Path, at: int, text: str) -> float:
    value = read_number(text)
    if value is None:
        missing = text.strip() in ("?", "", "NaN", "nan")
        raise _wrong(
            path,
            at,
            "finite numbers that fit in float32, separated by commas",
            f"a missing value, {text.strip()!r}" if missing else repr(text.strip()),
            "fill in the value, or drop the example" if missing else "correct the number",
        )
    return value


def _class(path: Path, at: int, name: str, classes: tuple[str, ...]) -> int:
    if name not in classes:
        fix = f"add it to the line @classLabel, or {did_you_mean(name, classes)}"
        raise _wrong(path, at, f"one of {', '.join(classes)}", repr(name), fix)
    return classes.index(name)


def _wrong(path: Path, line: int, expected: str, got: str, fix: str) -> InputError:
    return error(f"{path}, line {line}", expected=expected, got=got, fix=fix)
