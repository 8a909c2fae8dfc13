"""Readers of pictures: CIFAR's binary files, and folders of image files."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jdl.core.errors import InputError, error, require_package
from jdl.data.arrays import Arrays, check_labels

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_GREY, _COLOUR = ("1", "L", "LA"), ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
_PIXELS = 32 * 32 * 3
_PARTS = {"train", "training", "valid", "validation", "val", "test"}

_log = logging.getLogger("jdl")


def read_cifar(path: str | Path, classes: int = 10) -> Arrays:
    """Images x [n, 32, 32, 3] (8-bit) and labels y [n] of one CIFAR binary file.

    With `classes=10` a record is a label and 3,072 pixels; with 100 a coarse label (returned as
    `coarse`) comes before the fine one. Raises `InputError`, naming the file, where it is missing,
    empty, no whole number of records, or holds a label out of range.

    Format: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """
    if classes not in (10, 100):
        raise error("classes", expected="10 or 100", got=str(classes), fix="say which CIFAR it is")
    path = Path(path)
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
            got=f"{len(data)} bytes, {len(data) % record} more than whole records hold"
            if len(data)
            else "an empty file",
            fix="fetch the file again, or check classes=",
        )
    rows = data.reshape(-1, record)
    y = rows[:, labels - 1].astype(np.int32)
    check_labels(y, classes, str(path))
    # Stored plane by plane: red, green, blue.
    x = np.ascontiguousarray(rows[:, labels:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    found = {"x": x, "y": y}
    return found if classes == 10 else {**found, "coarse": rows[:, 0].astype(np.int32)}


def read_images(
    folder: str | Path, size: tuple[int, int] | None = None
) -> tuple[Arrays, list[str]]:
    """Images x [n, H, W, C] (8-bit) and labels y [n] from a folder with a subfolder for each class.

    Classes are numbered in the order of their names, which are returned as well. All images are
    grey (C = 1) if each file is, else in colour (C = 3), without transparency and turned as their
    EXIF data says. `size=(height, width)` resizes every image, stretching it where its shape
    differs. Files with other suffixes than `SUFFIXES` are counted in the log and left out.

    Raises `InputError` for images of several sizes where no `size` is given (naming files), for a
    file that cannot be read as an 8-bit image, for a class without images, and for subfolders that
    are parts of a data set, as train and test. Needs Pillow.
    """
    folder = Path(folder)
    names, files = _classes(folder)
    opened = [(path, read_image(path)) for paths in files for path in paths]
    mode = "L" if all(image.mode in _GREY for _, image in opened) else "RGB"
    if size is None:
        _check_sizes(folder, opened)
    else:
        if min(size) < 1:
            raise error("size", expected="(height, width)", got=str(size), fix="size=(32, 32)")
        height, width = size
        opened = [(path, image.convert(mode).resize((width, height))) for path, image in opened]
    x = np.stack([np.asarray(image.convert(mode), np.uint8) for _, image in opened])
    y = np.repeat(np.arange(len(names), dtype=np.int32), [len(paths) for paths in files])
    return {"x": x[..., None] if mode == "L" else x, "y": y}, names


def read_image(path: Path) -> Any:
    """A picture, read to its end and turned as it says; `InputError`, naming it, for any other.

    Only by Pillow's own decoders of `SUFFIXES`, whatever the name says: that of PostScript would
    start another program. Pictures of more pixels than Pillow holds for safe are refused.
    """
    require_package("PIL", "Pillow", "image files", '"jdl-jax[report]"')
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                image.load()
                turned = ImageOps.exif_transpose(image)
    except Exception as reason:  # a damaged file ends a decoder in any of them
        raise _unreadable(path, reason) from None
    if turned.mode not in (*_GREY, *_COLOUR):
        raise error(
            str(path),
            expected="an image of 8 bits a channel",
            got=f"Pillow's mode {turned.mode}",
            fix="convert it to 8 bits, or read it yourself and use jdl.data.from_arrays",
        )
    return turned


def cifar_files(folder: Path, classes: int) -> dict[str, list[Path]]:
    """The files of CIFAR-10 or -100 in a folder, or in the one that its archive unpacks to."""
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
            fix="give the folder of the binary version as dir= or JDL_DATA_DIR",
        )
    return {"train": [place / name for name in train], "test": [place / name for name in test]}


def _classes(folder: Path) -> tuple[list[str], list[list[Path]]]:
    """Names of the classes and the image files of each."""
    if not folder.is_dir():
        raise error(
            str(folder), expected="a folder of images", got="no such folder", fix="check the path"
        )
    found = sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    names = [path.name for path in found]
    if not names or {name.lower() for name in names} <= _PARTS:
        raise error(
            str(folder),
            expected="a subfolder for each class",
            got=f"subfolders {', '.join(names)}" if names else "no subfolders",
            fix=f"give one part, {folder / names[0]}" if names else "sort the images into classes",
        )
    files, skipped = [], []
    for path in found:
        inside = sorted(p for p in path.rglob("*") if p.is_file() and p.name[0] != ".")
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
        _log.warning("%s: left out %d files, as %s", folder, len(skipped), skipped[0].name)
    return names, files


def _check_sizes(folder: Path, opened: Sequence[tuple[Path, Any]]) -> None:
    sizes: dict[tuple[int, int], list[Path]] = {}
    for path, image in opened:
        sizes.setdefault((image.height, image.width), []).append(path)
    if len(sizes) > 1:
        shown = sorted(sizes.items(), key=lambda item: -len(item[1]))[:3]
        raise error(
            str(folder),
            expected="images of one size",
            got=f"{len(sizes)} sizes: "
            + ", ".join(
                f"{height}x{width} ({len(paths)}, as {paths[0].relative_to(folder)})"
                for (height, width), paths in shown
            ),
            fix=f"jdl.data.read_images(folder, size={shown[0][0]}) resizes all of them",
        )


def _unreadable(path: Path, reason: BaseException) -> InputError:
    missing = isinstance(reason, FileNotFoundError)
    return error(
        str(path),
        expected="a file that can be read",
        got="no such file" if missing else f"{type(reason).__name__}: {reason}",
        fix="check the path" if missing else "fetch or write the file again, or remove it",
    )
