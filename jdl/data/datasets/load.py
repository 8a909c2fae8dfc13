"""Data sets by name, from files and from memory: split first, then scaled by the training part."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jdl.core.errors import did_you_mean, error
from jdl.data.arrays import check_labels
from jdl.data.datasets import images, series, tables
from jdl.data.datasets.build import PARTS, by_class, check_alike, classes_of, finish, prepare, rows
from jdl.data.prepare import split
from jdl.data.prepare.scale import Scaler
from jdl.data.readers.binary import read_npz
from jdl.data.records import Data

_SETS: dict[str, tuple[str, Callable[[str | Path | None, int], Data]]] = {
    "cifar10": ("binary files of yours", partial(images.cifar, 10)),
    "cifar100": ("binary files of yours", partial(images.cifar, 100)),
    "digits": ("inside the package", lambda _, seed: images.digits(seed)),
    "japanese_vowels": ("two .ts files of yours", series.japanese_vowels),
    "mnist": ("four IDX files of yours", images.mnist),
    "mnist1d": ("the package mnist1d", lambda _, seed: series.mnist1d(seed)),
}
"""Where the data of each set comes from, and what makes it of a folder and a seed."""


def load(name_or_path: str | Path, *, dir: str | Path | None = None, seed: int = 0) -> Data:
    """A data set, by name or from an .npz file, split into train, valid and test.

    - `digits`: 1,797 real 8x8 digits inside the package, x [n, 8, 8, 1], divided by 16.
    - `iris`, `wine`, `breast_cancer`, `diabetes`: from scikit-learn, standardised.
    - `mnist`: the four IDX files, plain or .gz, in `dir` or `$JDL_DATA_DIR` or its folder
      `mnist`; x [n, 28, 28, 1], divided by 255; 5,000 training images are the valid part.
    - `japanese_vowels`: the two .ts files, found like MNIST's; x [n, 29, 12], standardised, with
      true `lengths`; 54 training series are the valid part.
    - `mnist1d`: x [n, 40, 1], made by the package mnist1d; 400 training series are the valid part.
    - `cifar10`, `cifar100`: the binary version's files in `dir` or `$JDL_DATA_DIR`; x
      [n, 32, 32, 3], divided by 255; a tenth of the training images is the valid part.
    - a path to a folder of images of one size, with a subfolder for each class.
    - a path to an .npz file with `x` and `y`, and where they exist `x_valid`, `x_test`, ...

    Sets without a fixed test part are split 70 / 10 / 20, stratified by class. Splits depend on
    `seed` alone and are made before anything is fitted. Raises `InputError` for unknown names
    and for files that are missing, damaged or inconsistent.

    >>> data = load("digits")
    >>> data.train["x"].shape, data.info["sizes"]
    ((1258, 8, 8, 1), {'train': 1258, 'valid': 180, 'test': 359})
    """
    name = str(name_or_path)
    if name in _SETS:
        return _SETS[name][1](dir, seed)
    if name in tables.TABLES:
        return tables.table_set(name, seed)
    if Path(name).is_dir():
        return images.folder(Path(name), seed)
    if name.endswith(".npz"):
        return _npz(Path(name) if dir is None else Path(dir) / name, seed)
    raise error(
        f'data set "{name}"',
        expected="a known name, a folder of images or a path that ends in .npz",
        got=name,
        fix=did_you_mean(name, dataset_names()),
    )


def mnist_or_digits(dir: str | Path | None = None, seed: int = 0) -> Data:
    """MNIST where `dir` or `$JDL_DATA_DIR` names its folder, else the digits inside the package.

    `info["name"]`, "mnist" or "digits", says which. For experiments that anybody can run. Raises
    `InputError` for a folder that is named and lacks MNIST's files.

    >>> mnist_or_digits().info["name"]  # without a folder
    'digits'
    """
    folder = os.environ.get("JDL_DATA_DIR") or None if dir is None else dir
    return load("digits" if folder is None else "mnist", dir=folder, seed=seed)


def from_arrays(
    x: Any,
    y: Any = None,
    *,
    valid: float = PARTS["valid"],
    test: float = PARTS["test"],
    groups: Any = None,
    times: Any = None,
    scale: Scaler | None = None,
    name: str = "arrays",
    seed: int = 0,
) -> Data:
    """Splits arrays in memory into train, valid and test.

    Integer `y` [n] are class labels, split in proportion; float `y` are targets of a regression,
    [n] becoming [n, 1]. `groups` keeps groups whole and `times` puts the latest into the test
    part. 8-bit `x` is divided by 255, and [n, H, W] gets a channel axis; other `x` stays as it
    is unless `scale` is given, `jdl.data.scale.standard_scaler` for example, which is fitted on the
    training part alone.

    >>> data = from_arrays(np.ones((20, 3), np.float32), np.arange(20, dtype=np.int32) % 2)
    >>> data.info["classes"], data.info["sizes"]
    (2, {'train': 14, 'valid': 2, 'test': 4})
    """
    whole = prepare({"x": x} if y is None else {"x": x, "y": y}, name)
    fractions = (1 - valid - test, valid, test)
    n = len(whole["x"])
    if groups is not None:
        indices = split.grouped(_along(groups, n, "groups"), fractions, seed)
    elif times is not None:
        indices = split.by_time(_along(times, n, "times"), fractions)
    else:
        indices = by_class(whole, fractions, seed)
    if classes_of(whole) is not None and whole["y"].ndim == 1:
        split.check_classes(whole["y"], indices[:1])
    parts = {part: rows(whole, index) for part, index in zip(PARTS, indices, strict=True)}
    return finish(parts, scale, {"name": name, "seed": seed}, classes_of(whole))


def _npz(path: Path, seed: int) -> Data:
    found = read_npz(path)
    raw: dict[str, dict[str, np.ndarray]] = {}
    for key, value in found.items():
        base, _, suffix = key.rpartition("_")
        part = suffix if base and suffix in PARTS else "train"
        raw.setdefault(part, {})[base if base and suffix in PARTS else key] = value
    if "x" not in raw.get("train", {}) or "y" not in raw.get("train", {}):
        raise error(
            str(path),
            expected="arrays x and y, and where they exist x_valid, y_valid, x_test, y_test",
            got=", ".join(found) or "no arrays",
            fix="np.savez(path, x=x, y=y)",
        )
    parts = {}
    for part, arrays in raw.items():
        where = str(path) if part == "train" else f"{path}, {part} part"
        if set(arrays) != set(raw["train"]):
            raise error(
                where,
                expected=f"the entries of the training part: {', '.join(sorted(raw['train']))}",
                got=", ".join(sorted(arrays)),
                fix="save the same arrays for every part",
            )
        parts[part] = prepare(arrays, where)
    check_alike(parts, str(path))
    classes = classes_of(parts["train"])
    for part, arrays in parts.items():
        if classes is not None:
            check_labels(arrays["y"], classes, f'{path}, array "y" of the {part} part')
    missing = [part for part in ("valid", "test") if part not in parts]
    if missing:
        whole, given = parts["train"], [PARTS[part] for part in missing]
        indices = by_class(whole, (1 - sum(given), *given), seed)
        made = zip(["train", *missing], indices, strict=True)
        parts |= {part: rows(whole, index) for part, index in made}
    about = {"name": path.stem, "source": str(path), "seed": seed}
    return finish(parts, None, about, classes)


def _along(values: Any, n: int, name: str) -> np.ndarray:
    values = np.asarray(values)
    if values.shape != (n,):
        raise error(
            name,
            expected=f"one value for each example, shape [{n}]",
            got=f"shape {list(values.shape)}",
            fix=f"give {name} in the order of the examples",
        )
    return values


def dataset_names() -> Mapping[str, str]:
    """Names that `load` knows, with where the data comes from.

    >>> [name for name in sorted(dataset_names()) if "mnist" in name]
    ['mnist', 'mnist1d']
    """
    sources = {name: source for name, (source, _) in _SETS.items()}
    return sources | dict.fromkeys(tables.TABLES, "scikit-learn")
