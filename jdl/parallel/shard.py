"""The same learner on many devices: jit and shardings, XLA adds the communication."""

from math import prod
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jdl.core import tree
from jdl.core.check import error
from jdl.core.types import Batch, Key, Learner, Metrics, PyTree, TrainState
from jdl.parallel.rules import Rule, replicated


def shard(inner: Learner, mesh: Mesh, rule: Rule | None = None) -> Learner:
    """Place the state by `rule` and split the batch over the mesh's data axis.

    The maths is unchanged: the result is that of one device up to rounding, batch statistics and
    masks included. Under `jit` the state is born sharded; no device ever holds the whole.
    Evaluation and prediction split their batch too.

    >>> import jdl, optax
    >>> model = jdl.from_linen(jdl.models.MLP(features=(8,), outputs=1))
    >>> one = jdl.learner(jdl.regression(model), optax.sgd(0.1))
    >>> wide = jdl.jit(shard(one, jdl.mesh(data=len(jax.devices())), jdl.rules.fsdp()))
    """
    rule = rule or replicated()
    axis = batch_axis(mesh)

    def placed(train: TrainState) -> TrainState:
        return jax.lax.with_sharding_constraint(train, shardings(train, mesh, rule))

    def split(batch: Batch) -> Batch:
        return jax.lax.with_sharding_constraint(batch, batch_shardings(batch, mesh, axis))

    def init(key: Key, batch: Batch) -> TrainState:
        return placed(inner.init(key, batch))

    def step(train: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        after, metrics = inner.step(placed(train), split(batch))
        return placed(after), metrics

    def evaluate(train: TrainState, batch: Batch) -> Metrics:
        return inner.evaluate(placed(train), split(batch))

    def predict(train: TrainState, batch: Batch) -> PyTree:
        return inner.predict(placed(train), batch)

    return Learner(init, _refuse_axis(step), evaluate, predict)


def batch_axis(mesh: Mesh) -> str:
    """The axis that splits the batch: `data`, or the first where none is called so."""
    return "data" if "data" in mesh.axis_names else mesh.axis_names[0]


def shardings(train: PyTree, mesh: Mesh, rule: Rule) -> PyTree:
    """The sharding of every leaf under a rule; a spec that does not fit names the leaf."""

    def place(keys: Any, leaf: Any) -> NamedSharding:
        path, shape = tree.path(keys), leaf.shape
        spec = PartitionSpec() if tree.is_key(leaf) else rule(path, shape, mesh)
        for size, names in zip(shape, spec, strict=False):
            axes = (names,) if isinstance(names, str) else names or ()
            if any(a not in mesh.shape for a in axes) or size % prod(mesh.shape[a] for a in axes):
                raise error(
                    f"{path} {shape}",
                    expected=f"axes of {dict(mesh.shape)} that divide its dimensions",
                    got=str(spec),
                    fix="change the rule for this leaf or the mesh",
                )
        if len(spec) > len(shape):
            spec = PartitionSpec()
        return NamedSharding(mesh, spec)

    return jax.tree.map_with_path(place, train)


def batch_shardings(batch: Batch, mesh: Mesh, axis: str) -> PyTree:
    """The leading axis of every array split over `axis`."""
    size, examples = mesh.shape[axis], tree.leading(batch)
    if examples % size:
        raise error(
            "batch_size",
            expected=f"a multiple of the {size} places on mesh axis {axis!r}",
            got=str(examples),
            fix=f"use {max(size, examples - examples % size)}",
        )
    sharding = NamedSharding(mesh, PartitionSpec(axis))
    return jax.tree.map(lambda _: sharding, batch)


def _refuse_axis(step: Any) -> Any:
    def checked(train: TrainState, batch: Batch, *, axis: Any = None) -> Any:
        if axis is not None:
            raise error(
                "shard",
                expected="to be the outermost transform",
                got=f"axis={axis!r}",
                fix="use either pmap or shard, not one inside the other",
            )
        return step(train, batch)

    return checked
