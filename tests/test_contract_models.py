"""Every row of every family of models has every property of the contract."""

import jax
import numpy as np
import pytest

from tests.support import contract_rows
from tests.support.contract_properties import (
    PARITY,
    PROPERTIES,
    Case,
    check,
    masks_differ_between_devices,
)
from tests.support.families import ROWS

# What a model can break by itself; the rest are properties of the learner around it, which the
# rows of the core's table have in the fast suite.
OWN = {name: PROPERTIES[name] for name in ("one program", "gradients")}


# They compile for long, and a relative of each is in the fast suite.
LONG = {
    "AlexNet",
    "DCGAN",
    "DenseNet",
    "Encoder",
    "GRU, both ways, regression",
    "GoogLeNet",
    "LSTM over tokens",
    "N-ary Tree-LSTM",
    "ResNet",
    "VGG",
    "ViT",
    "WGAN-GP",
    "WaveNet",
    "binary_classification",
    "class-weighted focal loss",
    "contrastive",
    "convolutional autoencoder",
    "denoising",
    "dense pair",
    "label_smoothing",
    "masked_reconstruction",
    "minimal gated unit, labelling",
    "mixup",
    "normalised generator, spectral discriminator",
    "rotation",
    "simple RNN with dropout, mean",
    "uncertain_regression",
    "variational autoencoder",
}


def marked(row):
    return pytest.param(row, id=row.name, marks=[pytest.mark.slow] * (row.name in LONG))


@pytest.mark.parametrize("row", [marked(row) for row in ROWS])
def test_contract_in_brief(row, tmp_path):
    check(Case(row, tmp_path), OWN)


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_contract(row, tmp_path):
    case = Case(row, tmp_path)
    check(case, PROPERTIES)
    if row.without is contract_rows.MASKS:
        masks_differ_between_devices(case)


@pytest.mark.slow
@pytest.mark.parametrize("row", [row for row in ROWS if row.double], ids=lambda row: row.name)
def test_parity_in_float64(row, tmp_path, x64):
    case = Case(row, tmp_path, double=True)
    assert {leaf.dtype for leaf in jax.tree.leaves(case.trained.params)} == {np.dtype("float64")}
    check(case, PARITY)


def test_each_name_stands_once():
    rows = [*contract_rows.ROWS, *ROWS]
    names = [row.name for row in rows]
    assert len(names) == len(set(names)) and set(names) >= LONG
    assert {name for row in rows for name in row.without} <= PROPERTIES.keys()
