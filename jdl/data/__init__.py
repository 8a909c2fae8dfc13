"""Files and arrays to batches. Names are loaded when they are first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jdl.data import augment as augment
    from jdl.data import scale as scale
    from jdl.data import split as split
    from jdl.data.arrays import as_arrays as as_arrays
    from jdl.data.arrays import check_arrays as check_arrays
    from jdl.data.feed import Feed as Feed
    from jdl.data.feed import evaluation_batches as evaluation_batches
    from jdl.data.files import read_idx as read_idx
    from jdl.data.files import read_npz as read_npz
    from jdl.data.images import read_cifar as read_cifar
    from jdl.data.images import read_images as read_images
    from jdl.data.order import Order as Order
    from jdl.data.records import Data as Data
    from jdl.data.sources import from_arrays as from_arrays
    from jdl.data.sources import known as known
    from jdl.data.sources import load as load

_MODULES = ("augment", "scale", "split")
_HOME = {
    "Data": "records",
    "Feed": "feed",
    "Order": "order",
    "as_arrays": "arrays",
    "check_arrays": "arrays",
    "evaluation_batches": "feed",
    "from_arrays": "sources",
    "known": "sources",
    "load": "sources",
    "read_cifar": "images",
    "read_idx": "files",
    "read_images": "images",
    "read_npz": "files",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"jdl.data.{name}")
    if name in _HOME:
        return getattr(import_module(f"jdl.data.{_HOME[name]}"), name)
    raise AttributeError(f"module 'jdl.data' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*_MODULES, *_HOME])
