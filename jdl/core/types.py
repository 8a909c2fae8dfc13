"""The nouns of jdl: small tuples of pure functions, and the state they pass along.

Everything else in the package either makes one of these tuples or maps one to another.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import struct

PyTree = Any
Key = jax.Array
Batch = Mapping[str, Any]
Metrics = dict[str, Any]

Row = dict[str, Any]


class Model(NamedTuple):
    """A network: two pure functions.

    `init(key, inputs) -> (params, model_state)` and
    `apply(params, model_state, inputs, *, key=None, train=False) -> (outputs, model_state)`,
    where `model_state` holds whatever is not trained by gradient (batch statistics, ...).
    """

    init: Callable[[Key, PyTree], tuple[PyTree, PyTree]]
    apply: Callable[..., tuple[PyTree, PyTree]]


@dataclass(frozen=True)
class Info:
    """Static facts about a task or a learner. Every transform of a learner keeps them."""

    output: str | None = None
    """What `predict` returns: "class_logits", "binary_logits", "values", ...; None: not stated."""
    points: tuple[Mapping[str, Any], ...] = ()
    """The points of a sweep, one for each member."""
    unsharded: "Learner | None" = None
    """The learner that `shard` or `shard_members` was given."""


class Task(NamedTuple):
    """What a model is trained for: three pure functions, and what they return.

    `init(key, batch) -> (params, model_state)`,
    `loss(params, model_state, batch, key, *, train) -> (Mean, (model_state, metrics))` and
    `predict(params, model_state, batch) -> outputs`. The `Mean` is what is minimised;
    `metrics["loss"]` is the data's loss alone, with the weight that the gradient is divided by.
    """

    init: Callable[[Key, Batch], tuple[PyTree, PyTree]]
    loss: Callable[..., tuple["Mean", tuple[PyTree, Metrics]]]
    predict: Callable[[PyTree, PyTree, Batch], PyTree]
    info: Info = Info()


class Learner(NamedTuple):
    """A way to train: five pure functions over a `TrainState`, and static facts.

    `init(key, batch) -> TrainState`, `step(state, batch, *, axis=None) -> (state, metrics)`,
    `evaluate(state, batch) -> metrics`, `predict(state, batch) -> outputs` and
    `gradient(state, batch, *, axis=None) -> (grads, (model_state, metrics))`, which is what `step`
    hands to the optimizer: a tree like `params`, for a game a dict by player. `axis` names the
    mapped device axis to sum over inside `pmap` and `shard_map`. A learner that you write by hand
    may leave `gradient` out.
    """

    init: Callable[[Key, Batch], "TrainState"]
    step: Callable[..., tuple["TrainState", Metrics]]
    evaluate: Callable[["TrainState", Batch], Metrics]
    predict: Callable[["TrainState", Batch], PyTree]
    gradient: Callable[..., tuple[PyTree, tuple[PyTree, Metrics]]] | None = None
    info: Info = Info()

    @property
    def points(self) -> tuple[Mapping[str, Any], ...]:
        """The points of a sweep, one for each member; empty for any other learner."""
        return self.info.points


class Gradient(Protocol):
    """`gradient(loss)` is a function that computes gradients of the loss of a `Task`.

    `(params, model_state, batch, key, *, axis=None) -> (grads, (model_state, metrics))`.
    """

    def __call__(
        self, loss: Callable[..., tuple["Mean", tuple[PyTree, Metrics]]], /
    ) -> Callable[..., tuple[PyTree, tuple[PyTree, Metrics]]]:
        """The function that computes gradients of `loss`."""
        ...


class TrainState(struct.PyTreeNode):
    """All that a run carries from one step to the next; a checkpoint is exactly this."""

    step: jax.Array
    """int32 scalar: steps taken, skipped ones included."""
    key: Key
    """Typed key; the randomness of a step is `fold_in(key, step)`."""
    params: PyTree
    model_state: PyTree
    opt_state: PyTree
    extra: PyTree = None
    """The record of the outermost transform, whose `inner` is that of the transform below it."""

    @property
    def members(self) -> tuple[int, ...]:
        """The leading axes that count members: () for one model, (32,) under `ensemble(l, 32)`."""
        return self.key.shape


class Metric(NamedTuple):
    """A measurement that merges by addition.

    `count(outputs, batch) -> pytree` runs in the compiled step, `compute(sum) -> values` on the
    host.
    """

    count: Callable[[PyTree, Batch], PyTree]
    compute: Callable[[PyTree], Any]


@struct.dataclass
class Mean:
    r"""A weighted mean kept as its two sums, $\sum_i w_i v_i$ and $\sum_i w_i$.

    Two means merge by adding the sums, so no split of the data changes the result.

    >>> jax.tree.map(jnp.add, Mean(6.0, 2.0), Mean(1.0, 2.0)).value
    Array(1.75, dtype=float32, weak_type=True)
    """

    total: Any
    weight: Any

    @property
    def value(self) -> Any:
        """`total / weight`; nan where nothing was counted."""
        return jnp.true_divide(self.total, self.weight)

    def compute(self) -> Any:
        """The mean as numpy float64, for the host."""
        import numpy as np

        with np.errstate(invalid="ignore", divide="ignore"):
            return np.float64(1) * np.asarray(self.total, np.float64) / np.asarray(self.weight)


@struct.dataclass
class Count:
    """The sum of a `Metric`, together with the function that turns it into values."""

    sum: PyTree
    finish: Callable[[PyTree], Any] = struct.field(pytree_node=False)

    def compute(self) -> Any:
        """The values of the metric, computed on the host."""
        return self.finish(self.sum)
