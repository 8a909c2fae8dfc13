"""The same learner on many devices: jit and shardings, XLA adds the communication."""

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jdl.core import tree
from jdl.core.errors import InputError, error
from jdl.core.lowering import lowering_for
from jdl.core.types import Batch, Key, Learner, Metrics, PyTree, TrainState
from jdl.parallel.mesh import batch_axis
from jdl.parallel.rules import PathRule, Rule, axes_of, replicated


def shard(inner: Learner, mesh: Mesh, rule: Rule | None = None) -> Learner:
    """Place the state by `rule` and split the batch over the mesh's data axis.

    The maths is unchanged: the result is that of one device up to rounding, batch statistics and
    masks included. Under `jit` the state is born sharded; no device ever holds the whole.
    Evaluation and prediction split their batch too (prediction only where the axis divides it).
    It is the outermost transform: `shard(ema(l, 0.99), mesh)` averages on every device what that
    device holds, and `fit` adds its own sums and guard by itself.

    >>> import jdl, optax
    >>> model = jdl.from_linen(jdl.models.MLP(features=(8,), outputs=1))
    >>> one = jdl.learner(jdl.regression(model), optax.sgd(0.1))
    >>> wide = jdl.jit(shard(one, jdl.mesh(data=len(jax.devices())), jdl.rules.fsdp()))
    """
    rule = rule or replicated()
    axis = batch_axis(mesh)

    def placed(state: TrainState) -> TrainState:
        return jax.lax.with_sharding_constraint(state, shardings(state, mesh, rule))

    def split(batch: Batch) -> Batch:
        return jax.lax.with_sharding_constraint(batch, batch_shardings(batch, mesh, axis))

    def init(key: Key, batch: Batch) -> TrainState:
        return placed(inner.init(key, batch))

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        with lowering_for(batch_sharding=NamedSharding(mesh, PartitionSpec(axis))):
            after, metrics = inner.step(placed(state), split(batch))
        return placed(after), metrics

    def evaluate(state: TrainState, batch: Batch) -> Metrics:
        with lowering_for(batch_sharding=NamedSharding(mesh, PartitionSpec(axis))):
            return inner.evaluate(placed(state), split(batch))

    def predict(state: TrainState, batch: Batch) -> PyTree:
        even = tree.leading(batch) % mesh.shape[axis] == 0
        return inner.predict(placed(state), split(batch) if even else batch)

    def gradient(state: TrainState, batch: Batch) -> Any:
        with lowering_for(batch_sharding=NamedSharding(mesh, PartitionSpec(axis))):
            return inner.gradient(placed(state), split(batch))  # type: ignore

    return Learner(
        init,
        outermost("shard", step),
        evaluate,
        predict,
        inner.gradient and outermost("shard", gradient),
        replace(inner.info, unsharded=inner),
    )


def shardings(state: PyTree, mesh: Mesh, rule: Rule) -> PyTree:
    """The sharding of every leaf under a rule; what does not fit names the leaf or the pattern.

    What belongs to a parameter and has another shape, such as a factored moment or the count of
    an average, stays whole where the parameter's spec does not fit it.
    """
    leaves = tree.flatten(state)
    if isinstance(rule, PathRule):
        rule.check(leaves)
    params = {path: leaf.shape for path, leaf in tree.flatten(getattr(state, "params", {})).items()}

    def place(keys: Any, leaf: Any) -> NamedSharding:
        path, shape = tree.path(keys), leaf.shape
        spec = PartitionSpec() if tree.is_key(leaf) else rule(path, shape, mesh)
        if not (_are_known(spec, mesh) and _fits(shape, spec, mesh)):
            own = _parameter_shape(path, params)
            if own in (None, shape) or not _are_known(spec, mesh):
                raise _unfit(path, shape, spec, mesh)
            spec = PartitionSpec()
        return NamedSharding(mesh, spec)

    return jax.tree.map_with_path(place, state)


def _are_known(spec: PartitionSpec, mesh: Mesh) -> bool:
    """Whether a spec uses axes of the mesh, each at most once."""
    axes = axes_of(spec)
    return all(axis in mesh.shape and axes.count(axis) == 1 for axis in axes)


def _fits(shape: tuple[int, ...], spec: PartitionSpec, mesh: Mesh) -> bool:
    """Whether a leaf has the dimensions of a spec, and its axes divide them."""
    divided = zip(shape, spec, strict=False)
    return len(spec) <= len(shape) and all(
        size % prod(mesh.shape[axis] for axis in axes_of(PartitionSpec(names))) == 0
        for size, names in divided
    )


def _parameter_shape(path: str, params: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The shape of the parameter that a leaf belongs to by the end of its path, if to any."""
    words = path.split("/")
    names = ("/".join(words[first:]) for first in range(1, len(words)))
    return next((params[name] for name in names if name in params), None)


def _unfit(path: str, shape: tuple[int, ...], spec: PartitionSpec, mesh: Mesh) -> InputError:
    if _are_known(spec, mesh) and len(spec) > len(shape):
        return error(
            f"{path} {shape}",
            expected=f"a spec of at most {len(shape)} dimensions",
            got=str(spec),
            fix="make the pattern fit the leaves that are meant: end it with kernel$, for example",
        )
    return error(
        f"{path} {shape}",
        expected=f"axes of {dict(mesh.shape)} that divide its dimensions, each at most once",
        got=str(spec),
        fix="change the rule for this leaf or the mesh",
    )


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


def outermost(form: str, step: Any) -> Any:
    """The step of a form of running over devices, which cannot stand inside another."""

    def checked(state: TrainState, batch: Batch, *, axis: Any = None) -> Any:
        if axis is not None:
            raise error(
                form,
                expected="to be the outermost transform",
                got=f"axis={axis!r}",
                fix="use one of shard, shard_map and pmap, and no other inside it",
            )
        return step(state, batch)

    return checked
