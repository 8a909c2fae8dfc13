"""The step of one device inside `jax.shard_map`, for collectives that you write yourself."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jdl.core.nouns import check_learner
from jdl.core.types import Batch, Key, Learner, TrainState
from jdl.parallel.mesh import batch_axis, check_mesh
from jdl.parallel.shard import batch_shardings, outermost


def shard_map(inner: Learner, mesh: Mesh) -> Learner:
    r"""Run `step` on each device with its part of the batch, inside `jax.shard_map`.

    Arrays of shape `(batch, ...)` become parts of shape `(batch / devices, ...)` along the mesh's
    batch axis. `inner.step` is called as `step(state, part, axis=name)` with the name of this axis,
    and must return the same on every device. `jdl.learner` computes the gradient
    $\nabla L = \sum_d g_d / \sum_d w_d$ from the gradient $g_d$ and the weight $w_d$ of each device
    d with one `jax.lax.psum`. Each device draws its own dropout mask. It uses the batch statistics
    of its own part, unless BatchNorm is built with `axis_name`; running averages are averaged.
    Along other axes of the mesh all devices compute the same. Evaluation and prediction run on the
    whole batch.

    A trap if you differentiate yourself: inside `jax.shard_map` the gradient with respect to a
    replicated parameter is **summed over devices already**. A `pmean` or `psum` after it makes it
    too large, which Adam hides. First call `jax.lax.pcast(params, axis, to="varying")`, as
    `jdl.mean_gradient` does, then sum. Compare with one device under SGD.

    `step` raises `InputError` if the axis does not divide the batch, or if the learner stands
    inside another transform over devices.

    >>> import jdl, optax
    >>> model = jdl.from_functions(lambda key, x: {"w": 2.0}, lambda params, x: params["w"] * x)
    >>> learner = jdl.learner(jdl.regression(model), optax.sgd(0.1))
    >>> learner = jdl.jit(shard_map(learner, jdl.mesh(data=len(jax.devices()))))
    >>> batch = {"x": jax.numpy.ones((8, 1)), "y": jax.numpy.ones((8, 1))}
    >>> state, metrics = learner.step(learner.init(jax.random.key(0), batch), batch)
    >>> float(metrics["loss"].value)
    1.0
    """
    check_learner(inner, "shard_map: inner")
    check_mesh(mesh, "shard_map: mesh")
    name = batch_axis(mesh)
    replicated = NamedSharding(mesh, PartitionSpec())

    def over_devices(call: Callable[..., Any]) -> Any:
        """`call(state, part, axis=name)` on each device; all must return the same."""

        def on_device(state: TrainState, part: Batch) -> Any:
            return call(state, part, axis=name)

        # Under jit, as jax.pmap is: else each operation would be dispatched separately.
        mapped = jax.jit(
            jax.shard_map(
                on_device,
                mesh=mesh,
                in_specs=(PartitionSpec(), PartitionSpec(name)),
                out_specs=PartitionSpec(),
            )
        )

        def run(state: TrainState, batch: Batch) -> Any:
            batch_shardings(batch, mesh, name)  # raises if the axis does not divide the batch
            return mapped(state, batch)

        return outermost("shard_map", run)

    def init(key: Key, batch: Batch) -> TrainState:
        # The sharding that `step` returns, so that the second step does not recompile.
        return jax.lax.with_sharding_constraint(inner.init(key, batch), replicated)

    return inner._replace(
        init=init,
        step=over_devices(inner.step),
        gradient=inner.gradient and over_devices(inner.gradient),
        info=replace(inner.info, unsharded=inner),
    )
