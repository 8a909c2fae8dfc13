"""The nouns of jdl: small tuples of pure functions, and the state that they pass along.

Everything else in the package builds one of these tuples or maps one to another. A function that
takes keyword arguments is typed by a protocol. Any function with the same arguments fits it: its
positional arguments may have other names, and annotations are optional.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.core import Tracer

from jdl.core.reprs import describe_fields

PyTree = Any
"""An array, or a dict, list, tuple, ... of these: whatever `jax.tree.map` maps over."""
Key = jax.Array
"""A typed random key, as from `jax.random.key(0)`."""
Batch = Mapping[str, Any]
"""Arrays by name, each with a leading axis of one entry per example: `x`, `y`, `mask`, ..."""
Metrics = dict[str, Any]
"""Metrics by name, each a `Mean`, a `Count` or another pytree that merges by addition.

In an evaluation they may hold `Samples`, which merge by concatenation.
"""
Axis = str | None
"""The name of a mapped device axis inside `pmap` or `shard_map`; None outside."""
GradsAndAux = tuple[PyTree, tuple[PyTree, Metrics]]
"""`(grads, (model_state, metrics))`."""
Point = Mapping[str, Any]
"""A point of a sweep: a value for each name of the grid, and the `seed`."""
Row = dict[str, Any]
"""A row of a log: values by name."""


class Apply(Protocol):
    """`apply(params, model_state, inputs, *, key=None, train=False) -> (outputs, model_state)`."""

    def __call__(
        self,
        params: PyTree,
        model_state: PyTree,
        inputs: PyTree,
        /,
        *,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[PyTree, PyTree]:
        """The outputs (batch, ...), and the model state after the call."""
        ...


class Model(NamedTuple):
    """A network as two pure functions.

    - `init(key, inputs) -> (params, model_state)`
    - `apply(params, model_state, inputs, *, key=None, train=False) -> (outputs, model_state)`

    `params` are trained by gradient; `model_state` holds everything else that the network carries
    from step to step, such as batch statistics. Inputs and outputs are arrays, or pytrees of
    arrays, with a leading batch axis.

    >>> model = Model(
    ...     init=lambda key, inputs: ({"scale": jnp.ones(inputs.shape[-1])}, {}),
    ...     apply=lambda params, model_state, inputs, **options: (
    ...         inputs @ params["scale"], model_state),
    ... )
    >>> params, model_state = model.init(jax.random.key(0), jnp.ones((5, 2)))
    >>> model.apply(params, model_state, jnp.ones((5, 2)))[0].shape
    (5,)
    """

    init: Callable[[Key, PyTree], tuple[PyTree, PyTree]]
    apply: Apply

    def __repr__(self) -> str:
        return describe_fields(self, self._asdict())


@dataclass(frozen=True)
class Info:
    """Static facts about a task or a learner. Every transform of a learner keeps them."""

    output: str | None = None
    """What `predict` returns: "class_logits", "binary_logits", "values", ...; None if unknown."""
    ignore: int | None = None
    """The label of examples that count for nothing."""
    points: tuple[Point, ...] = ()
    """The points of a sweep, one per member."""
    unsharded: "Learner | None" = None
    """The learner that `shard`, `shard_members`, `shard_map` or `pmap` was called with."""

    def __repr__(self) -> str:
        points = f"{len(self.points)} points" if self.points else None
        shown = {"output": self.output, "ignore": self.ignore, "points": points}
        return describe_fields(self, {**shown, "unsharded": self.unsharded})


class Loss(Protocol):
    """`loss(params, model_state, batch, key, *, train) -> (Mean, (model_state, metrics))`."""

    def __call__(
        self,
        params: PyTree,
        model_state: PyTree,
        batch: Batch,
        key: Key | None,
        /,
        *,
        train: bool,
    ) -> tuple["Mean", tuple[PyTree, Metrics]]:
        """The mean to minimise, with the new model state and the metrics."""
        ...


class Task(NamedTuple):
    """What a model is trained for, as three pure functions.

    - `init(key, batch) -> (params, model_state)`
    - `loss(params, model_state, batch, key, *, train) -> (Mean, (model_state, metrics))`
    - `predict(params, model_state, batch) -> outputs`

    Training minimises the `Mean`. `metrics["loss"]` is the loss on the data alone, without
    penalties; its weight is the one that the gradient is divided by. `key` may be None for a loss
    that draws nothing.

    Evaluation pads its last batch: both sums of the mean leave out examples whose `batch["mask"]`
    is 0, as `jdl.metrics.mean` does.

    >>> import jdl
    >>> def loss(params, model_state, batch, key, *, train):
    ...     mean = jdl.metrics.mean((params - batch["x"]) ** 2, batch.get("mask"))
    ...     return mean, (model_state, {"loss": mean})
    >>> task = Task(
    ...     init=lambda key, batch: (jnp.zeros(()), {}),
    ...     loss=loss,
    ...     predict=lambda params, model_state, batch: params,
    ... )
    >>> mean, _ = task.loss(jnp.zeros(()), {}, {"x": jnp.array([1.0, 2.0])}, None, train=True)
    >>> print(mean.value)
    2.5
    """

    init: Callable[[Key, Batch], tuple[PyTree, PyTree]]
    loss: Loss
    predict: Callable[[PyTree, PyTree, Batch], PyTree]
    info: Info = Info()

    def __repr__(self) -> str:
        return describe_fields(self, self._asdict())


class Step(Protocol):
    """`step(state, batch, *, axis=None) -> (state, metrics)`."""

    def __call__(
        self, state: "TrainState", batch: Batch, /, *, axis: Axis = None
    ) -> tuple["TrainState", Metrics]:
        """The state after one optimizer step, and the metrics of this step."""
        ...


class StateGradient(Protocol):
    """`gradient(state, batch, *, axis=None) -> (grads, (model_state, metrics))`."""

    def __call__(self, state: "TrainState", batch: Batch, /, *, axis: Axis = None) -> GradsAndAux:
        """The gradient in `state.params`, with the new model state and the metrics."""
        ...


class Learner(NamedTuple):
    """A way to train, as pure functions of a `TrainState`.

    - `init(key, batch) -> TrainState`
    - `step(state, batch, *, axis=None) -> (state, metrics)`
    - `evaluate(state, batch) -> metrics`
    - `predict(state, batch) -> outputs`
    - `gradient(state, batch, *, axis=None) -> (grads, (model_state, metrics))`: the gradient that
      `step` passes to the optimizer, a tree like `params` (for a game, a dict by player)

    `axis` names the mapped device axis to sum over inside `pmap` and `shard_map`. A learner that
    you write by hand may leave `gradient` out.

    >>> import jdl, optax
    >>> model = jdl.from_linen(jdl.models.MLP(features=(), outputs=1))
    >>> line = jdl.learner(jdl.regression(model), optax.sgd(0.1))
    >>> batch = {"x": jnp.ones((4, 2)), "y": jnp.ones((4, 1))}
    >>> state = line.init(jax.random.key(0), batch)
    >>> state, metrics = line.step(state, batch)
    >>> sorted(metrics), line.predict(state, batch).shape
    (['gradient_norm', 'loss'], (4, 1))
    """

    init: Callable[[Key, Batch], "TrainState"]
    step: Step
    evaluate: Callable[["TrainState", Batch], Metrics]
    predict: Callable[["TrainState", Batch], PyTree]
    gradient: StateGradient | None = None
    info: Info = Info()

    def __repr__(self) -> str:
        return describe_fields(self, self._asdict())

    @property
    def points(self) -> tuple[Point, ...]:
        """The points of a sweep, one per member; empty for any other learner."""
        return self.info.points


class LossGradient(Protocol):
    """`(params, model_state, batch, key, *, axis=None) -> (grads, (model_state, metrics))`."""

    def __call__(
        self,
        params: PyTree,
        model_state: PyTree,
        batch: Batch,
        key: Key | None,
        /,
        *,
        axis: Axis = None,
    ) -> GradsAndAux:
        """The gradient of the mean, with the new model state and the metrics."""
        ...


class Gradient(Protocol):
    """`gradient(loss)` returns the function that computes gradients of a task's `loss`."""

    def __call__(self, loss: Loss, /) -> LossGradient:
        """The function that computes gradients of `loss`."""
        ...


class TrainState(struct.PyTreeNode):
    """Everything that a run carries from one step to the next. A checkpoint is exactly this.

    >>> import jdl, optax
    >>> model = jdl.from_linen(jdl.models.MLP(features=(), outputs=1))
    >>> line = jdl.learner(jdl.regression(model), optax.sgd(0.1))
    >>> batch = {"x": jnp.ones((4, 2)), "y": jnp.ones((4, 1))}
    >>> state = line.init(jax.random.key(0), batch)
    >>> int(state.step), state.params["output"]["kernel"].shape, state.members
    (0, (2, 1), ())
    """

    step: jax.Array
    """int32 scalar: steps so far, skipped ones included."""
    key: Key
    """Typed key of shape `members`; the randomness of a step is `fold_in(key, step)`."""
    params: PyTree
    model_state: PyTree
    opt_state: PyTree
    extra: PyTree = None
    """The record of the outermost transform; its `inner` is that of the transform inside it."""

    @property
    def members(self) -> tuple[int, ...]:
        """The leading axes that count members: () for one model, (32,) under `ensemble(l, 32)`."""
        return self.key.shape

    def __repr__(self) -> str:
        leaves = jax.tree.leaves(self.params)
        size = sum(int(np.prod(getattr(leaf, "shape", ()))) for leaf in leaves)
        members = getattr(self.key, "shape", ()) or None
        step = self.step if isinstance(self.step, Tracer) else np.asarray(self.step)
        shown = {"step": str(step), "parameters": f"{size:,}", "members": members}
        return f"TrainState({', '.join(f'{k} {v}' for k, v in shown.items() if v is not None)})"


class Metric(NamedTuple):
    """A measurement that merges by addition.

    `count(outputs, batch)` runs in the compiled step and returns a pytree. These pytrees are added
    up over batches and devices, and `compute(sum)` turns the sum into values on the host. A metric
    that needs all examples at once, such as `jdl.metrics.auc`, returns `Samples`, which evaluations
    concatenate and training leaves out.

    >>> positive = Metric(
    ...     count=lambda outputs, batch: Mean((outputs > 0).sum(), outputs.size),
    ...     compute=Mean.compute,
    ... )
    >>> print(positive.compute(positive.count(jnp.array([-1.0, 2.0]), {})))
    0.5
    """

    count: Callable[[PyTree, Batch], PyTree]
    compute: Callable[[Any], Any]

    def __repr__(self) -> str:
        return describe_fields(self, self._asdict())


@struct.dataclass
class Mean:
    r"""A weighted mean stored as two sums, $\sum_i w_i v_i$ and $\sum_i w_i$.

    Two means merge by adding their sums, so the result does not depend on how the data is split.
    Both sums are scalars, or arrays with one entry per member.

    >>> jax.tree.map(jnp.add, Mean(6.0, 2.0), Mean(1.0, 2.0)).value
    Array(1.75, dtype=float32, weak_type=True)
    """

    total: Any
    weight: Any

    @property
    def value(self) -> jax.Array:
        """`total / weight`; nan if the weight is zero."""
        return jnp.true_divide(self.total, self.weight)

    def compute(self) -> Any:
        """The mean as numpy float64, on the host."""
        total, weight = (np.asarray(part, np.float64) for part in (self.total, self.weight))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.float64(1) * total / weight


@struct.dataclass
class Count:
    """The sum of a `Metric`, together with the function that turns it into values.

    >>> matrix = jnp.array([[3, 1], [0, 4]])
    >>> print(Count(matrix, finish=lambda m: m.trace() / m.sum()).compute())
    0.875
    """

    sum: PyTree
    finish: Callable[[Any], Any] = struct.field(pytree_node=False)

    def compute(self) -> Any:
        """The values of the metric, on the host."""
        return self.finish(self.sum)


@struct.dataclass
class Samples:
    """Arrays (..., examples) of all examples, for a metric that sums cannot give, such as an AUC.

    `Metric.count` returns it instead of sums, and its arrays merge by concatenation along the last
    axis, on the host. So an evaluation holds every example until its end: the bytes of these arrays
    for each example and member. Training adds up metrics on the device, so rows of training leave
    out a metric with samples. Leading axes are those of members.

    >>> two = [Samples({"score": np.zeros((3, n))}) for n in (4, 1)]
    >>> Samples.concatenate(two).arrays["score"].shape
    (3, 5)
    """

    arrays: dict[str, Any]

    @staticmethod
    def concatenate(parts: Sequence["Samples"]) -> "Samples":
        """The samples of several batches as one, on the host."""
        return jax.tree.map(lambda *each: np.concatenate(each, axis=-1), *parts)

    @staticmethod
    def are_in(metric: Any) -> bool:
        """Whether a metric, such as a `Count`, holds samples."""
        leaves = jax.tree.leaves(metric, is_leaf=is_samples)
        return any(map(is_samples, leaves))


def is_samples(x: Any) -> bool:
    """Whether `x` is a `Samples`, for `is_leaf` of `jax.tree.map`."""
    return isinstance(x, Samples)
