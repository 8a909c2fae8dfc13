"""Feeds: random access, streaming and the order inside a program give the same batches."""

import itertools
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl.core.errors import InputError
from jdl.data.feed import Feed, evaluation_batches
from tests.support.sources import Source, numbers


def same(one, other):
    assert one.keys() == other.keys()
    for key in one:
        assert np.array_equal(one[key], other[key]), key
        assert one[key].dtype == other[key].dtype


def test_a_batch_is_the_gather_of_the_program():
    feed = Feed(numbers(37), 10, seed=2)
    device = {key: jnp.asarray(value) for key, value in feed.data.items()}
    gather = jax.jit(
        lambda step: {key: value[feed.order(step, 10)] for key, value in device.items()}
    )
    for step in (0, 3, 4, 1000):
        same(feed.batch(step), {key: np.asarray(value) for key, value in gather(step).items()})


@pytest.mark.parametrize("wrap", [dict, Source])
def test_streaming_equals_random_access(wrap):
    feed = Feed(wrap(numbers(23)), 5, seed=4)
    stream = feed.stream(start=7)
    for step, batch in zip(range(7, 37), stream, strict=False):
        same(batch, feed.batch(step))
    stream.close()


def test_a_source_gives_the_batches_of_its_arrays():
    arrays, source = Feed(numbers(23), 5, seed=4), Feed(Source(numbers(23)), 5, seed=4)
    same(arrays.batch(11), source.batch(11))
    assert source.nbytes == arrays.nbytes
    assert (source.size, source.is_resident, arrays.is_resident) == (23, False, True)


def test_batches_share_no_memory():
    feed = Feed(numbers(8), 8)
    stream = feed.stream()
    batches = list(itertools.islice(stream, 4))
    stream.close()
    for one, other in itertools.combinations([*batches, feed.data], 2):
        assert not np.shares_memory(one["x"], other["x"])


def readers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if "jdl-read" in thread.name}


def test_closing_a_stream_ends_its_threads():
    before = readers()
    stream = Feed(numbers(8), 4).stream(threads=2)
    next(stream)
    opened = readers() - before
    assert opened
    stream.close()
    for thread in opened:
        thread.join(timeout=5)
        assert not thread.is_alive()
    with pytest.raises(StopIteration):
        next(stream)


def test_an_error_in_a_source_reaches_the_reader():
    class Broken(Source):
        def __getitem__(self, index):
            if index == 5:
                raise OSError("disk gone")
            return super().__getitem__(index)

    before = readers()
    stream = Feed(Broken(numbers(8)), 8).stream(threads=2)
    with pytest.raises(OSError, match="disk gone") as caught:
        next(stream)
    assert caught.tb is not None  # whoever keeps the error keeps no threads
    for thread in readers() - before:
        thread.join(timeout=5)
        assert not thread.is_alive()


class Ended(Source):
    """Reads from an iterator that ends before example 5."""

    def __getitem__(self, index):
        if index == 5:
            next(iter(()))
        return super().__getitem__(index)


class Drawn(Feed):
    """Draws the rows of a step from an iterator that has ended."""

    def rows(self, step):
        return next(iter(()))


def test_an_iterator_that_ends_in_a_source_does_not_end_the_batches():
    feed = Feed(Ended(numbers(8)), 8)
    ways = [
        lambda: feed.batch(0),
        lambda: feed.batches(0, 2),
        lambda: next(feed.stream()),
        lambda: next(feed.stream(threads=2)),
        lambda: list(evaluation_batches(feed.data, 4)),
        lambda: list(map(feed.batch, range(3))),
    ]
    for read in ways:
        with pytest.raises(RuntimeError, match="the source raised StopIteration at example 5"):
            read()
    drawn = Drawn(numbers(8), 4)
    with pytest.raises(RuntimeError, match=r"Feed\.rows raised StopIteration at step 2"):
        list(map(drawn.batch, [2]))


def test_size_limit_of_resident_sets():
    huge = np.broadcast_to(np.zeros(1, np.float32), (2**16, 2**13))
    assert Feed({"x": huge}, 2).nbytes == 2**31
    assert not Feed({"x": huge}, 2).is_resident


@pytest.mark.parametrize(
    ("data", "size", "words"),
    [
        (numbers(5), 6, ["batch_size", "from 1 to 5", "got:      6"]),
        (numbers(5), 0, ["batch_size", "got:      0"]),
        ({"x": np.zeros((0, 3))}, 1, ["at least one example", "an empty set"]),
        ({}, 1, ["a dict of arrays", "an empty dict"]),
        ({"x": np.zeros(3), "y": np.zeros(4)}, 1, ["the same length", "x 3, y 4"]),
        (Source(numbers(0)), 1, ["an empty source"]),
        ([1, 2, 3], 1, ["examples that are dicts", "int"]),
        (7, 1, ["data of a feed", "int"]),
    ],
)
def test_errors(data, size, words):
    with pytest.raises(InputError) as caught:
        Feed(data, size)
    for word in words:
        assert word in str(caught.value)


def test_ragged_sources_are_named():
    class Ragged(Source):
        def __getitem__(self, index):
            return {"x": np.zeros(index + 1)}

    with pytest.raises(InputError) as caught:
        Feed(Ragged(numbers(3)), 3).batch(0)
    assert "(1,), (2,), (3,)" in str(caught.value)


@pytest.mark.parametrize("wrap", [dict, Source])
@pytest.mark.parametrize(("n", "size"), [(7, 3), (6, 3), (2, 5)])
def test_evaluation_sees_every_example_once(wrap, n, size):
    batches = list(evaluation_batches(wrap(numbers(n)), size))
    assert {batch["x"].shape for batch in batches} == {(size, 3)}
    mask = np.concatenate([batch["mask"] for batch in batches])
    labels = np.concatenate([batch["y"] for batch in batches])
    assert mask.dtype == np.float32
    assert labels[mask > 0].tolist() == list(range(n))
    assert (labels[mask == 0] == 0).all()
    assert len(batches) == -(-n // size)


def test_evaluation_multiplies_a_mask_that_is_there():
    data = {**numbers(3), "mask": np.array([[1, 0], [1, 1], [0, 1]], bool), "lengths": [1, 2, 2]}
    first, last = evaluation_batches(data, 2)
    assert first["mask"].tolist() == [[1, 0], [1, 1]]
    assert last["mask"].tolist() == [[0, 1], [0, 0]]
    assert last["lengths"].tolist() == [2, 1]


def test_evaluation_checks_before_the_first_batch():
    with pytest.raises(InputError, match="batch_size of an evaluation"):
        evaluation_batches(numbers(3), 0)
    with pytest.raises(InputError, match="an empty set"):
        evaluation_batches(numbers(0), 2)
