"""Sets of images that `jdl.data.load` knows: digits, MNIST, CIFAR, folders of pictures."""

import os
from importlib import resources
from pathlib import Path

import numpy as np

from jdl.core.errors import error
from jdl.data.datasets.build import finish, rows, three_parts
from jdl.data.prepare import split
from jdl.data.prepare.scale import divide
from jdl.data.readers.binary import read_labelled, read_npz
from jdl.data.readers.images import cifar_files, read_cifar, read_images
from jdl.data.records import Data

MNIST_VALID = 5_000

_MNIST_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def digits(seed: int) -> Data:
    """The 1,797 digits inside the package."""
    with resources.as_file(resources.files("jdl.data") / "digits.npz") as path:
        raw = read_npz(path)
    whole = {"x": raw["x"][..., None], "y": raw["y"].astype(np.int32)}
    parts = three_parts(whole, seed)
    about = {
        "name": "digits",
        "source": "E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998",
        "licence": "CC BY 4.0",
        "seed": seed,
    }
    return finish(parts, divide(16), about, 10)


def mnist(dir: str | Path | None, seed: int) -> Data:
    """MNIST from its four IDX files; 5,000 images, chosen by class, are the valid part."""
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
        "train": rows(whole["train"], indices[0]),
        "valid": rows(whole["train"], indices[1]),
        "test": whole["test"],
    }
    about = {
        "name": "mnist",
        "source": "Y. LeCun, C. Cortes and C. J. C. Burges, The MNIST database, 1998",
        "licence": "not stated in the files",
        "files": {part: [str(path) for path in paths] for part, paths in files.items()},
        "seed": seed,
    }
    return finish(parts, divide(255), about, 10)


def cifar(classes: int, dir: str | Path | None, seed: int) -> Data:
    """CIFAR-10 or -100 from its binary files; a tenth, chosen by class, is the valid part."""
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
        "train": rows(whole["train"], indices[0]),
        "valid": rows(whole["train"], indices[1]),
        "test": whole["test"],
    }
    about = {
        "name": name,
        "source": "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
        "licence": "not stated in the files",
        "files": {part: [str(path) for path in paths] for part, paths in files.items()},
        "seed": seed,
    }
    return finish(parts, None, about, classes)


def folder(path: Path, seed: int) -> Data:
    """A folder with a subfolder of images for each class."""
    whole, names = read_images(path)
    parts = three_parts(whole, seed)
    about = {"name": path.name, "source": str(path), "labels": names, "seed": seed}
    return finish(parts, None, about, len(names))


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
