"""Class weights and resampling."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdl.core.errors import InputError
from jdl.data import balance, synthetic

COUNTS = st.lists(st.integers(1, 30), min_size=2, max_size=5)


@settings(deadline=None, max_examples=10)
@given(COUNTS)
def test_classes_weigh_alike_and_examples_one_on_average(counts):
    y = np.repeat(np.arange(len(counts)), counts)
    weights = balance.class_weights(y)
    np.testing.assert_allclose(weights[y].mean(), 1, rtol=1e-5)
    np.testing.assert_allclose(weights * counts, len(y) / len(counts), rtol=1e-5)


@settings(deadline=None, max_examples=10)
@given(COUNTS, st.integers(0, 100))
def test_oversampling_keeps_every_example_and_repeats_evenly(counts, seed):
    data = synthetic.blobs(counts, seed=seed) | {"row": np.arange(sum(counts), dtype=np.int32)}
    made, report = balance.oversample(data, seed)
    assert np.bincount(made["y"]).tolist() == [max(counts)] * len(counts)
    assert made["row"][: sum(counts)].tolist() == list(range(sum(counts)))
    assert np.array_equal(made["x"], data["x"][made["row"]])
    times = np.bincount(made["row"])
    for k in range(len(counts)):
        assert np.ptp(times[data["y"] == k]) <= 1
    assert report.title == f"{sum(counts)} examples oversampled to {len(made['y'])}"
    assert [report.counts[f"class {k}"] for k in range(len(counts))] == [max(counts)] * len(counts)


@settings(deadline=None, max_examples=10)
@given(COUNTS, st.integers(0, 100))
def test_undersampling_leaves_out(counts, seed):
    data = synthetic.blobs(counts, seed=seed) | {"row": np.arange(sum(counts), dtype=np.int32)}
    made, report = balance.undersample(data, seed)
    assert np.bincount(made["y"]).tolist() == [min(counts)] * len(counts)
    assert len(set(made["row"])) == len(made["row"])
    for k, count in enumerate(counts):
        assert report.counts.get(f"class {k}, before", min(counts)) == count


def test_the_seed_decides():
    data = synthetic.blobs((40, 15)) | {"row": np.arange(55, dtype=np.int32)}
    for resample in (balance.oversample, balance.undersample):
        one, again, other = (resample(data, seed)[0]["row"].tolist() for seed in (1, 1, 2))
        assert one == again != other


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: balance.class_weights([0, 2]), "none of class 1"),
        (lambda: balance.class_weights([0, 1], classes=3), "none of class 2"),
        (lambda: balance.class_weights([0, 3], classes=2), "from 0 to 1"),
        (lambda: balance.class_weights([0.5, 1.0]), "integers from 0"),
        (lambda: balance.class_weights([-1, 0]), "integers from 0"),
        (lambda: balance.oversample({"x": np.ones((2, 1), np.float32)}), 'data\\["y"\\]'),
        (lambda: balance.undersample({"y": np.ones((2, 1), np.int32)}), r"shape \[2, 1\]"),
        (lambda: balance.make_rare(synthetic.blobs((3, 2)), [0], -1), r"kept\n.*at least 0"),
        (lambda: balance.first_per_class(synthetic.blobs((3, 2)), -1), r"each\n.*at least 1"),
        (lambda: balance.first_per_class(synthetic.blobs((3, 2)), 1.5), r"each\n.*an integer"),
    ],
)
def test_errors(make, words):
    with pytest.raises(InputError, match=words):
        make()


@settings(deadline=None, max_examples=10)
@given(COUNTS, st.integers(1, 5), st.integers(0, 100))
def test_thinned_classes_keep_so_many(counts, kept, seed):
    data = synthetic.blobs(counts, seed=seed) | {"row": np.arange(sum(counts), dtype=np.int32)}
    few, report = balance.make_rare(data, [0], kept, seed)
    expected = [min(counts[0], kept), *counts[1:]]
    assert np.bincount(few["y"], minlength=len(counts)).tolist() == expected
    assert len(set(few["row"])) == len(few["row"]) == sum(expected)
    assert np.array_equal(few["x"], data["x"][few["row"]])
    assert report.counts == {"class 0": expected[0]}


def test_copies_are_marked():
    data = synthetic.blobs((6, 2), seed=0)
    made, _ = balance.oversample(data, mark="original")
    assert made["original"].tolist() == [1.0] * 8 + [0.0] * 4
    assert np.array_equal(made["x"][:8], data["x"])


def test_the_first_of_each_class():
    data = synthetic.blobs((5, 3, 1), seed=0)
    few = balance.first_per_class(data, 2)
    assert few["y"].tolist() == [0, 0, 1, 1, 2]
    first = [data["x"][data["y"] == k][:2] for k in range(3)]
    assert np.array_equal(few["x"], np.concatenate(first))
