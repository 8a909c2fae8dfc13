"""Readers of images: CIFAR's binary files, and folders of image files."""

import logging
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jdl.core.errors import InputError, error, require_package
from jdl.core.paths import is_system_file, natural_key, user_path
from jdl.data.arrays import Arrays, check_labels
from jdl.data.records import SPLIT_NAMES

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
GREY_MODES, COLOUR_MODES = ("1", "L", "LA"), ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
_PIXELS = 32 * 32 * 3
_COARSE_CLASSES = 20

_log = logging.getLogger("jdl")


def read_cifar(path: str | Path, classes: int = 10) -> Arrays:
    """Read a CIFAR binary file: `x` uint8 (n, 32, 32, 3) and `y` int32 (n,).

    With `classes=100` the result also has `coarse` int32 (n,), the coarse labels. The format is
    that of Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. Raises
    `InputError`, naming the file, if it is missing, empty or cut short, or holds a label out of
    range.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "test_batch.bin"
    >>> _ = path.write_bytes(bytes([6] + [255] * 3072))
    >>> batch = read_cifar(path)
    >>> batch["x"].shape, batch["y"].tolist()
    ((1, 32, 32, 3), [6])
    """
    if classes not in (10, 100):
        raise error(
            "classes", expected="10 or 100", got=str(classes), fix="pass classes=10 or classes=100"
        )
    path = user_path(path)
    labels = 1 if classes == 10 else 2
    record = labels + _PIXELS
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as reason:
        raise _unreadable(path, reason) from None
    if len(data) == 0 or len(data) % record:
        raise error(
            str(path),
            expected=f"records of {record} bytes, as in the binary version of CIFAR-{classes}",
            got=f"{len(data)} bytes, {len(data) % record} after the last whole record"
            if len(data)
            else "an empty file",
            fix="download the file again, or check classes=",
        )
    rows = data.reshape(-1, record)
    y = rows[:, labels - 1].astype(np.int32)
    check_labels(y, classes, str(path))
    if classes == 100:
        check_labels(rows[:, 0], _COARSE_CLASSES, f"{path}, coarse labels")
    # Each image is stored as a red, a green and a blue plane.
    x = np.ascontiguousarray(rows[:, labels:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    arrays = {"x": x, "y": y}
    return arrays if classes == 10 else {**arrays, "coarse": rows[:, 0].astype(np.int32)}


def read_images(
    folder: str | Path, size: tuple[int, int] | None = None
) -> tuple[Arrays, list[str]]:
    """Read a folder with a subfolder of images for each class: arrays `x` and `y`, and class names.

    `x` is uint8 (n, H, W, C) and `y` int32 (n,). Classes are numbered in the order of their names,
    with 2 before 10. Hidden files and folders, and those of systems (`__MACOSX`), are ignored. C is
    1 if every file is grey, else 3; transparency is dropped and EXIF rotation applied.
    `size=(height, width)` resizes every image without keeping its proportions. Files with suffixes
    other than `SUFFIXES` are skipped and counted in the log. Needs Pillow.

    Raises `InputError` for images of different sizes if you pass no `size`, a file that is not an
    8-bit image, a class without images, and subfolders that are splits: two or more of train, valid
    and test, or one that holds subfolders.

    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for name in ("cat", "dog"):
    ...     (folder / name).mkdir()
    ...     _ = (folder / name / "0.pgm").write_bytes(b"P5 4 4 255 " + bytes(16))
    >>> data, names = read_images(folder)
    >>> data["x"].shape, data["y"].tolist(), names
    ((2, 4, 4, 1), [0, 1], ['cat', 'dog'])
    """
    folder = user_path(folder)
    height, width = (0, 0) if size is None else _checked_size(size)
    names, files = _classes(folder)
    opened = [(path, read_image(path)) for paths in files for path in paths]
    mode = "L" if all(image.mode in GREY_MODES for _, image in opened) else "RGB"
    if size is None:
        _check_sizes(folder, opened)
    else:
        opened = [(path, image.convert(mode).resize((width, height))) for path, image in opened]
    x = np.stack([np.asarray(image.convert(mode), np.uint8) for _, image in opened])
    y = np.repeat(np.arange(len(names), dtype=np.int32), [len(paths) for paths in files])
    return {"x": x[..., None] if mode == "L" else x, "y": y}, names


def read_image(path: Path) -> Any:
    """An image, fully decoded and rotated by its EXIF data; `InputError` names a file that fails.

    Only Pillow's own decoders of `SUFFIXES` are used, whatever the file's name: the PostScript
    decoder would start another program. Images above Pillow's pixel limit are rejected.
    """
    require_package("PIL", "Pillow", "image files", '"jdl-jax[report]"')
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                image.load()
                turned = ImageOps.exif_transpose(image)
    except Exception as reason:  # a damaged file can raise anything in a decoder
        raise _unreadable(path, reason) from None
    if turned.mode not in (*GREY_MODES, *COLOUR_MODES):
        raise error(
            str(path),
            expected="an image with 8 bits per channel",
            got=f"Pillow's mode {turned.mode}",
            fix="convert it to 8 bits, or load it yourself and use jdl.data.from_arrays",
        )
    # Pillow warns of a palette with transparency when it converts one to RGB.
    return turned.convert("RGBA") if "transparency" in turned.info else turned


def _checked_size(size: Any) -> tuple[int, int]:
    """Height and width; raises `InputError` unless they are two integers above 0."""
    given = tuple(size) if np.iterable(size) else ()
    if len(given) != 2 or not all(isinstance(n, int | np.integer) and n >= 1 for n in given):
        raise error(
            "size",
            expected="(height, width), two integers above 0",
            got=repr(size),
            fix="pass size=(32, 32)",
        )
    return int(given[0]), int(given[1])


def cifar_files(folder: Path, classes: int) -> dict[str, list[Path]]:
    """The files of CIFAR-10 or -100 in a folder, or in the subfolder of the unpacked archive."""
    if classes == 10:
        inner, train = "cifar-10-batches-bin", [f"data_batch_{i}.bin" for i in range(1, 6)]
        test = ["test_batch.bin"]
    else:
        inner, train, test = "cifar-100-binary", ["train.bin"], ["test.bin"]
    place = folder / inner if (folder / inner).is_dir() else folder
    missing = [name for name in [*train, *test] if not (place / name).is_file()]
    if missing:
        raise error(
            f'data set "cifar{classes}"',
            expected=f"the files {', '.join([*train, *test])}",
            got=f"no {', '.join(missing)} in {place}",
            fix="pass the folder of the binary version as dir=, or set JDL_DATA_DIR",
        )
    return {"train": [place / name for name in train], "test": [place / name for name in test]}


def _classes(folder: Path) -> tuple[list[str], list[list[Path]]]:
    """Names of the classes, and the image files of each."""
    if not folder.is_dir():
        raise error(
            str(folder), expected="a folder of images", got="no such folder", fix="check the path"
        )
    folders = _visible(folder, (path for path in folder.iterdir() if path.is_dir()))
    names = [path.name for path in folders]
    parts = [path for path in folders if path.name.lower() in SPLIT_NAMES]
    inside = [path for part in parts for path in _visible(folder, part.iterdir())]
    are_splits = len(parts) > 1 or any(path.is_dir() for path in inside)
    if are_splits or len(parts) == len(names):
        raise error(
            str(folder),
            expected="a subfolder for each class",
            got=f"subfolders {', '.join(names)}" if names else "no subfolders",
            fix=f"pass one split, {parts[0]}" if parts else "make a folder for each class",
        )
    files, skipped = [], []
    for path in folders:
        inside = _visible(folder, (p for p in path.rglob("*") if p.is_file()))
        images = [p for p in inside if p.suffix.lower() in SUFFIXES]
        skipped += [p for p in inside if p.suffix.lower() not in SUFFIXES]
        if not images:
            raise error(
                str(path),
                expected="at least one image of this class",
                got=f"{len(inside)} files, none of them an image",
                fix=f"add images ({', '.join(SUFFIXES)}) or remove the folder",
            )
        files.append(images)
    if skipped:
        _log.warning("%s: skipped %d files, e.g. %s", folder, len(skipped), skipped[0].name)
    return names, files


def _visible(folder: Path, paths: Iterable[Path]) -> list[Path]:
    """The paths in a folder that are not hidden, in natural order."""
    relative = [path.relative_to(folder) for path in paths]
    visible = [path for path in relative if not is_system_file(path)]
    return [folder / path for path in sorted(visible, key=lambda path: natural_key(str(path)))]


def _check_sizes(folder: Path, opened: Sequence[tuple[Path, Any]]) -> None:
    sizes: dict[tuple[int, int], list[Path]] = {}
    for path, image in opened:
        sizes.setdefault((image.height, image.width), []).append(path)
    if len(sizes) > 1:
        most_common = sorted(sizes.items(), key=lambda item: -len(item[1]))[:3]
        raise error(
            str(folder),
            expected="images of the same size",
            got=f"{len(sizes)} sizes: "
            + ", ".join(
                f"{height}x{width} ({len(paths)}, e.g. {paths[0].relative_to(folder)})"
                for (height, width), paths in most_common
            ),
            fix=f"resize them all with jdl.data.read_images(folder, size={most_common[0][0]})",
        )


def _unreadable(path: Path, reason: BaseException) -> InputError:
    missing = isinstance(reason, FileNotFoundError)
    return error(
        str(path),
        expected="a file that can be read",
        got="no such file" if missing else f"{type(reason).__name__}: {reason}",
        fix="check the path" if missing else "download or save the file again, or remove it",
    )
