"""A learner on many devices with jit and shardings; XLA adds the communication."""

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jdl.core import tree
from jdl.core.errors import InputError, error
from jdl.core.lowering import lowering_for
from jdl.core.nouns import check_learner
from jdl.core.types import Batch, Key, Learner, Metrics, PyTree, TrainState
from jdl.parallel.mesh import batch_axis, check_mesh
from jdl.parallel.rules import PathRule, Rule, axes_of, check_rule, replicated


def shard(inner: Learner, mesh: Mesh, rule: Rule | None = None) -> Learner:
    """Train on a mesh: shard the state by `rule`, and split the batch over the batch axis.

    The batch axis is `data`, or the first axis of the mesh. `rule` (see `jdl.rules`) is
    `replicated()` by default. The result is that of one device up to rounding, including batch
    statistics and dropout masks. Under `jit`, `init` computes the state sharded, so no device ever
    holds all of it. Evaluation splits its batch too, and so does prediction if the axis divides the
    batch.

    Apply it outside all other transforms: `shard(ema(learner, 0.99), mesh)`.

    Raises `InputError`, when a function of the learner is called, if the axis does not divide the
    batch, if the rule does not fit a leaf's shape or the mesh, or inside another transform over
    devices.

    >>> import jdl, optax
    >>> model = jdl.from_functions(
    ...     lambda key, x: {"w": jax.numpy.ones((8, 128))}, lambda params, x: x @ params["w"]
    ... )
    >>> learner = jdl.learner(jdl.regression(model), optax.sgd(0.1))
    >>> learner = jdl.jit(shard(learner, jdl.mesh(data=len(jax.devices())), jdl.rules.fsdp()))
    >>> batch = {"x": jax.numpy.ones((8, 8)), "y": jax.numpy.ones((8, 128))}
    >>> tuple(learner.init(jax.random.key(0), batch).params["w"].sharding.spec)
    (None, 'data')
    """
    check_learner(inner, "shard: inner")
    check_mesh(mesh, "shard: mesh")
    rule = rule or replicated()
    check_rule(rule, "shard: rule")
    axis = batch_axis(mesh)

    def constrain(state: TrainState) -> TrainState:
        return jax.lax.with_sharding_constraint(state, shardings(state, mesh, rule))

    def split(batch: Batch) -> Batch:
        return jax.lax.with_sharding_constraint(batch, batch_shardings(batch, mesh, axis))

    def init(key: Key, batch: Batch) -> TrainState:
        return constrain(inner.init(key, batch))

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        with lowering_for(batch_sharding=NamedSharding(mesh, PartitionSpec(axis))):
            after, metrics = inner.step(constrain(state), split(batch))
        return constrain(after), metrics

    def evaluate(state: TrainState, batch: Batch) -> Metrics:
        with lowering_for(batch_sharding=NamedSharding(mesh, PartitionSpec(axis))):
            return inner.evaluate(constrain(state), split(batch))

    def predict(state: TrainState, batch: Batch) -> PyTree:
        even = tree.leading(batch) % mesh.shape[axis] == 0
        return inner.predict(constrain(state), split(batch) if even else batch)

    def gradient(state: TrainState, batch: Batch) -> Any:
        with lowering_for(batch_sharding=NamedSharding(mesh, PartitionSpec(axis))):
            return inner.gradient(constrain(state), split(batch))  # type: ignore

    return Learner(
        init,
        outermost("shard", step),
        evaluate,
        predict,
        inner.gradient and outermost("shard", gradient),
        replace(inner.info, unsharded=inner),
    )


def shardings(state: PyTree, mesh: Mesh, rule: Rule) -> PyTree:
    """The sharding of every leaf under a rule.

    A leaf that belongs to a parameter but has another shape, such as a factored moment or the count
    of an average, is replicated if the parameter's spec does not fit it.

    Raises `InputError` for a spec that does not fit a leaf, or a pattern that matches none.
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
                raise _spec_error(path, shape, spec, mesh)
            spec = PartitionSpec()
        return NamedSharding(mesh, spec)

    return jax.tree.map_with_path(place, state)


def _are_known(spec: PartitionSpec, mesh: Mesh) -> bool:
    """Whether all axes of a spec are in the mesh, each at most once."""
    axes = axes_of(spec)
    return all(axis in mesh.shape and axes.count(axis) == 1 for axis in axes)


def _fits(shape: tuple[int, ...], spec: PartitionSpec, mesh: Mesh) -> bool:
    """Whether a leaf has the dimensions of a spec, and the axes divide their sizes."""
    divided = zip(shape, spec, strict=False)
    return len(spec) <= len(shape) and all(
        size % prod(mesh.shape[axis] for axis in axes_of(PartitionSpec(names))) == 0
        for size, names in divided
    )


def _parameter_shape(path: str, params: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The shape of the parameter whose path is the end of a leaf's path, if there is one."""
    parts = path.split("/")
    names = ("/".join(parts[first:]) for first in range(1, len(parts)))
    return next((params[name] for name in names if name in params), None)


def _spec_error(path: str, shape: tuple[int, ...], spec: PartitionSpec, mesh: Mesh) -> InputError:
    if _are_known(spec, mesh) and len(spec) > len(shape):
        return error(
            f"{path} {shape}",
            expected=f"a spec of at most {len(shape)} dimensions",
            got=str(spec),
            fix="make the pattern match fewer leaves: end it with kernel$, for example",
        )
    return error(
        f"{path} {shape}",
        expected=f"axes of the mesh {dict(mesh.shape)} that divide the leaf's dimensions, "
        "each at most once",
        got=str(spec),
        fix="change the rule for this leaf, or the mesh",
    )


def batch_shardings(batch: Batch, mesh: Mesh, axis: str) -> PyTree:
    """The sharding of every array of a batch: its leading axis over `axis`."""
    size, examples = mesh.shape[axis], tree.leading(batch)
    if examples % size:
        raise error(
            "batch_size",
            expected=f"a multiple of {size}, the size of mesh axis {axis!r}",
            got=str(examples),
            fix=f"use batch_size={max(size, examples - examples % size)}",
        )
    sharding = NamedSharding(mesh, PartitionSpec(axis))
    return jax.tree.map(lambda _: sharding, batch)


def outermost(transform: str, step: Any) -> Any:
    """`step` of a transform over devices, which raises inside another one."""

    def checked(state: TrainState, batch: Batch, *, axis: Any = None) -> Any:
        if axis is not None:
            raise error(
                transform,
                expected="to be the only transform over devices, and the outermost one",
                got=f"a call with axis={axis!r} from another one",
                fix="use only one of shard, shard_members, shard_map and pmap",
            )
        return step(state, batch)

    return checked
