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


WORDS = np.array([["abc"], ["de"]]), np.array([["de"], ["f"]])
NUMBERS = X[:5].astype(np.float64) + 1e-10, X[[9, 3]]
COUNTS = np.array([[3], [300]], np.int16), np.array([[300.0], [7.5]])


@pytest.mark.parametrize(
    ("train", "test", "rows"),
    [
        (*WORDS, (0,)),
        (WORDS[0], WORDS[1].astype("S"), (0,)),
        (*NUMBERS, (1,)),
        (NUMBERS[1], NUMBERS[0], (3,)),
        (*COUNTS, (0,)),
        (np.array([["3"]]), np.array([[3]]), ()),
        (np.array([["2020-01-02"]], "M8[D]"), np.array([["2020-01-02T00"]], "M8[h]"), (0,)),
    ],
)
def test_copies_of_another_type_are_found(train, test, rows):
    report = leakage.duplicates({"train": {"x": train}, "test": {"x": test}})
    assert report.rows["test examples that are in train"] == rows


def test_python_objects_are_refused():
    """Their bytes are addresses."""
    rows = np.array([["a"], [None]], object)
    with pytest.raises(InputError, match="Python objects"):
        leakage.duplicates({"train": {"x": rows}, "test": {"x": rows}})


@pytest.mark.parametrize("unit, offset", [(1e-6, 0), (1e-46, 0), (1.0, 1.7e9), (1e5, -3e6)])
@pytest.mark.parametrize("scaler", [standardise, minmax])
def test_units_and_offsets_hide_no_leak(scaler, unit, offset):
    draw = np.random.default_rng(1)
    train, test = draw.normal(size=(50, 2)), draw.normal(5, 1, (50, 2))
    parts = {"train": offset + unit * train, "test": offset + unit * test}
    honest = leakage.scaler(scaler, scaler.fit(parts["train"][::-1]), parts)
    assert honest.counts == {"fitted on the training part": 1, "fitted on all parts": 0}
    leaking = leakage.scaler(scaler, scaler.fit(np.concatenate([*parts.values()])), parts)
    assert leaking.counts == {"fitted on the training part": 0, "fitted on all parts": 1}


def test_statistics_may_be_rounded_to_float32():
    parts = {"train": 3 + X[:20].astype(np.float64), "test": X[20:]}
    statistics = {k: v.astype(np.float32) for k, v in standardise.fit(parts["train"]).items()}
    assert leakage.scaler(standardise, statistics, parts).counts["fitted on the training part"]


def test_one_part_is_not_enough():
    with pytest.raises(InputError, match="two or more splits"):
        leakage.duplicates({"train": {"x": X}})
