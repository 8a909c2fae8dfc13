"""Splits: every example once, and what each kind promises."""

import datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdl.core.errors import InputError
from jdl.data import split


def covers(parts, n):
    return np.array_equal(np.sort(np.concatenate(parts)), np.arange(n))


@settings(deadline=None, max_examples=60)
@given(st.integers(10, 400), st.integers(0, 2**32 - 1))
def test_random(n, seed):
    parts = split.random(n, (0.7, 0.1, 0.2), seed)
    assert covers(parts, n)
    assert abs(len(parts[2]) - 0.2 * n) <= 0.5


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 4), min_size=40, max_size=200), st.integers(0, 100))
def test_stratified_is_in_proportion(labels, seed):
    labels = np.array(labels)
    parts = split.stratified(labels, (0.6, 0.2, 0.2), seed)
    assert covers(parts, len(labels))
    in_proportion(labels, parts)
    names, counts = np.unique(labels, return_counts=True)
    assert set(names[counts > 1]) <= set(labels[parts[0]])


def in_proportion(labels, parts):
    """Every class, in every part and in what the part leaves, within one example."""
    names, whole = np.unique(labels, return_counts=True)
    for part in parts:
        found = (labels[part][:, None] == names).sum(0)
        assert (np.abs(found - whole * len(part) / len(labels)) < 1).all()


@pytest.mark.parametrize(
    ("counts", "shares"),
    [
        ([13, 8, 32, 11], [0.2] * 5),
        ([155] + [5] * 9, [0.2] * 5),
        ([900] + [5] * 100, [0.2] * 5),
        ([900] + [5] * 100, [0.8, 0.2]),
        ([50] + [1] * 20, [0.8, 0.2]),  # a single one each, more than fit into the first part
        (list(range(1, 40)), [0.5, 0.1, 0.25, 0.15]),
    ],
)
def test_rare_classes_do_not_put_large_ones_out_of_proportion(counts, shares):
    labels = np.repeat(np.arange(len(counts)), counts)
    for seed in range(3):
        parts = split.stratified(labels, shares, seed)
        assert covers(parts, len(labels))
        in_proportion(labels, parts)
        if min(counts) * shares[0] >= 1:
            split.check_classes(labels, parts[:1])


def test_as_many_classes_as_possible_are_in_the_first_part():
    """Of its 51 examples 36 to 38 are of the two large classes, in proportion 18.2 each."""
    labels = np.repeat(np.arange(22), [25, 25] + [1] * 20)
    train, test = split.stratified(labels, (51, 19))
    in_proportion(labels, (train, test))
    assert np.isin(np.arange(2, 22), labels[train]).sum() == 15


def test_stratified_takes_exact_counts():
    labels = np.repeat(np.arange(10), 600)
    train, valid = split.stratified(labels, (5_500, 500), seed=1)
    assert np.bincount(labels[valid]).tolist() == [50] * 10
    assert len(train) == 5_500


def test_a_class_of_one_is_trained_on():
    labels = np.array([0] * 20 + [1])
    for seed in range(20):
        assert 20 in split.stratified(labels, (0.5, 0.5), seed)[0]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 12), min_size=30, max_size=120), st.integers(0, 100))
def test_groups_stay_whole(groups, seed):
    groups = np.array(groups)
    if len(np.unique(groups)) < 3:
        return
    parts = split.grouped(groups, (0.7, 0.1, 0.2), seed)
    assert covers(parts, len(groups))
    homes = [set(groups[part]) for part in parts]
    assert all(homes)
    assert not (homes[0] & homes[1] or homes[0] & homes[2] or homes[1] & homes[2])


def test_no_part_stays_empty_where_groups_are_few():
    groups = np.arange(30) // 10
    assert [len(part) for part in split.grouped(groups, (0.7, 0.1, 0.2))] == [10, 10, 10]


def test_grouped_sizes_are_close_where_groups_are_small():
    groups = np.arange(1000) // 4
    sizes = [len(part) for part in split.grouped(groups, (0.7, 0.1, 0.2))]
    assert np.abs(np.array(sizes) - [700, 100, 200]).max() <= 4


def test_time_goes_forward_and_ties_stay_together():
    times = np.array([5, 1, 2, 2, 2, 3, 4, 9, 8, 7])
    parts = split.by_time(times, (0.3, 0.3, 0.4))
    assert covers(parts, 10)
    assert [sorted(times[part].tolist()) for part in parts] == [[1, 2, 2, 2], [3, 4], [5, 7, 8, 9]]


@pytest.mark.parametrize(
    ("times", "sizes"),
    [
        ([0] * 6 + [1, 2, 3, 4], [6, 2, 2]),
        ([1, 2, *[3] * 8], [1, 1, 8]),
        ([1, *[2] * 8, 3], [1, 8, 1]),
        ([1] * 8 + [2, 3], [8, 1, 1]),
    ],
)
def test_no_part_stays_empty_where_many_times_are_equal(times, sizes):
    times = np.random.default_rng(0).permutation(times)
    parts = split.by_time(times, (0.3, 0.3, 0.4))
    assert covers(parts, 10) and [len(part) for part in parts] == sizes
    assert times[parts[0]].max() < times[parts[1]].min()
    assert times[parts[1]].max() < times[parts[2]].min()


def mixed(*values):
    return np.array(values, object)


@pytest.mark.parametrize(
    "times",
    [
        np.array(["2024-10-01", "2024-02-28", "2024-03"]),
        np.array(["2023-12-31T23:00:00Z", "2023-12-31", "2024-01-01T00:30:00+02:00"]),
        mixed(datetime.date(2024, 3, 1), datetime.date(2024, 1, 9), datetime.date(2024, 1, 10)),
        mixed(9, 1, 2.5),
    ],
)
def test_times_are_texts_dates_or_numbers(times):
    assert [part.tolist() for part in split.by_time(times, [1 / 3] * 3)] == [[1], [2], [0]]


def test_the_seed_decides():
    labels = np.arange(200) % 4
    for make in (
        lambda seed: split.random(200, (0.5, 0.5), seed),
        lambda seed: split.stratified(labels, (0.5, 0.5), seed),
        lambda seed: split.grouped(np.arange(200) // 2, (0.5, 0.5), seed),
    ):
        assert np.array_equal(make(3)[0], make(3)[0])
        assert not np.array_equal(make(3)[0], make(4)[0])


def test_folds_validate_on_every_example_once():
    labels = np.array([0, 1, 2] * 20)
    parts = split.stratified(labels, [1 / 5] * 5)
    pairs = split.folds(parts)
    assert len(pairs) == 5 and covers([valid for _, valid in pairs], 60)
    for train, valid in pairs:
        assert covers((train, valid), 60)
        split.check_classes(labels, (train, valid))


def test_forward_folds_never_train_on_what_comes_later():
    times = np.random.default_rng(0).permutation(40)
    pairs = split.time_series_folds(split.by_time(times, [1 / 4] * 4))
    assert len(pairs) == 3
    for train, valid in pairs:
        assert times[train].max() < times[valid].min()


def test_a_class_that_is_absent_from_a_part():
    labels = np.array([0] * 10 + [1] * 10)
    with pytest.raises(InputError, match=r"part 1 of the split(.|\n)*none of class 0"):
        split.check_classes(labels, (np.arange(12), np.arange(12, 20)))
    import jdl

    # The training part is the past, which knows one class only.
    with pytest.raises(InputError, match=r"part 0 of the split(.|\n)*none of class 1"):
        jdl.data.from_arrays(np.ones((20, 1), np.float32), labels, times=np.arange(20), test=0.5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: split.random(10, (0.5, 0.4)), ["parts of 10 examples", "(0.5, 0.4)"]),
        (lambda: split.random(10, (5, 6)), ["counts that sum to 10"]),
        (lambda: split.random(3, (0.9, 0.1)), ["no empty part"]),
        (lambda: split.random(3, ()), ["no empty part"]),
        (lambda: split.stratified(np.arange(10), (0.5, 0.5)), ["at least 10 examples", "5 of 10"]),
        (lambda: split.stratified(np.zeros((3, 2)), (0.5, 0.5)), ["labels", "[3, 2]"]),
        (lambda: split.grouped(np.zeros(9), (0.5, 0.5)), ["at least 2 groups", "1 groups"]),
        (lambda: split.by_time(np.zeros(9), (0.5, 0.5)), ["2 distinct times", "got:      1"]),
        (lambda: split.folds([np.arange(3)]), ["two or more parts"]),
        (lambda: split.by_time(np.array([1, np.nan]), (0.5, 0.5)), ["1 missing", "index 1"]),
        (lambda: split.by_time(mixed(3.0, np.nan), (0.5, 0.5)), ["times", "1 missing", "index 1"]),
        (lambda: split.by_time(mixed(None, 2), (0.5, 0.5)), ["1 missing", "index 0"]),
        (lambda: split.by_time(np.array(["9:00", "10:00"]), (0.5, 0.5)), ["2024-01-31", "9:00"]),
        (lambda: split.by_time(np.array(["2024-01", "2"]), (0.5, 0.5)), ["got:      2"]),
        (lambda: split.by_time(np.array(["2024-01", "2024-13"]), (0.5, 0.5)), ["2024-13"]),
        (lambda: split.grouped(mixed("ann", None), (0.5, 0.5)), ["groups", "1 missing"]),
        (lambda: split.grouped(mixed("ann", 3), (0.5, 0.5)), ["groups", "int, str"]),
        (lambda: split.stratified(mixed("cat", None), (0.5, 0.5)), ["labels", "1 missing"]),
    ],
)
def test_errors(make, words):
    with pytest.raises(InputError) as caught:
        make()
    for word in words:
        assert word in str(caught.value)
