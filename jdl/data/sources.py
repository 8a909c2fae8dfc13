"""Data sets by name, from files and from memory: split first, then scaled by the training part."""

import os
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from jdl.core.check import error, nearest
from jdl.data import named_series, split
from jdl.data.arrays import as_arrays, check_arrays, check_labels
from jdl.data.files import read_labelled, read_npz
from jdl.data.images import cifar_files, read_cifar, read_images
from jdl.data.records import Arrays, Data
from jdl.data.scale import Scaler, divide, standardise

PARTS = {"train": 0.7, "valid": 0.1, "test": 0.2}
MNIST_VALID = 5_000

_TABLES = {
    "iris": ("load_iris", "R. A. Fisher, 1936; UCI Machine Learning Repository"),
    "wine": ("load_wine", "S. Aeberhard and M. Forina, 1992; UCI Machine Learning Repository"),
    "breast_cancer": ("load_breast_cancer", "W. Wolberg et al., 1995; UCI, diagnostic Wisconsin"),
    "diabetes": ("load_diabetes", "B. Efron et al., Least Angle Regression, 2004"),
}
_MNIST_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


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
    if name == "digits":
        return _digits(seed)
    if name == "mnist":
        return _mnist(dir, seed)
    if name == "japanese_vowels":
        return named_series.japanese_vowels(dir, seed)
    if name == "mnist1d":
        return named_series.mnist1d(seed)
    if name in ("cifar10", "cifar100"):
        return _cifar(int(name.removeprefix("cifar")), dir, seed)
    if name in _TABLES:
        return _table(name, seed)
    if Path(name).is_dir():
        return _folder(Path(name), seed)
    if name.endswith(".npz"):
        return _npz(Path(name) if dir is None else Path(dir) / name, seed)
    raise error(
        f'data set "{name}"',
        expected="a known name, a folder of images or a path that ends in .npz",
        got=name,
        fix=nearest(name, known()),
    )


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
    is unless `scale` is given, `jdl.data.scale.standardise` for example, which is fitted on the
    training part alone.

    >>> data = from_arrays(np.ones((20, 3), np.float32), np.arange(20, dtype=np.int32) % 2)
    >>> data.info["classes"], data.info["sizes"]
    (2, {'train': 14, 'valid': 2, 'test': 4})
    """
    whole = _prepare({"x": x} if y is None else {"x": x, "y": y}, name)
    fractions = (1 - valid - test, valid, test)
    n = len(whole["x"])
    if groups is not None:
        indices = split.grouped(_along(groups, n, "groups"), fractions, seed)
    elif times is not None:
        indices = split.by_time(_along(times, n, "times"), fractions)
    else:
        indices = _split(whole, fractions, seed)
    if _classes(whole) is not None and whole["y"].ndim == 1:
        split.check_classes(whole["y"], indices[:1])
    parts = {part: _rows(whole, index) for part, index in zip(PARTS, indices, strict=True)}
    return _finish(parts, scale, {"name": name, "seed": seed}, _classes(whole))


def _digits(seed: int) -> Data:
    with resources.as_file(resources.files("jdl.data") / "digits.npz") as path:
        raw = read_npz(path)
    whole = {"x": raw["x"][..., None], "y": raw["y"].astype(np.int32)}
    indices = _split(whole, tuple(PARTS.values()), seed)
    parts = {part: _rows(whole, index) for part, index in zip(PARTS, indices, strict=True)}
    about = {
        "name": "digits",
        "source": "E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998",
        "licence": "CC BY 4.0",
        "seed": seed,
    }
    return _finish(parts, divide(16), about, 10)


def _table(name: str, seed: int) -> Data:
    try:
        from sklearn import datasets
    except ImportError:
        raise error(
            f'data set "{name}"',
            expected="scikit-learn, which holds it",
            got="no module named sklearn",
            fix='pip install "jdl-jax[datasets]"',
        ) from None
    function, source = _TABLES[name]
    # diabetes comes scaled by statistics of all its rows, the test rows included, unless asked.
    options: dict[str, Any] = {"scaled": False} if name == "diabetes" else {}
    table = getattr(datasets, function)(**options)
    whole = _prepare({"x": table.data, "y": table.target}, name, notice=False)
    about: dict[str, Any] = {
        "name": name,
        "source": source,
        "licence": "CC BY 4.0 (UCI)" if "UCI" in source else "published with the paper",
        "features": [str(feature) for feature in table.feature_names],
        "seed": seed,
    }
    if name != "diabetes":
        about["labels"] = [str(label) for label in table.target_names]
    indices = _split(whole, tuple(PARTS.values()), seed)
    parts = {part: _rows(whole, index) for part, index in zip(PARTS, indices, strict=True)}
    return _finish(parts, standardise, about, _classes(whole))


def _mnist(dir: str | Path | None, seed: int) -> Data:
    folder = dir if dir is not None else os.environ.get("JDL_DATA_DIR")
    if not folder:
        raise error(
            'data set "mnist"',
            expected="the folder of its four IDX files",
            got="neither dir= nor the environment variable JDL_DATA_DIR",
            fix="give one of them, or use the embedded set: digits",
        )
    files = {
        part: [_find(Path(folder), stem) for stem in stems] for part, stems in _MNIST_FILES.items()
    }
    raw = {
        part: read_labelled(images, labels, classes=10) for part, (images, labels) in files.items()
    }
    whole = {
        part: {"x": r["x"][..., None], "y": r["y"].astype(np.int32)} for part, r in raw.items()
    }
    n = len(whole["train"]["y"])
    if n <= MNIST_VALID:
        raise error(
            str(files["train"][0]),
            expected=f"more than {MNIST_VALID} images, for that many are kept for validation",
            got=f"{n} images",
            fix="give the whole training file",
        )
    indices = split.stratified(whole["train"]["y"], (n - MNIST_VALID, MNIST_VALID), seed)
    parts = {
        "train": _rows(whole["train"], indices[0]),
        "valid": _rows(whole["train"], indices[1]),
        "test": whole["test"],
    }
    about = {
        "name": "mnist",
        "source": "Y. LeCun, C. Cortes and C. J. C. Burges, The MNIST database, 1998",
        "licence": "not stated in the files",
        "files": {part: [str(path) for path in paths] for part, paths in files.items()},
        "seed": seed,
    }
    return _finish(parts, divide(255), about, 10)


def _cifar(classes: int, dir: str | Path | None, seed: int) -> Data:
    name, folder = f"cifar{classes}", dir or os.environ.get("JDL_DATA_DIR")
    if not folder:
        raise error(
            f'data set "{name}"',
            expected="the folder of its binary files",
            got="neither dir= nor the environment variable JDL_DATA_DIR",
            fix="give one of them",
        )
    files = cifar_files(Path(folder), classes)
    raw = {part: [read_cifar(path, classes) for path in paths] for part, paths in files.items()}
    whole = {
        part: {key: np.concatenate([r[key] for r in read]) for key in read[0]}
        for part, read in raw.items()
    }
    indices = split.stratified(whole["train"]["y"], (0.9, 0.1), seed)
    parts = {
        "train": _rows(whole["train"], indices[0]),
        "valid": _rows(whole["train"], indices[1]),
        "test": whole["test"],
    }
    about = {
        "name": name,
        "source": "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
        "licence": "not stated in the files",
        "files": {part: [str(path) for path in paths] for part, paths in files.items()},
        "seed": seed,
    }
    return _finish(parts, None, about, classes)


def _folder(path: Path, seed: int) -> Data:
    whole, names = read_images(path)
    indices = _split(whole, tuple(PARTS.values()), seed)
    parts = {part: _rows(whole, index) for part, index in zip(PARTS, indices, strict=True)}
    about = {"name": path.name, "source": str(path), "labels": names, "seed": seed}
    return _finish(parts, None, about, len(names))


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
        parts[part] = _prepare(arrays, where)
    _check_alike(parts, str(path))
    classes = _classes(parts["train"])
    for part, arrays in parts.items():
        if classes is not None:
            check_labels(arrays["y"], classes, f'{path}, array "y" of the {part} part')
    missing = [part for part in ("valid", "test") if part not in parts]
    if missing:
        whole, given = parts["train"], [PARTS[part] for part in missing]
        indices = _split(whole, (1 - sum(given), *given), seed)
        made = zip(["train", *missing], indices, strict=True)
        parts |= {part: _rows(whole, index) for part, index in made}
    about = {"name": path.stem, "source": str(path), "seed": seed}
    return _finish(parts, None, about, classes)


def _finish(
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


def _check_alike(parts: dict[str, Arrays], where: str) -> None:
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


def _split(whole: Arrays, fractions: tuple[float, ...], seed: int) -> tuple[np.ndarray, ...]:
    labels = whole.get("y")
    if labels is not None and labels.ndim == 1 and labels.dtype.kind in "iu":
        return split.stratified(labels, fractions, seed)
    return split.random(len(whole["x"]), fractions, seed)


def _prepare(data: Mapping[str, Any], where: str, *, notice: bool = True) -> Arrays:
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


def _classes(arrays: Arrays) -> int | None:
    """Number of classes by the largest label; None where `y` is no label."""
    y = arrays.get("y")
    return int(y.max()) + 1 if y is not None and y.dtype.kind in "iu" else None


def _rows(arrays: Arrays, index: np.ndarray) -> Arrays:
    return {key: value[index] for key, value in arrays.items()}


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


def _find(folder: Path, stem: str) -> Path:
    names = [stem, f"{stem}.gz", stem.replace("-idx", ".idx"), stem.replace("-idx", ".idx") + ".gz"]
    places = [folder, folder / "mnist"]
    for place in places:
        for name in names:
            if (place / name).is_file():
                return place / name
    raise error(
        'data set "mnist"',
        expected=f"a file {' or '.join(names[:2])}",
        got=f"none in {' or '.join(str(place) for place in places)}",
        fix="give the folder of the four IDX files as dir= or JDL_DATA_DIR",
    )


def known() -> Mapping[str, str]:
    """Names that `load` knows, with where the data comes from.

    >>> [name for name in sorted(known()) if "mnist" in name]
    ['mnist', 'mnist1d']
    """
    sources = {
        "cifar10": "binary files of yours",
        "cifar100": "binary files of yours",
        "digits": "inside the package",
        "japanese_vowels": "two .ts files of yours",
        "mnist": "four IDX files of yours",
        "mnist1d": "the package mnist1d",
    }
    return {**sources, **{name: "scikit-learn" for name in _TABLES}}
