"""The identity of a data set: a hash of its bytes, or of samples where it is large or a stream."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jdl.data.feed import Feed
from jdl.run.named_sets import join, sets_of

HASHED_WHOLE_BYTES = 2**25
"""Arrays up to this size are hashed whole: 0.06 s at the 550 MB/s of SHA-256 on a CPU core."""

SUMMED_BYTES = 2**30
"""Of arrays up to this size every byte enters a sum, at 3.6 GB/s; larger ones are sampled."""

SUM_BLOCK_BYTES = 4096
"""Bytes that one sum covers."""

SAMPLED_BLOCKS = 64
"""Blocks of a large array that are hashed: the first, the last, and others at even distances."""

SAMPLE_BLOCK_BYTES = 2**17

SAMPLED_EXAMPLES = 8
"""Examples of a source that are read and hashed."""

HASHED_STEPS = 2
"""Steps whose batches' indices enter the hash of a feed's order."""


def describe_data(feed: Feed, valid: Mapping[str, Any] | None) -> dict[str, Any]:
    """The identity of what a run trains and is evaluated on, as JSON can hold it.

    >>> feed = Feed({"x": np.zeros((4, 2), np.float32)}, batch_size=2)
    >>> found = describe_data(feed, None)
    >>> found["train x"]["shape"], found["train x"]["hash of"]
    ([4, 2], 'all bytes')
    """
    if isinstance(feed.data, dict):
        found = {f"train {name}": describe_array(value) for name, value in feed.data.items()}
    else:
        found = {"train": describe_source(feed.data)}
    found["order"] = {"hash": _order_hash(feed), "hash of": f"the first {HASHED_STEPS} batches"}
    for name, arrays in sets_of(valid).items():
        found |= {f"valid {join(name, entry)}": describe_array(x) for entry, x in arrays.items()}
    return found


def describe_array(array: Any) -> dict[str, Any]:
    """Type, shape and hash of an array; what the hash covers is part of it.

    >>> one, other = describe_array(np.arange(3)), describe_array(np.array([0, 2, 1]))
    >>> one["hash"] == other["hash"]
    False
    """
    array = np.asarray(array)
    if array.nbytes <= HASHED_WHOLE_BYTES or not array.ndim:
        covers, parts = "all bytes", [_bytes(array)]
    elif array.nbytes <= SUMMED_BYTES and array.flags.c_contiguous:
        covers, parts = "sums over all bytes, and sampled rows", [_sums(array), *_samples(array)]
    else:
        covers, parts = "sampled rows", _samples(array)
    return {
        "dtype": str(array.dtype),
        "shape": list(array.shape),
        "hash": _hash(parts),
        "hash of": covers,
    }


def describe_source(source: Any) -> dict[str, Any]:
    """Length and a hash of a few examples; the reason where reading one again gives another."""
    size = len(source)
    rows = np.unique(np.linspace(0, size - 1, SAMPLED_EXAMPLES).astype(int)).tolist()
    found: dict[str, Any] = {"examples": size, "hash": None}
    try:
        hashes = [_example_hash(source[row]) for row in rows]
        is_same = _example_hash(source[rows[-1]]) == hashes[-1]
    except Exception as failure:  # training meets it too, if it reads these examples
        return found | {"hash of": f"nothing: an example cannot be read ({type(failure).__name__})"}
    if not is_same:
        return found | {"hash of": "nothing: an example differs each time it is read"}
    covers = f"{len(rows)} sampled examples"
    return found | {"hash": _hash([text.encode() for text in hashes]), "hash of": covers}


def _example_hash(example: Mapping[str, Any]) -> str:
    parts = []
    for name in sorted(example):
        value = np.asarray(example[name])
        parts += [f"{name} {value.dtype} {value.shape}".encode(), _bytes(value)]
    return _hash(parts)


def _order_hash(feed: Feed) -> str:
    index, mask = feed.rows(np.arange(HASHED_STEPS))
    return _hash([_bytes(index), b"" if mask is None else _bytes(mask)])


def _bytes(array: np.ndarray) -> Any:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _sums(array: np.ndarray) -> Any:
    """The sum of each block of bytes as unsigned integers, which any single change changes."""
    flat = array.reshape(-1).view(np.uint8)
    whole = flat.size // SUM_BLOCK_BYTES * SUM_BLOCK_BYTES
    blocks = flat[:whole].view(np.uint64).reshape(-1, SUM_BLOCK_BYTES // 8)
    return _bytes(np.append(blocks.sum(1), np.sum(flat[whole:], dtype=np.uint64)))


def _samples(array: np.ndarray) -> list[Any]:
    """Rows at even distances, the first and the last among them."""
    row_bytes = max(1, array.nbytes // len(array))
    rows = max(1, SAMPLE_BLOCK_BYTES // row_bytes)
    starts = np.linspace(0, max(0, len(array) - rows), SAMPLED_BLOCKS).astype(int)
    return [_bytes(array[start : start + rows]) for start in np.unique(starts)]


def _hash(parts: list[Any]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
