"""Training batches by step, a stream that reads ahead, and evaluation batches."""

import operator
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from jdl.core.errors import error
from jdl.core.reprs import describe_arrays
from jdl.data.arrays import Arrays, as_arrays, example_bytes, to_32_bit
from jdl.data.loader import read_in_threads
from jdl.data.order import Order

RESIDENT_BYTES = 2**30
"""`fit` keeps sets up to this size on the device."""


Check = Callable[[Arrays, np.ndarray], None]
"""A function of a batch and the indices of its examples, which raises for what it refuses."""


class Source(Protocol):
    """Random access to examples, as in Grain: a length and `source[i]`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


@dataclass(frozen=True, eq=False, repr=False)
class Feed:
    """Training batches as a function of the step.

    `data` is a dict of arrays (n, ...), or a random-access source of dicts. The batch of a step
    depends on the data, `batch_size`, `seed` and the step alone. To choose the examples of a step
    yourself, override `rows(step)`.

    Raises `InputError` for an empty set, arrays of different lengths, and a batch size that is not
    an integer from 1 to n.

    >>> feed = Feed({"x": np.arange(6.0, dtype=np.float32)[:, None]}, batch_size=4, seed=1)
    >>> feed.batch(0)["x"].shape
    (4, 1)
    >>> bool((feed.batch(2)["x"][:, 0] == feed.order(2, 4)).all())
    True
    """

    data: Mapping[str, Any] | Source
    batch_size: int
    seed: int = 0
    check: Check | None = None
    """Called with each batch that is read from a source and the indices of its examples."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", _examples(self.data))
        size = _as_integer(self.batch_size)
        object.__setattr__(self, "batch_size", size)
        if not 1 <= size <= self.size:
            raise error(
                "batch_size",
                expected=f"from 1 to {self.size}, the number of examples",
                got=str(size),
                fix="choose a smaller batch" if size > 0 else "choose a positive batch size",
            )
        object.__setattr__(self, "seed", int(self.order.seed))
        self.order(0, size, np)

    def __repr__(self) -> str:
        data = describe_arrays(self.data)
        return f"{type(self).__name__}({data}; batch_size={self.batch_size}, seed={self.seed})"

    @property
    def size(self) -> int:
        """The number of examples."""
        return _size(self.data)

    @property
    def order(self) -> Order:
        """The order of the examples: `order(step, batch_size)` gives their indices."""
        return Order(self.size, self.seed)

    @property
    def nbytes(self) -> int:
        """Size of the set in bytes; for a source, its first example's size times its length."""
        if isinstance(self.data, dict):
            return example_bytes(self.data)
        return example_bytes(_take(self.data, np.zeros(1, np.int64))) * self.size

    @property
    def is_resident(self) -> bool:
        """Whether the data are arrays of at most 1 GiB, which `fit` keeps on the device."""
        return isinstance(self.data, dict) and self.nbytes <= RESIDENT_BYTES

    def rows(self, step: int | np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The examples of a step: their indices, int32 (batch,), and a mask, or None if all count.

        For steps of shape (k,) both have shape (k, batch). Override this for a feed that chooses
        examples in another way, with batches of varying size for example.

        >>> Feed({"x": np.zeros(6, np.float32)}, batch_size=4).rows(np.arange(3))[0].shape
        (3, 4)
        """
        return self.order(step, self.batch_size, np), None

    def batch(self, step: int, rows: np.ndarray | None = None) -> Arrays:
        """The batch of a step, or these `rows` of it, as new numpy arrays."""
        return self._gather(operator.index(step), rows)

    def batches(self, start: int, count: int, rows: np.ndarray | None = None) -> Arrays:
        """The batches of `count` steps, or these `rows` of each, stacked: (count, batch, ...).

        For arrays this is faster than one batch at a time. A source is read without threads.
        """
        return self._gather(np.arange(start, start + count), rows)

    def _gather(self, steps: int | np.ndarray, rows: np.ndarray | None) -> Arrays:
        try:
            index, mask = self.rows(steps)
        except StopIteration as end:
            raise _no_end("Feed.rows", f"step {steps}") from end
        if rows is not None:
            index, mask = index[..., rows], None if mask is None else mask[..., rows]
        taken = _take(self.data, index.reshape(-1))
        if self.check is not None and not isinstance(self.data, dict):
            self.check(taken, index.reshape(-1))
        batch = {key: x.reshape(*index.shape, *x.shape[1:]) for key, x in taken.items()}
        return batch if mask is None else {**batch, "mask": masked(batch.get("mask"), mask)}

    def stream(
        self,
        start: int = 0,
        *,
        threads: int | None = None,
        ahead: int = 8,
        rows: np.ndarray | None = None,
    ) -> Generator[Arrays, None, None]:
        """Iterate over the batches of steps start, start + 1, ..., read ahead by threads.

        Reads only `rows`, the part of each batch that this process feeds, and keeps at most `ahead`
        batches waiting. Without `threads` it uses one or four, whichever is faster. The threads end
        when you close or drop the iterator; an error in a source is raised at the batch that it
        belongs to.
        """
        return read_in_threads(lambda step: self.batch(step, rows), start, threads, ahead)


def evaluation_batches(data: Mapping[str, Any] | Source, batch_size: int) -> Iterator[Arrays]:
    """Iterate over every example once, in order, in batches of equal shape with a `mask`.

    `mask` is float32 (batch,). The last batch is padded with copies of example 0, whose mask is 0.
    If the data has a `mask`, it is kept and set to 0 in the padding. 64-bit values become 32-bit as
    in `as_arrays`, without a line in the log. Raises `InputError` for a batch size below 1 and for
    data that `Feed` rejects.

    >>> batches = list(evaluation_batches({"x": np.ones((3, 1), np.float32)}, 2))
    >>> [batch["mask"].tolist() for batch in batches]
    [[1.0, 1.0], [1.0, 0.0]]
    """
    size = operator.index(batch_size)
    if size < 1:
        raise error(
            "batch_size of an evaluation",
            expected="at least 1",
            got=str(size),
            fix="pass the number of examples to evaluate at once",
        )
    return _evaluation(_examples(data, notice=False), size)


def _evaluation(data: Arrays | Source, batch_size: int) -> Iterator[Arrays]:
    n = _size(data)
    for start in range(0, n, batch_size):
        index = np.arange(start, start + batch_size)
        exists = index < n
        batch = _take(data, np.where(exists, index, 0))
        yield {**batch, "mask": masked(batch.get("mask"), exists.astype(np.float32))}


def masked(mask: Any, exists: Any, xp: ModuleType = np) -> Any:
    """The float32 `mask` (ones for None) where `exists` is 1, and 0 elsewhere.

    `mask` may have more axes than `exists`.

    >>> masked(np.array([[1.0, 0.5], [np.nan, 1.0]]), np.array([1.0, 0.0])).tolist()
    [[1.0, 0.5], [0.0, 0.0]]
    """
    exists = xp.asarray(exists, xp.float32)
    if mask is None:
        return exists
    keep = exists.reshape(exists.shape + (1,) * (mask.ndim - exists.ndim))
    # where, not a product: the mask of padding may be nan
    return xp.where(keep > 0, xp.asarray(mask, xp.float32), xp.float32(0))


def _as_integer(batch_size: Any) -> int:
    try:
        return operator.index(batch_size)
    except TypeError:
        raise error(
            "batch_size",
            expected="a whole number",
            got=repr(batch_size),
            fix="pass the number of examples in a batch as an int",
        ) from None


def _examples(data: Any, *, notice: bool = True) -> Arrays | Source:
    if isinstance(data, Mapping):
        return as_arrays(data, notice=notice)
    if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        expected = "a dict of arrays, or a source with __len__ and __getitem__"
        got, fix = type(data).__name__, 'wrap the arrays: {"x": x, "y": y}'
    elif len(data) == 0:
        expected, got = "at least one example", "an empty source"
        fix = "check the file or the split that it comes from"
    elif not isinstance(data[0], Mapping):
        expected = 'examples that are dicts, {"x": ..., "y": ...}'
        got = f"source[0] of type {type(data[0]).__name__}"
        fix = "return a dict of arrays from __getitem__"
    else:
        return data
    raise error("data of a feed", expected=expected, got=got, fix=fix)


def _size(data: Mapping[str, Any] | Source) -> int:
    return len(next(iter(data.values()))) if isinstance(data, dict) else len(data)


def _take(data: Mapping[str, Any] | Source, index: np.ndarray) -> Arrays:
    if isinstance(data, Mapping):
        return {key: value[index] for key, value in data.items()}
    examples = [_example(data, int(i)) for i in index]
    return {key: stack(key, examples) for key in examples[0]}


def _example(source: Source, index: int) -> Mapping[str, Any]:
    try:
        return source[index]
    except StopIteration as end:
        raise _no_end("the source", f"example {index}") from end


def _no_end(what: str, where: str) -> RuntimeError:
    """The error for a StopIteration, which iterators would take for the end of all batches."""
    return RuntimeError(f"{what} raised StopIteration at {where}: an iterator in it has ended")


def stack(key: str, examples: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """One entry of several examples, or batches, as a new array; `InputError` if shapes differ."""
    try:
        stacked = np.stack([np.asarray(example[key]) for example in examples])
    except (KeyError, ValueError):
        shapes = {
            str(np.shape(example[key])) if key in example else "missing" for example in examples
        }
        raise error(
            f'"{key}" of a source',
            expected="the same shape in every example",
            got=", ".join(sorted(shapes)),
            fix="pad in __getitem__, and return the true lengths as another entry",
        ) from None
    return to_32_bit(stacked, f'"{key}" of a source')
