"""Readers, preprocessing, data sets and feeds. Each name is imported on first use."""

from typing import TYPE_CHECKING

from jdl.core.lazy import lazy_names

if TYPE_CHECKING:
    from jdl.data.arrays import as_arrays as as_arrays
    from jdl.data.arrays import check_arrays as check_arrays
    from jdl.data.datasets import listops as listops
    from jdl.data.datasets import movielens as movielens
    from jdl.data.datasets import synthetic as synthetic
    from jdl.data.datasets import synthetic_sequences as synthetic_sequences
    from jdl.data.datasets.load import dataset_names as dataset_names
    from jdl.data.datasets.load import from_arrays as from_arrays
    from jdl.data.datasets.load import load as load
    from jdl.data.datasets.load import mnist_or_digits as mnist_or_digits
    from jdl.data.feed import Feed as Feed
    from jdl.data.feed import evaluation_batches as evaluation_batches
    from jdl.data.order import Order as Order
    from jdl.data.prepare import augmentations as augmentations
    from jdl.data.prepare import balance as balance
    from jdl.data.prepare import baselines as baselines
    from jdl.data.prepare import clean as clean
    from jdl.data.prepare import encode as encode
    from jdl.data.prepare import leakage as leakage
    from jdl.data.prepare import scale as scale
    from jdl.data.prepare import split as split
    from jdl.data.prepare import tokenizers as tokenizers
    from jdl.data.prepare import tree_batches as tree_batches
    from jdl.data.prepare import trees as trees
    from jdl.data.readers import csv as csv
    from jdl.data.readers import text as text
    from jdl.data.readers.binary import read_idx as read_idx
    from jdl.data.readers.binary import read_npy as read_npy
    from jdl.data.readers.binary import read_npz as read_npz
    from jdl.data.readers.csv import read_csv as read_csv
    from jdl.data.readers.images import read_cifar as read_cifar
    from jdl.data.readers.images import read_images as read_images
    from jdl.data.readers.time_series import pad_sequences as pad_sequences
    from jdl.data.readers.time_series import read_ts as read_ts
    from jdl.data.records import Data as Data
    from jdl.data.records import Report as Report

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
