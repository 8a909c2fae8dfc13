"""Encoders: names to numbers and back, and values that were not there before."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdl.core.errors import InputError
from jdl.data import encode

NAMES = st.lists(st.sampled_from(["ant", "bee", "cat", "dog"]), min_size=1, max_size=30)


@settings(deadline=None, max_examples=10)
@given(NAMES)
def test_labels_round_trip(values):
    names = encode.labels.fit(values)
    numbers = encode.labels.apply(names, values)
    assert numbers.dtype == np.int32 and numbers.shape == (len(values),)
    assert set(numbers) == set(range(len(set(values))))
    assert encode.decode(names, numbers).tolist() == values


@settings(deadline=None, max_examples=10)
@given(NAMES)
def test_one_hot_has_one_in_each_row_and_a_column_for_each_name(values):
    table = np.stack([values, values[::-1]], -1)
    names = encode.one_hot.fit(table)
    hot = encode.one_hot.apply(names, table)
    assert hot.dtype == np.float32 and hot.shape == (len(values), 2 * len(set(values)))
    assert (hot.sum(1) == 2).all()
    first = hot[:, : len(names[0])].argmax(1)
    assert names[0][first].tolist() == values


def test_ordinal_keeps_the_order_that_it_is_given():
    size = encode.ordinal(["small", "middle", "large"])
    table = np.array([["large", "small"], ["middle", "small"]])
    names = size.fit(table)
    places = size.apply(names, table)
    assert places.tolist() == [[2, 0], [1, 0]] and places.dtype == np.int32
    assert encode.decode(names, places).tolist() == table.tolist()


def test_whole_numbers_may_be_names():
    names = encode.labels.fit([7, 3, 7])
    assert encode.labels.apply(names, [3, 7]).tolist() == [0, 1]


CATS = encode.labels.fit(["cat", "dog"])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: encode.labels.apply(CATS, ["cat", "dgo"]),
            ['"dgo" at row 1', "cat, dog", "mean"],
        ),
        (lambda: encode.one_hot.apply(CATS, ["eel"]), ["1 unknown", '"eel"', "column 0"]),
        (lambda: encode.labels.fit([["cat"]]), ["labels", "[1, 1]"]),
        (lambda: encode.labels.fit([]), ["values to encode", "[0]"]),
        (lambda: encode.labels.fit(np.array(["a", None])), ["names or integers"]),
        (lambda: encode.labels.fit(np.array([2.0, np.nan, 2.0])), ["1 missing", "row 1"]),
        (lambda: encode.one_hot.apply((np.array([2.0]),), [[np.nan]]), ["1 missing", "row 0"]),
        (lambda: encode.labels.fit(np.array(["NaT"], "datetime64[D]")), ["1 missing"]),
        (lambda: encode.ordinal([1.0, np.nan]), ["1 missing", "row 1"]),
        (lambda: encode.ordinal(["low", None]), ["order"]),
        (
            lambda: encode.one_hot.apply(CATS, [["cat", "dog"]]),
            ["1 columns", "got:      2"],
        ),
        (lambda: encode.ordinal(["low", "low"]), ["order", "different categories"]),
        (lambda: encode.ordinal(["low", "high"]).fit(["lo"]), ['"lo" at row 0', '"low"']),
        (lambda: encode.decode(CATS, np.array([2])), ["from 0 to 1", "2 at row 0"]),
    ],
)
def test_errors(make, words):
    with pytest.raises(InputError) as caught:
        make()
    for word in words:
        assert word in str(caught.value)
