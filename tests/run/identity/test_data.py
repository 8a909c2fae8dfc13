"""The identity of data: any change of a small set is seen, and what is sampled says so."""

import numpy as np
import pytest

import jdl
from jdl.run.identity import data as identity
from jdl.run.identity.data import describe_array, describe_data
from tests.support.sources import Source, numbers


def of(data, valid=None, seed=0):
    feed = data if isinstance(data, jdl.Feed) else jdl.Feed(data, 2, seed)
    return describe_data(feed, valid)


def test_permuted_labels_are_other_data():
    one, other = numbers(6), numbers(6)
    other["y"] = other["y"][::-1].copy()
    a, b = of(one, numbers(3)), of(other, numbers(3))
    assert {name for name in a if a[name] != b[name]} == {"train y"}
    assert a["train x"]["hash of"] == "all bytes"
    assert of(one, numbers(3)) != of(one, numbers(2)) != of(one)


def test_types_and_shapes_enter():
    zeros = np.zeros(8, np.float32)
    found = [zeros, zeros.astype(np.int32), zeros.reshape(2, 4), zeros[:6]]
    assert len({repr(describe_array(array)) for array in found}) == 4
    assert describe_array(np.arange(12)[::2]) == describe_array(np.arange(12)[::2].copy())


@pytest.fixture
def small_limits(monkeypatch):
    monkeypatch.setattr(identity, "HASHED_WHOLE_BYTES", 2**10)
    monkeypatch.setattr(identity, "SAMPLE_BLOCK_BYTES", 2**8)


@pytest.mark.parametrize("row", [0, 1234, 2999])
def test_one_changed_value_of_a_large_array_is_seen(small_limits, row):
    array = np.random.default_rng(0).random((3000, 11), np.float32)
    before = describe_array(array)
    assert before["hash of"] == "sums over all bytes, and sampled rows"
    array[row, 5] += 1e-3
    assert describe_array(array)["hash"] != before["hash"]


def test_a_larger_array_is_sampled_and_says_so(small_limits, monkeypatch):
    monkeypatch.setattr(identity, "SUMMED_BYTES", 2**11)
    array = np.random.default_rng(0).random((3000, 11), np.float32)
    before = describe_array(array)
    assert before["hash of"] == "sampled rows"
    for row in (0, 2999):
        other = array.copy()
        other[row] += 1
        assert describe_array(other)["hash"] != before["hash"]
    assert describe_array(array + 1)["hash"] != before["hash"]


def test_a_source_is_sampled_and_says_so():
    source = Source(numbers(100))
    found = of(jdl.Feed(source, 4))["train"]
    assert found["hash of"] == "8 sampled examples" and found["examples"] == 100
    other = numbers(100)
    other["y"] = other["y"] + 1
    assert of(jdl.Feed(Source(other), 4))["train"]["hash"] != found["hash"]
    assert of(jdl.Feed(Source(numbers(100)), 4))["train"] == found


class Noisy(Source):
    def __getitem__(self, index):
        example = super().__getitem__(index)
        return {**example, "x": example["x"] + np.float32(self.reads)}


class Broken(Source):
    def __getitem__(self, index):
        if index > 50:
            raise OSError("no such image")
        return super().__getitem__(index)


@pytest.mark.parametrize(
    ("kind", "reason"), [(Noisy, "differs each time"), (Broken, "cannot be read (OSError)")]
)
def test_a_source_that_cannot_be_hashed_gives_the_reason(kind, reason):
    found = of(jdl.Feed(kind(numbers(100)), 4))["train"]
    assert found["hash"] is None and reason in found["hash of"]


def test_the_order_of_a_feed_of_another_kind_enters():
    class Reversed(jdl.Feed):
        def rows(self, step):
            index, mask = super().rows(step)
            return index[..., ::-1], mask

    a, b = of(jdl.Feed(numbers(6), 2)), of(Reversed(numbers(6), 2))
    assert {name for name in a if a[name] != b[name]} == {"order"}
