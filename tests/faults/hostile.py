"""Files that somebody wrote to do harm: what makes each of them, by name."""

import gzip
import io
import json
import pickle
import struct
import tarfile
import warnings
import zipfile
import zlib
from pathlib import Path


class Touch:
    """Unpickled, it makes a file: the proof that a program ran."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def npy(
    descr: object = "<f4", shape: object = (2,), data: bytes = bytes(8), head: str = ""
) -> bytes:
    """An .npy file with any header."""
    text = head or repr({"descr": descr, "fortran_order": False, "shape": shape})
    line = text.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(line)) + line + data


def archive(**members: bytes) -> bytes:
    """A zip file whose members have these names (a dot is written __)."""
    return packed([(name.replace("__", "."), data) for name, data in members.items()])


def packed(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as out, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that stands there twice
        for name, data in members:
            out.writestr(name, data)
    return file.getvalue()


def false_sizes(claimed: int) -> bytes:
    """An archive whose directory promises more than the file has."""
    data = bytearray(archive(x__npy=npy()))
    at = data.rindex(b"PK\x01\x02")
    data[at + 20 : at + 28] = struct.pack("<II", claimed, claimed)
    return bytes(data)


def overlapping() -> bytes:
    """Members that all lie on the same bytes: small on the disk, large when read."""
    whole = archive(x__npy=npy(shape=(2**20,), data=bytes(2**22)))
    start, end = whole.rindex(b"PK\x01\x02"), whole.rindex(b"PK\x05\x06")
    names = [bytes([letter]) for letter in range(97, 123)]
    body = b"".join(whole[start:end].replace(b"x.npy", name + b".npy") for name in names)
    tail = bytearray(whole[end:])
    struct.pack_into("<HHI", tail, 8, len(names), len(names), len(body))
    return whole[:start] + body + bytes(tail)


def encrypted() -> bytes:
    data = bytearray(archive(x__npy=npy()))
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + place] |= 1
    return bytes(data)


def idx(sizes: tuple[int, ...], data: bytes = b"") -> bytes:
    return bytes([0, 0, 8, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes) + data


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A grey picture that says how large it is, and has no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def postscript(mark: Path) -> bytes:
    """A program in PostScript that writes a file, under the name of a picture."""
    program = f"({mark}) (w) file closefile showpage\n"
    return f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n{program}".encode()


def tar(outside: Path) -> bytes:
    """An archive with paths that lead out of it, links and a device."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as out:
        for name, kind, link in (
            ("../../escaped", tarfile.REGTYPE, ""),
            (str(outside / "escaped"), tarfile.REGTYPE, ""),
            ("link", tarfile.SYMTYPE, str(outside)),
            ("link/escaped", tarfile.REGTYPE, ""),
            ("hard", tarfile.LNKTYPE, "../../escaped"),
            ("device", tarfile.CHRTYPE, ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            out.addfile(member, io.BytesIO())
    return file.getvalue()


def safetensors(header: object, length: int | None = None, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def msgpack() -> bytes:
    """An array of 4,294,967,295 arrays of as many each, as Flax once stored weights."""
    return b"\xdd\xff\xff\xff\xff" * 100


def torch(mark: Path) -> bytes:
    """Weights as torch.save writes them: a zip file with a pickle."""
    return archive(**{"archive/data__pkl": pickle.dumps(Touch(mark))})


def objects(mark: Path) -> bytes:
    """An .npy file whose objects are a program."""
    return npy("|O", (1,), pickle.dumps(Touch(mark)))


def gzip_bomb(sizes: tuple[int, ...], zeros: int) -> bytes:
    """Few bytes that unpack to many."""
    return gzip.compress(idx(sizes, bytes(zeros)), mtime=0)


def nested(depth: int = 100_000) -> bytes:
    return b"[" * depth + b"]" * depth


def doubling(merges: int = 200) -> bytes:
    """Byte pairs of which each is the one before it, twice."""
    pairs = [[0, 0], *([255 + i, 255 + i] for i in range(1, merges))]
    return json.dumps({"kind": "byte_pairs", "merges": pairs}).encode()
