"""One experiment at every point of a grid of its settings."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import product
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from jdl.core.types import Learner, Point
from jdl.data.feed import Feed
from jdl.data.records import Data
from jdl.learn.grid_values import is_same
from jdl.learn.sweep import sweep
from jdl.run.identity.data import describe_source

SHARED_FIELDS = ("data", "valid", "batch_size", "epochs", "best", "patience", "options")
"""What all points of a sweep have in common: they are trained by one call of `fit`."""

Grid = Mapping[str, Sequence[Any]]


class ExperimentSweep:
    """The experiments at the points of a grid; each is built once, when it is first asked for.

    Names of the grid are fields of `config`, or of a dataclass in it: `inner.width`.
    """

    def __init__(self, build: Callable[[Any], Any], config: Any, grid: Grid) -> None:
        self.build, self.config, self.grid = build, config, grid
        self._built: list[tuple[Point, Any]] = []

    def points(self) -> Iterator[Point]:
        """Each combination of values, the last name's changing fastest."""
        for values in product(*self.grid.values()):
            yield dict(zip(self.grid, values, strict=True))

    def at(self, **point: Any) -> Any:
        """The experiment at a point. One with traced values lives as long as its trace."""
        if any(isinstance(value, Tracer) for value in point.values()):
            return self.build(with_values(self.config, point))
        for known, experiment in self._built:
            if is_same(known, point):
                return experiment
        self._built.append((point, self.build(with_values(self.config, point))))
        return self._built[-1][1]

    @property
    def first(self) -> Any:
        """The experiment at the first point, whose data and options the sweep trains with."""
        return self.at(**next(self.points()))

    def learner(self, seeds: int) -> Learner:
        """One learner with the experiment's learner at every point."""

        def build(**point: Any) -> Learner:
            return self.at(**point).learner

        return sweep(build, self.grid, seeds)

    def difference(self) -> tuple[str, str] | None:
        """A name of the grid that changes what all points share, and what it changes.

        >>> from types import SimpleNamespace
        >>> Config = dataclasses.make_dataclass("Config", [("rate", float), ("epochs", int)])
        >>> def build(config):
        ...     shared = dict.fromkeys(SHARED_FIELDS) | {"epochs": config.epochs}
        ...     return SimpleNamespace(**shared)
        >>> grid = {"rate": [0.1, 0.2], "epochs": [1, 2]}
        >>> ExperimentSweep(build, Config(0.1, 1), grid).difference()
        ('epochs', 'epochs')
        """
        first = next(self.points())
        # Points that differ from the first in one name alone tell which name it is.
        others = sorted(self.points(), key=lambda point: len(_changed(first, point)))
        for point in others[1:]:
            for shared in SHARED_FIELDS:
                mine, theirs = (getattr(self.at(**own), shared) for own in (first, point))
                if not is_equal(mine, theirs):
                    return _changed(first, point)[-1], shared
        return None


def with_values(config: Any, point: Point) -> Any:
    """The configuration with the values of a point; a name with dots is that of an inner field."""

    def change(owner: Any, names: list[str], value: Any) -> Any:
        if len(names) > 1:
            value = change(getattr(owner, names[0]), names[1:], value)
        return dataclasses.replace(owner, **{names[0]: value})

    return reduce(lambda own, item: change(own, item[0].split("."), item[1]), point.items(), config)


def is_equal(one: Any, other: Any) -> bool:
    """Whether two data sets or options are the same: arrays by their bits, sources by samples.

    >>> one, other = {"x": np.zeros(2)}, {"x": np.ones(2)}
    >>> is_equal(one, {"x": np.zeros(2)}), is_equal(one, other), is_equal(None, one)
    (True, False, False)
    """
    if one is other:
        return True
    if isinstance(one, np.ndarray | jax.Array) or isinstance(other, np.ndarray | jax.Array):
        return _is_equal_array(np.asarray(one), np.asarray(other))
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one == other  # 4 and 4.0 epochs
    if type(one) is not type(other):
        return False
    if isinstance(one, Data):
        return is_equal(one.train, other.train) and is_equal(one.valid, other.valid)
    if isinstance(one, Feed):
        same_order = (one.batch_size, one.seed) == (other.batch_size, other.seed)
        return same_order and is_equal(one.data, other.data)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(is_equal(one[key], other[key]) for key in one)
    if dataclasses.is_dataclass(one) and not hasattr(one, "__getitem__"):
        pairs = [(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one)]
        return all(is_equal(*pair) for pair in pairs if not callable(pair[0]))
    if hasattr(one, "__getitem__") and not isinstance(one, str | bytes | list | tuple):
        mine = describe_source(one)
        return mine["hash"] is not None and mine == describe_source(other)
    return is_same(one, other)


def _is_equal_array(one: np.ndarray, other: np.ndarray) -> bool:
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    if one.dtype.hasobject or not one.size:
        return bool(np.array_equal(one, other))
    return bool(np.array_equal(_bytes(one), _bytes(other)))  # NaN equals NaN


def _bytes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _changed(first: Point, point: Point) -> list[str]:
    return [name for name in point if not is_same(first[name], point[name])]
