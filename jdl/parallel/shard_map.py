"""The step as one device sees it, inside `jax.shard_map`: for those who write their collectives."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jdl.core.types import Batch, Key, Learner, TrainState
from jdl.parallel.mesh import batch_axis
from jdl.parallel.shard import batch_shardings, outermost


def shard_map(inner: Learner, mesh: Mesh) -> Learner:
    r"""Run `step` on each device with its part of the batch; all must return the same.

    The step is called as `inner.step(train, part, axis=name)` with the mesh's batch axis, over
    which it sums: $\nabla L = \sum_d g_d / \sum_d w_d$ for the gradient $g_d$ and the weight $w_d$
    of device d, one `jax.lax.psum`. Masks of dropout differ from device to device; batch
    statistics are those of a part unless BatchNorm is built with `axis_name`; running averages are
    averaged. Along the mesh's other axes all devices do the same. Evaluation and prediction run
    undivided.

    One trap for your own gradients: JAX knows in here which values are the same on all devices,
    and the gradient in such a parameter **is summed already**. A `pmean` or `psum` after it makes
    it too large, which Adam hides and SGD does not. Mark the parameters first, as
    `jdl.mean_gradient` does (`jax.lax.pcast(params, axis, to="varying")`), sum yourself, and
    compare with one device under SGD.

    >>> import jdl, optax
    >>> model = jdl.from_linen(jdl.models.MLP(features=(8,), outputs=1))
    >>> one = jdl.learner(jdl.regression(model), optax.sgd(0.1))
    >>> wide = jdl.jit(shard_map(one, jdl.mesh(data=len(jax.devices()))))
    """
    name = batch_axis(mesh)
    everywhere = NamedSharding(mesh, PartitionSpec())

    def over_devices(call: Callable[..., Any]) -> Any:
        """`call(state, part, axis=name)` on each device, which all return the same."""

        def on_device(state: TrainState, part: Batch) -> Any:
            return call(state, part, axis=name)

        # Compiled as one program, as jax.pmap is: outside jit each operation would be its own.
        mapped = jax.jit(
            jax.shard_map(
                on_device,
                mesh=mesh,
                in_specs=(PartitionSpec(), PartitionSpec(name)),
                out_specs=PartitionSpec(),
            )
        )

        def run(state: TrainState, batch: Batch) -> Any:
            batch_shardings(batch, mesh, name)  # which refuses a batch that does not divide
            return mapped(state, batch)

        return outermost("shard_map", run)

    def init(key: Key, batch: Batch) -> TrainState:
        # Where `step` leaves the state, so that the second step is not another program.
        return jax.lax.with_sharding_constraint(inner.init(key, batch), everywhere)

    return inner._replace(
        init=init,
        step=over_devices(inner.step),
        gradient=inner.gradient and over_devices(inner.gradient),
    )
