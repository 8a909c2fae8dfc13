"""How a batch reaches the compiled step: from data on the device, or in stacks from a stream."""

import jax
import jax.numpy as jnp
import numpy as np

from jdl.core.types import Batch, Key, Learner, PyTree, TrainState
from jdl.data.feed import Feed, masked
from jdl.data.prefetch import prefetch, stacks_of_batches
from jdl.learn.transforms import feed_from, separate
from jdl.run.execution.dispatch import MAX_STEPS_PER_DISPATCH
from jdl.run.execution.placement import local_batch, placed_shapes, placement
from jdl.run.telemetry.clock import TimeBreakdown

TABLE_ROWS = 2**20
"""Largest number of row indices that one table holds."""

STACK_BYTES = 2**25
"""Largest size of a stack of batches that is moved to the device at once."""


def from_index_table(inner: Learner) -> Learner:
    """A learner whose steps take the data set and a table with the rows of several batches.

    Its batch is `{"first": step, "rows": (k, batch), "set": {...}}`, with a `"mask"` of shape
    `(k, batch)` if some rows do not count. Row i of the table is the batch of step first + i.
    """

    def batch_of(state: TrainState, data: PyTree) -> Batch:
        place = state.step - data["first"]
        batch = jax.tree.map(lambda x: jnp.take(x, data["rows"][place], axis=0), data["set"])
        if "mask" in data:
            batch = {**batch, "mask": masked(batch.get("mask"), data["mask"][place], jnp)}
        return separate(batch)

    def init(key: Key, data: PyTree) -> TrainState:
        first = jax.tree.map(lambda x: jnp.take(x, data["rows"][0], axis=0), data["set"])
        return inner.init(key, first)

    return feed_from(inner, batch_of)._replace(init=init)


def from_stack(inner: Learner) -> Learner:
    """A learner whose steps take a stack of k batches.

    Its batch is `{"first": step, "stack": {...}}`, with arrays of shape `(k, batch, ...)`. Item i
    of the stack is the batch of step first + i.
    """

    def batch_of(state: TrainState, data: PyTree) -> Batch:
        place = state.step - data["first"]
        return separate(jax.tree.map(lambda x: x[place], data["stack"]))

    def init(key: Key, data: PyTree) -> TrainState:
        return inner.init(key, jax.tree.map(lambda x: x[0], data["stack"]))

    return feed_from(inner, batch_of)._replace(init=init)


class ResidentBatches:
    """The whole data set on the device, and a table with the rows of the next steps.

    The permutation of an epoch needs a loop of unknown length, and a GPU waits for the host in each
    iteration. So the host computes the rows of many steps at once.
    """

    feed_into = staticmethod(from_index_table)

    def __init__(self, feed: Feed, state: TrainState):
        self._feed, self._put, self._set = feed, placement(state), None
        self._steps = int(np.clip(TABLE_ROWS // feed.batch_size, 1, MAX_STEPS_PER_DISPATCH))
        self._table: PyTree = None
        self._end = int(state.step)
        one = self._rows(0, 1)
        whole = {k: np.broadcast_to(v, (self._steps, *v.shape[1:])) for k, v in one.items()}
        data = {"set": feed.data, "first": np.int32(0), **whole}
        self.shapes = placed_shapes(state, data)
        """Shapes of what `at` returns, to compile before the data set takes memory."""

    def at(self, step: int) -> tuple[PyTree, int]:
        """The data for a step, and the first step that needs other data."""
        if step >= self._end:
            rows = self._put({"first": np.int32(step), **self._rows(step, self._steps)})
            self._set = self._put(self._feed.data) if self._set is None else self._set
            self._table, self._end = {"set": self._set, **rows}, step + self._steps
        return self._table, self._end

    def _rows(self, first: int, count: int) -> dict[str, np.ndarray]:
        rows, mask = self._feed.rows(np.arange(first, first + count))
        return {"rows": rows} if mask is None else {"rows": rows, "mask": mask}


class StreamedBatches:
    """Stacks of batches; the host builds the next one while the device uses the last."""

    feed_into = staticmethod(from_stack)
    shapes = None

    def __init__(self, feed: Feed, state: TrainState, steps: int, clock: TimeBreakdown):
        batch_bytes = max(1, feed.nbytes // feed.size * feed.batch_size)
        self._steps = int(np.clip(STACK_BYTES // batch_bytes, 1, steps))
        self._end = int(state.step)
        rows, self._put = local_batch(state, feed.batch_size)
        self._stacks = prefetch(stacks_of_batches(feed, self._end, self._steps, rows))
        self._clock, self._stack = clock, None

    def at(self, step: int) -> tuple[PyTree, int]:
        """The data for a step, and the first step that needs other data."""
        if step >= self._end:
            with self._clock.span("data"):
                stack = self._put(next(self._stacks), 1)
            self._stack = {"first": np.int32(self._end), "stack": stack}
            self._end += self._steps
        return self._stack, self._end
