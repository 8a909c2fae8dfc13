"""The image data sets of `jdl.data.load`: digits, MNIST, CIFAR and folders of images."""

from importlib import resources
from pathlib import Path

import numpy as np

from jdl.core.errors import error
from jdl.data.datasets.build import data_folder, find_file, finish, hold_out, three_parts
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
    """The 1,797 digits that come with the package."""
    with resources.as_file(resources.files("jdl.data.datasets") / "digits.npz") as path:
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
    """MNIST from its four IDX files; 5,000 images, stratified by class, are the valid split."""
    folder = data_folder("mnist", dir, "four IDX files")
    files = {part: [_find(folder, stem) for stem in stems] for part, stems in _MNIST_FILES.items()}
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
            expected=f"more than {MNIST_VALID} images, the size of the valid split",
            got=f"{n} images",
            fix="use the complete training file",
        )
    parts = hold_out(whole["train"], whole["test"], (n - MNIST_VALID, MNIST_VALID), seed)
    about = {
        "name": "mnist",
        "source": "Y. LeCun, C. Cortes and C. J. C. Burges, The MNIST database, 1998",
        "licence": "not stated in the files",
        "files": {part: [str(path) for path in paths] for part, paths in files.items()},
        "seed": seed,
    }
    return finish(parts, divide(255), about, 10)


def cifar(classes: int, dir: str | Path | None, seed: int) -> Data:
    """CIFAR-10 or -100 from its binary files; a tenth, stratified by class, is the valid split."""
    name = f"cifar{classes}"
    files = cifar_files(data_folder(name, dir, "binary files"), classes)
    raw = {part: [read_cifar(path, classes) for path in paths] for part, paths in files.items()}
    whole = {
        part: {key: np.concatenate([r[key] for r in read]) for key in read[0]}
        for part, read in raw.items()
    }
    parts = hold_out(whole["train"], whole["test"], (0.9, 0.1), seed)
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
    fix = "pass the folder of the four IDX files as dir=, or set JDL_DATA_DIR"
    return find_file("mnist", folder, names, fix)
