"""Readers: what is right is read, what is wrong is named, nothing is executed."""

import gzip
import pickle
import struct
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from jdl.core.errors import InputError
from jdl.data.readers.binary import read_idx, read_labelled, read_npz


def idx_bytes(array: np.ndarray, kind: int = 8) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
GOOD = idx_bytes(IMAGES)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_plain_and_gzip(tmp_path, pack):
    # The name says nothing: a plain file may end in anything, a gzip file in nothing.
    path = tmp_path / "images"
    path.write_bytes(pack(GOOD))
    assert np.array_equal(read_idx(path), IMAGES)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [(8, "u1"), (9, "i1"), (11, "i2"), (12, "i4"), (13, "f4"), (14, "f8")],
)
def test_idx_types(tmp_path, kind, dtype):
    array = np.array([[1, -2], [300, 7]]).astype(dtype)
    path = tmp_path / "array"
    path.write_bytes(idx_bytes(array, kind))
    result = read_idx(path)
    assert np.array_equal(result, array)
    assert result.dtype == np.dtype(dtype)


BAD_IDX = {
    "text": (b"hello world", ["an IDX file", "magic number 68656c6c"]),
    "empty": (b"", ["magic number missing"]),
    "unknown type": (b"\0\0\x07\x01" + bytes(9), ["magic number 00000701"]),
    "header cut": (GOOD[:9], ["a header of 16 bytes", "9 bytes"]),
    "data cut": (GOOD[:-1], ["24 bytes of data for shape [2, 3, 4]", "23 bytes: cut short"]),
    "more data": (GOOD + b"x", ["24 bytes of data", "more bytes than that"]),
    "huge header": (
        b"\0\0\x08\x03" + struct.pack(">III", 2**31, 2**31, 2**31),
        ["at most 16 bytes"],
    ),
    "labels": (idx_bytes(np.zeros(5, np.uint8)), ["images: 3 dimensions", "1 dimensions"]),
}


@pytest.mark.parametrize("case", BAD_IDX)
def test_bad_idx(tmp_path, case):
    data, words = BAD_IDX[case]
    path = tmp_path / "images.idx"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_idx(path, rank=3)
    for word in [str(path), *words]:
        assert word in str(caught.value)


BAD_GZIP = {
    "cut": gzip.compress(GOOD)[:-12],
    "checksum": gzip.compress(GOOD)[:-8] + bytes(8),
    "garbage": b"\x1f\x8b\x08\0" + b"\xff" * 40,
    "plain": GOOD,
}


@pytest.mark.parametrize("case", BAD_GZIP)
def test_bad_gzip(tmp_path, case):
    path = tmp_path / "images.gz"
    path.write_bytes(BAD_GZIP[case])
    with pytest.raises(InputError, match="gzip file") as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


def test_a_gzip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "bomb.gz"
    header = b"\0\0\x08\x03" + struct.pack(">III", 60_000, 10_000, 10_000)
    path.write_bytes(gzip.compress(header + bytes(10_000)))
    with pytest.raises(InputError, match="6000000000000 bytes of data"):
        read_idx(path)


def test_missing_and_unreadable(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_idx(tmp_path / "nothing")
    with pytest.raises(InputError, match="directory"):
        read_idx(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        read_npz(tmp_path / "nothing.npz")


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.zeros(3, np.uint8), ["2 labels, one for each image", "3 labels"]),
        (np.array([1, 10], np.uint8), ["labels from 0 to 9", "the first 10 at index [1]"]),
    ],
)
def test_labels_must_fit_the_images(tmp_path, labels, words):
    (tmp_path / "images").write_bytes(GOOD)
    (tmp_path / "labels").write_bytes(idx_bytes(labels))
    with pytest.raises(InputError) as caught:
        read_labelled(tmp_path / "images", tmp_path / "labels", classes=10)
    for word in [str(tmp_path / "labels"), *words]:
        assert word in str(caught.value)


def test_images_must_be_bytes_and_some(tmp_path):
    (tmp_path / "labels").write_bytes(idx_bytes(np.zeros(0, np.uint8)))
    (tmp_path / "floats").write_bytes(idx_bytes(IMAGES.astype("f4"), 13))
    (tmp_path / "none").write_bytes(idx_bytes(IMAGES[:0]))
    with pytest.raises(InputError, match="unsigned bytes"):
        read_labelled(tmp_path / "floats", tmp_path / "labels", classes=10)
    with pytest.raises(InputError, match="at least one example"):
        read_labelled(tmp_path / "none", tmp_path / "labels", classes=10)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, save):
    arrays = {
        "x": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "y": np.array([1, 2], ">i4"),
        "z": np.zeros((0, 3), np.uint8),
        "s": np.float32(3),
    }
    save(tmp_path / "a.npz", **arrays)
    result = read_npz(tmp_path / "a.npz")
    assert result.keys() == arrays.keys()
    for key, array in arrays.items():
        assert np.array_equal(result[key], array)
        assert result[key].shape == array.shape
    assert result["y"].dtype == np.int32
    assert result["x"].flags.writeable


class Executed:
    """Raises when it is unpickled: the proof that nothing was."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


def test_objects_are_never_loaded(tmp_path):
    path = tmp_path / "evil.npz"
    np.savez(path, x=np.array([Executed()], object))
    with pytest.raises(SystemExit):
        np.load(path, allow_pickle=True)["x"]
    with pytest.raises(InputError, match=r"member x\.npy") as caught:
        read_npz(path)
    assert "never loaded" in str(caught.value)


def npy(header: dict) -> bytes:
    text = repr(header).encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def test_bad_npz(tmp_path):
    path = tmp_path / "a.npz"
    f4 = {"descr": "<f4", "fortran_order": False}
    cases = {
        b"PK no zip": "a damaged one",
        b"": "a damaged one",
    }
    for data, word in cases.items():
        path.write_bytes(data)
        with pytest.raises(InputError, match=word):
            read_npz(path)
    members = {
        pickle.dumps(Executed()): "no array in x.npy",
        b"": "no array in x.npy",
        npy({**f4, "shape": (2**40,)}): r"4398046511104 bytes in x.npy for shape \[1099511627776\]",
        npy({**f4, "shape": (2,)}) + bytes(7): "8 bytes in x.npy",
        npy({**f4, "shape": (-1, -2)}) + bytes(8): "x.npy",
        b"\x93NUMPY\x01\x00\x08\x00__import": "no array in x.npy",
    }
    for data, word in members.items():
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", data)
        with pytest.raises(InputError, match=word) as caught:
            read_npz(path)
        assert str(path) in str(caught.value)


def test_members_that_are_no_arrays_are_skipped(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, **{"d/x": np.arange(3)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.mkdir("d")
        archive.writestr("README", "what this is")
        archive.writestr("y", archive.read("d/x.npy"))  # numpy takes it for an array, too
    found = read_npz(path)
    assert {name: array.tolist() for name, array in found.items()} == {
        "d/x": [0, 1, 2],
        "y": [0, 1, 2],
    }


def test_types_that_numpy_cannot_name_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    for array in (jnp.ones(3, jnp.bfloat16), np.zeros(2, [("a", "f4")]), np.zeros(2, "V5")):
        np.savez(path, x=np.asarray(array))
        with pytest.raises(InputError, match=r"(?s)member x.npy.*numeric.*dtype.*astype"):
            read_npz(path)


def test_a_flipped_byte_in_npz_is_noticed(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.arange(1000))
    data = bytearray(path.read_bytes())
    data[2000] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="a damaged one"):
        read_npz(path)
