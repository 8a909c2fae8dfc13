"""The members of an ensemble or of a sweep on many devices, each with its own share of them."""

from dataclasses import replace
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jdl.core import tree
from jdl.core.errors import did_you_mean, error
from jdl.core.types import Batch, Key, Learner, Metrics, PyTree, TrainState
from jdl.parallel.shard import batch_shardings, outermost


def shard_members(inner: Learner, mesh: Mesh, axis: str = "members") -> Learner:
    """Split the members of an `ensemble` or a `sweep` over a mesh axis; all see the whole batch.

    Members know nothing of each other, so devices say nothing to each other, except that a sweep
    of several programs puts its few numbers in order. The result is that of one device up to
    rounding. A mesh with an axis called `data` too splits the batch over it, as `shard` does.
    Raises `InputError` where there are no members, or the axis does not divide them.

    >>> import jdl, optax
    >>> model = jdl.from_linen(jdl.models.MLP(features=(8,), outputs=1))
    >>> many = jdl.ensemble(jdl.learner(jdl.regression(model), optax.sgd(0.1)), 16)
    >>> wide = jdl.jit(shard_members(many, jdl.mesh(members=len(jax.devices()))))
    """
    if axis not in mesh.shape:
        raise error(
            f"shard_members(axis={axis!r})",
            expected=f"an axis of the mesh {dict(mesh.shape)}",
            got=repr(axis),
            fix=f"{did_you_mean(axis, mesh.axis_names)}, or make one: jdl.mesh({axis}=8)",
        )

    def placed(state: TrainState) -> TrainState:
        if not state.members:
            raise error(
                "shard_members",
                expected="a learner with members, of jdl.ensemble or jdl.sweep",
                got="one without",
                fix="use jdl.shard, which splits the batch",
            )
        return jax.lax.with_sharding_constraint(state, member_shardings(state, mesh, axis))

    def split(batch: Batch) -> Batch:
        whole = NamedSharding(mesh, PartitionSpec())
        where = batch_shardings(batch, mesh, "data") if "data" in mesh.shape else whole
        return jax.lax.with_sharding_constraint(batch, where)

    def init(key: Key, batch: Batch) -> TrainState:
        return placed(inner.init(key, batch))

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        after, metrics = inner.step(placed(state), split(batch))
        return placed(after), metrics

    def evaluate(state: TrainState, batch: Batch) -> Metrics:
        return inner.evaluate(placed(state), split(batch))

    def predict(state: TrainState, batch: Batch) -> PyTree:
        return inner.predict(placed(state), batch)

    def gradient(state: TrainState, batch: Batch) -> Any:
        return inner.gradient(placed(state), split(batch))  # type: ignore

    return Learner(
        init,
        outermost("shard_members", step),
        evaluate,
        predict,
        inner.gradient and outermost("shard_members", gradient),
        replace(inner.info, unsharded=inner),
    )


def member_shardings(state: PyTree, mesh: Mesh, axis: str) -> PyTree:
    """The sharding of every leaf: its leading axis over `axis`; `step`, which all share, whole."""
    devices = mesh.shape[axis]

    def place(keys: Any, leaf: Any) -> NamedSharding:
        if leaf.ndim and leaf.shape[0] % devices:
            raise error(
                f"members of {tree.path(keys)}",
                expected=f"a multiple of the {devices} places on mesh axis {axis!r}",
                got=str(leaf.shape[0]),
                fix="train more or fewer members (of a sweep: in each of its programs), "
                "or make another mesh",
            )
        return NamedSharding(mesh, PartitionSpec(axis) if leaf.ndim else PartitionSpec())

    return jax.tree.map_with_path(place, state)
