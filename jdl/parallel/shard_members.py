"""The members of an ensemble or a sweep, split over devices."""

from dataclasses import replace
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jdl.core import tree
from jdl.core.errors import did_you_mean, error
from jdl.core.nouns import check_learner
from jdl.core.types import Batch, Key, Learner, Metrics, PyTree, TrainState
from jdl.parallel.mesh import check_mesh
from jdl.parallel.shard import batch_shardings, outermost


def shard_members(inner: Learner, mesh: Mesh, axis: str = "members") -> Learner:
    """Split the members of an `ensemble` or a `sweep` over the mesh axis `axis`.

    Every member sees the whole batch. Leaves of shape `(members, ...)` are split on their leading
    axis. Members are independent, so devices do not communicate, except to order the metrics of a
    sweep that has several programs. The result is that of one device up to rounding. If the mesh
    also has an axis `data`, the batch is split over it, as `shard` does.

    Raises `InputError` if the mesh has no such axis, if the learner has no members, or if the axis
    does not divide them.

    >>> import jdl, optax
    >>> model = jdl.from_functions(lambda key, x: {"w": 2.0}, lambda params, x: params["w"] * x)
    >>> learner = jdl.ensemble(jdl.learner(jdl.regression(model), optax.sgd(0.1)), 16)
    >>> learner = jdl.jit(shard_members(learner, jdl.mesh(members=len(jax.devices()))))
    >>> batch = {"x": jax.numpy.ones((4, 1)), "y": jax.numpy.ones((4, 1))}
    >>> tuple(learner.init(jax.random.key(0), batch).params["w"].sharding.spec)
    ('members',)
    """
    check_learner(inner, "shard_members: inner")
    check_mesh(mesh, "shard_members: mesh")
    if axis not in mesh.shape:
        raise error(
            f"shard_members(axis={axis!r})",
            expected=f"an axis of the mesh {dict(mesh.shape)}",
            got=repr(axis),
            fix=f"{did_you_mean(axis, mesh.axis_names)}, or use a mesh such as jdl.mesh({axis}=8)",
        )

    def constrain(state: TrainState) -> TrainState:
        if not state.members:
            raise error(
                "shard_members",
                expected="a learner with members, from jdl.ensemble or jdl.sweep",
                got="a learner without members",
                fix="use jdl.shard, which splits the batch",
            )
        return jax.lax.with_sharding_constraint(state, member_shardings(state, mesh, axis))

    def split(batch: Batch) -> Batch:
        replicated = NamedSharding(mesh, PartitionSpec())
        sharding = batch_shardings(batch, mesh, "data") if "data" in mesh.shape else replicated
        return jax.lax.with_sharding_constraint(batch, sharding)

    def init(key: Key, batch: Batch) -> TrainState:
        return constrain(inner.init(key, batch))

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        after, metrics = inner.step(constrain(state), split(batch))
        return constrain(after), metrics

    def evaluate(state: TrainState, batch: Batch) -> Metrics:
        return inner.evaluate(constrain(state), split(batch))

    def predict(state: TrainState, batch: Batch) -> PyTree:
        return inner.predict(constrain(state), batch)

    def gradient(state: TrainState, batch: Batch) -> Any:
        return inner.gradient(constrain(state), split(batch))  # type: ignore

    return Learner(
        init,
        outermost("shard_members", step),
        evaluate,
        predict,
        inner.gradient and outermost("shard_members", gradient),
        replace(inner.info, unsharded=inner),
    )


def member_shardings(state: PyTree, mesh: Mesh, axis: str) -> PyTree:
    """The sharding of every leaf: the leading axis over `axis`; scalars (`step`) replicated."""
    devices = mesh.shape[axis]

    def place(keys: Any, leaf: Any) -> NamedSharding:
        if leaf.ndim and leaf.shape[0] % devices:
            raise error(
                f"members of {tree.path(keys)}",
                expected=f"a multiple of {devices}, the size of mesh axis {axis!r}",
                got=str(leaf.shape[0]),
                fix="change the number of members (in a sweep: of each of its programs), "
                "or the mesh",
            )
        return NamedSharding(mesh, PartitionSpec(axis) if leaf.ndim else PartitionSpec())

    return jax.tree.map_with_path(place, state)
