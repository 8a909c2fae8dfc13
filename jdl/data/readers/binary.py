"""Readers of IDX, .npy and .npz files from untrusted sources. Nothing in a file is executed.

Every size in a header is checked against the size of the file before memory is allocated.
"""

import gzip
import io
import math
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import IO, Any

import numpy as np

from jdl.core.errors import InputError, error
from jdl.core.paths import user_path
from jdl.data.arrays import check_labels

_IDX_DTYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_DEFLATE_LIMIT = 1032
"""A deflate stream expands at most 1,032 times."""
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_HEADER_BYTES = 2**14
"""More than the longest header that numpy reads."""


def read_idx(path: str | Path, *, rank: int | None = None) -> np.ndarray:
    """Read an IDX file, the format of MNIST, plain or gzipped.

    The array has the shape and dtype of the header; pass `rank` to require a number of dimensions.
    The format is that of LeCun, Cortes and Burges, "The MNIST database of handwritten digits",
    1998. Raises `InputError`, naming the file, if it is missing, not IDX, damaged, shorter or
    longer than its header says, or of another rank.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "labels-idx1-ubyte"
    >>> _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
    >>> read_idx(path, rank=1)
    array([7, 2, 1], dtype=uint8)
    """
    path = user_path(path)
    try:
        with path.open("rb") as raw:
            stored = path.stat().st_size
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if path.suffix == ".gz" and not packed:
                raise _damaged(path, "a gzip file", "other bytes at the start")
            if not packed:
                return _idx(raw, path, stored, rank)
            with gzip.open(raw) as unpacked:
                return _idx(unpacked, path, stored * _DEFLATE_LIMIT, rank)
    except (OSError, EOFError, zlib.error) as reason:
        if isinstance(reason, gzip.BadGzipFile | EOFError | zlib.error):
            raise _damaged(path, "an intact gzip file", f"a damaged one ({reason})") from None
        raise unreadable(path, reason) from None


def read_lines(path: Path, expected: str) -> list[str]:
    """The lines of a UTF-8 file; `expected` describes the file in the error."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as reason:
        raise unreadable(path, reason, expected) from None


def read_number(text: str) -> float | None:
    """The number that a text holds; None unless it is finite in float32, too.

    >>> read_number("2.5e1"), read_number("1e39"), read_number("1_0"), read_number("nan")
    (25.0, None, None, None)
    """
    try:
        value = float(text)
    except ValueError:
        return None
    # Python parses 1_0 as 10; no file means that.
    return value if "_" not in text and abs(value) <= _FLOAT32_MAX else None


def read_labelled(images: str | Path, labels: str | Path, classes: int) -> dict[str, np.ndarray]:
    """Images (n, H, W) and labels (n,) from two IDX files; `InputError` unless they match."""
    x, y = read_idx(images, rank=3), read_idx(labels, rank=1)
    for path, array in ((images, x), (labels, y)):
        if array.dtype != np.uint8:
            raise _damaged(Path(path), "unsigned bytes (type 8)", f"dtype {array.dtype}")
        if array.size == 0:
            raise _damaged(Path(path), "at least one example", f"shape {list(array.shape)}")
    if len(x) != len(y):
        raise error(
            str(labels),
            expected=f"{len(x)} labels, one for each image of {images}",
            got=f"{len(y)} labels",
            fix="use two files of the same split",
        )
    check_labels(y, classes, str(labels))
    return {"x": x, "y": y}


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """Read the arrays of an .npz file, by name, in their own shapes and dtypes.

    Members that are no arrays, such as a README or a folder, are skipped. Raises `InputError`,
    naming file and member, if the file is missing or damaged, claims more data than it has, or
    holds Python objects, which could run code.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "data.npz"
    >>> np.savez(path, x=np.zeros((2, 3)), y=np.array([0, 1]))
    >>> {name: array.shape for name, array in read_npz(path).items()}
    {'x': (2, 3), 'y': (2,)}
    """
    path, arrays = user_path(path), {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if _is_array(archive, member)]
            _check_members(members, path)
            for member in members:
                name = member.filename.removesuffix(".npy")
                with archive.open(member) as file:
                    arrays[name] = _npy(file, member.file_size, path, f", member {member.filename}")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as reason:
        raise _damaged(path, "an intact .npz file", f"a damaged one ({reason})") from None
    except OSError as reason:
        raise unreadable(path, reason) from None
    return arrays


def read_npy(path: str | Path) -> np.ndarray:
    """Read the array of an .npy file, in its own shape and dtype.

    Raises `InputError` for the same reasons as `read_npz`.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "x.npy"
    >>> np.save(path, np.arange(3.0))
    >>> read_npy(path)
    array([0., 1., 2.])
    """
    path = user_path(path)
    try:
        with path.open("rb") as file:
            return _npy(file, path.stat().st_size, path)
    except OSError as reason:
        raise unreadable(path, reason) from None


def _idx(file: IO[bytes] | gzip.GzipFile, path: Path, limit: int, rank: int | None) -> np.ndarray:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _IDX_DTYPES or not magic[3]:
        raise _damaged(
            path,
            "an IDX file: two zero bytes, a type (8, 9, 11 to 14), a number of dimensions",
            f"magic number {magic.hex() or 'missing'}",
        )
    if rank is not None and magic[3] != rank:
        what = {1: "labels", 3: "images"}.get(rank, "an array")
        raise _damaged(
            path,
            f"{what}: {rank} dimensions (magic number {magic[:3].hex()}{rank:02x})",
            f"{magic[3]} dimensions (magic number {magic.hex()})",
        )
    header = file.read(4 * magic[3])
    if len(header) < 4 * magic[3]:
        raise _damaged(path, f"a header of {4 + 4 * magic[3]} bytes", f"{4 + len(header)} bytes")
    shape = tuple(int(size) for size in np.frombuffer(header, ">u4"))
    dtype = np.dtype(_IDX_DTYPES[magic[2]])
    size = math.prod(shape) * dtype.itemsize
    expected = f"{size} bytes of data for shape {list(shape)}"
    if size > limit:
        raise _damaged(path, expected, f"at most {limit} bytes")
    data = _read(file, size + 1)
    if len(data) != size:
        got = f"{len(data)} bytes: cut short" if len(data) < size else "more bytes than that"
        raise _damaged(path, expected, got)
    return _shaped(data, dtype, shape, "C", path).astype(dtype.newbyteorder("="))


def _is_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    """Whether a member is meant to be an array: by its name, or by how it begins, as in numpy."""
    if member.is_dir() or member.filename.endswith(".npy") or member.flag_bits & 1:
        return not member.is_dir()
    with archive.open(member) as file:
        return file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX


def _check_members(members: list[zipfile.ZipInfo], path: Path) -> None:
    """Reject what numpy never writes: repeated names, encryption, other codecs, false sizes."""
    names = [member.filename.removesuffix(".npy") for member in members]
    counts, stored = Counter(names), path.stat().st_size
    for name, member in zip(names, members, strict=True):
        supported = member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        if counts[name] > 1 or member.flag_bits & 1 or not supported:
            got = (
                "the member twice"
                if counts[name] > 1
                else "an encrypted one, or another compression"
            )
            raise _damaged(path, f"one member {member.filename}, stored or deflated", got)
        if member.file_size > (member.compress_size + 64) * _DEFLATE_LIMIT:
            raise _damaged(path, "sizes that fit the file", f"a false size of {member.filename}")
    if sum(member.compress_size for member in members) > stored:
        raise _damaged(path, f"members of at most {stored} bytes together", "larger members")


def _npy(file: IO[bytes], length: int, path: Path, member: str = "") -> np.ndarray:
    """The array in the `length` bytes of an .npy file or of an archive's member."""
    what = member.removeprefix(", member ") or path.name
    start = io.BytesIO(file.read(_HEADER_BYTES))
    try:
        version = np.lib.format.read_magic(start)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read(start)
    except Exception:  # numpy parses the header as Python, which can raise almost anything
        raise _damaged(path, "numpy arrays only", f"no array in {what}") from None
    if dtype.hasobject or dtype.kind == "V" or not dtype.itemsize:
        reason = "Python objects could run code and are never loaded"
        if not dtype.hasobject:
            reason = "numpy saves bfloat16, float8, int4 and structures like this"
        raise error(
            f"{path}{member}",
            expected="a numeric array",
            got=f"dtype {dtype}; {reason}",
            fix="convert it to a numeric dtype, such as x.astype(np.float32), and save it again "
            "with np.savez",
        )
    size, rest = math.prod(shape) * dtype.itemsize, length - start.tell()
    if size != rest or any(side < 0 for side in shape):
        raise _damaged(path, f"{size} bytes in {what} for shape {list(shape)}", f"{rest} bytes")
    data = start.read() + _read(file, size)
    if len(data) != size:
        raise _damaged(path, f"{size} bytes in {what}", f"{len(data)}: cut short")
    array = _shaped(data, dtype, shape, "F" if fortran else "C", path)
    return array.astype(dtype.newbyteorder("="), order="C")


def _read(file: IO[bytes] | gzip.GzipFile, size: int) -> bytearray:
    """At most `size` bytes; allocates for the bytes that arrive, not for those in a header."""
    data = bytearray()
    while len(data) < size and (part := file.read(min(size - len(data), 2**20))):
        data += part
    return data


def _shaped(
    data: bytes | bytearray, dtype: np.dtype, shape: tuple[int, ...], order: Any, path: Path
) -> np.ndarray:
    try:
        return np.frombuffer(data, dtype).reshape(shape, order=order)
    except (ValueError, OverflowError):
        raise _damaged(path, "a shape that numpy supports", f"{len(shape)} dimensions") from None


def _damaged(path: Path, expected: str, got: str) -> InputError:
    return error(
        str(path),
        expected=expected,
        got=got,
        fix="download or save the file again, or pass another",
    )


def unreadable(
    path: Path, reason: BaseException, expected: str = "a file that can be read"
) -> InputError:
    """The error for a file that cannot be opened or is not text."""
    missing = isinstance(reason, FileNotFoundError)
    return error(
        str(path),
        expected=expected,
        got="no such file" if missing else str(getattr(reason, "strerror", None) or reason),
        fix="check the path",
    )
