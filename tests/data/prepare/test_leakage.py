"""The three leaks, planted and found; and no false alarm."""

import numpy as np
import pytest

import jdl
from jdl.core.errors import InputError
from jdl.data import leakage, split
from jdl.data.prepare.scale import divide, minmax, standardise

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(30, 4)).astype(np.float32)


def test_copies_across_parts_are_numbered():
    parts = {"train": {"x": X[:20]}, "valid": {"x": X[20:24]}, "test": {"x": X[[24, 3, 25, 21]]}}
    report = leakage.duplicates(parts)
    assert report.rows == {
        "valid examples that are in train": (),
        "test examples that are in train": (1,),
        "test examples that are in valid": (3,),
    }
    with pytest.raises(InputError, match="test examples that are in train: 1 \\(rows 1\\)"):
        leakage.refuse(report)


def test_the_embedded_digits_do_not_leak():
    data = jdl.data.load("digits")
    report = leakage.duplicates({"train": data.train, "valid": data.valid, "test": data.test()})
    leakage.refuse(report)


def test_groups_that_a_random_split_tears_apart():
    groups = np.arange(40) // 4
    torn, whole = split.random(40, (0.5, 0.5)), split.grouped(groups, (0.5, 0.5))
    found = [
        leakage.groups({"train": groups[train], "test": groups[test]})
        for train, test in (torn, whole)
    ]
    assert found[0].rows["test examples of groups that are in train"]
    leakage.refuse(found[1])
    with pytest.raises(InputError, match="split by groups"):
        leakage.refuse(found[0])


@pytest.mark.parametrize("scaler", [standardise, minmax])
def test_a_scaler_fitted_on_all_data_is_found(scaler):
    parts = {"train": X[:20], "test": 3 * X[20:] + 1}
    honest = leakage.scaler(scaler, scaler.fit(parts["train"]), parts)
    assert honest.counts == {"fitted on the training part": 1, "fitted on all parts": 0}
    leakage.refuse(honest)
    leaking = leakage.scaler(scaler, scaler.fit(np.concatenate([*parts.values()])), parts)
    assert leaking.counts == {"fitted on the training part": 0, "fitted on all parts": 1}
    with pytest.raises(InputError, match="fit scalers on the training split"):
        leakage.refuse(leaking)
    foreign = leakage.scaler(scaler, divide(2).fit(X), parts)
    assert set(foreign.counts.values()) == {0}


def test_one_part_is_not_enough():
    with pytest.raises(InputError, match="two or more splits"):
        leakage.duplicates({"train": {"x": X}})
