"""Files and arrays to batches. Names are loaded when they are first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jdl.data import augment as augment
    from jdl.data import balance as balance
    from jdl.data import baselines as baselines
    from jdl.data import clean as clean
    from jdl.data import encode as encode
    from jdl.data import forest as forest
    from jdl.data import generate as generate
    from jdl.data import leakage as leakage
    from jdl.data import listops as listops
    from jdl.data import ratings as ratings
    from jdl.data import scale as scale
    from jdl.data import sequences as sequences
    from jdl.data import split as split
    from jdl.data import tables as tables
    from jdl.data import text as text
    from jdl.data import tokenizers as tokenizers
    from jdl.data import trees as trees
    from jdl.data.arrays import as_arrays as as_arrays
    from jdl.data.arrays import check_arrays as check_arrays
    from jdl.data.feed import Feed as Feed
    from jdl.data.feed import evaluation_batches as evaluation_batches
    from jdl.data.files import read_idx as read_idx
    from jdl.data.files import read_npy as read_npy
    from jdl.data.files import read_npz as read_npz
    from jdl.data.images import read_cifar as read_cifar
    from jdl.data.images import read_images as read_images
    from jdl.data.order import Order as Order
    from jdl.data.records import Data as Data
    from jdl.data.records import Report as Report
    from jdl.data.series import pad as pad
    from jdl.data.series import read_ts as read_ts
    from jdl.data.sources import from_arrays as from_arrays
    from jdl.data.sources import known as known
    from jdl.data.sources import load as load
    from jdl.data.sources import mnist_or_digits as mnist_or_digits
    from jdl.data.tables import read_csv as read_csv

_MODULES = (
    "augment",
    "balance",
    "baselines",
    "clean",
    "encode",
    "forest",
    "generate",
    "leakage",
    "listops",
    "ratings",
    "scale",
    "sequences",
    "split",
    "tables",
    "text",
    "tokenizers",
    "trees",
)
_HOME = {
    "Data": "records",
    "Feed": "feed",
    "Order": "order",
    "Report": "records",
    "as_arrays": "arrays",
    "check_arrays": "arrays",
    "evaluation_batches": "feed",
    "from_arrays": "sources",
    "known": "sources",
    "load": "sources",
    "mnist_or_digits": "sources",
    "pad": "series",
    "read_cifar": "images",
    "read_csv": "tables",
    "read_idx": "files",
    "read_images": "images",
    "read_npy": "files",
    "read_npz": "files",
    "read_ts": "series",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"jdl.data.{name}")
    if name in _HOME:
        return getattr(import_module(f"jdl.data.{_HOME[name]}"), name)
    raise AttributeError(f"module 'jdl.data' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*_MODULES, *_HOME])
