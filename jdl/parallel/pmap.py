"""The step with its collectives in plain sight: one program per device, sums over a named axis."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jdl.core import tree
from jdl.core.errors import error
from jdl.core.types import Batch, Key, Learner, TrainState
from jdl.parallel.shard import outermost


def pmap(inner: Learner, axis: str = "data", devices: int | None = None) -> Learner:
    """Run `step` on each device with its part of the batch, summing gradients over `axis`.

    Equal to `shard` with a replicated state, except that each device draws its own dropout mask,
    and that batch statistics are those of its part unless BatchNorm is built with
    `axis_name=axis`; running averages are averaged over the devices. `shard` is the main road (jax
    keeps `pmap` for those who know it); this is where to read what happens between devices, and
    `shard_map` where to write it. Evaluation and prediction run undivided.
    """
    count = jax.local_device_count() if devices is None else devices
    if not 1 <= count <= jax.local_device_count():
        raise error(
            "pmap devices",
            expected=f"1 to {jax.local_device_count()}, the devices of this process",
            got=str(count),
            fix="ask for fewer, or leave devices out to use them all",
        )
    here = jax.local_devices()[:count]
    everywhere = NamedSharding(
        Mesh(np.array(here), (axis,), axis_types=(AxisType.Auto,)), PartitionSpec()
    )

    def init(key: Key, batch: Batch) -> TrainState:
        # Where `step` leaves the state, so that the second step is not another program.
        return jax.lax.with_sharding_constraint(inner.init(key, batch), everywhere)

    def divided(batch: Batch) -> Batch:
        examples = tree.leading(batch)
        if examples % count:
            raise error(
                "batch_size",
                expected=f"a multiple of the {count} devices",
                got=str(examples),
                fix=f"use {max(count, examples - examples % count)}",
            )
        return jax.tree.map(lambda x: x.reshape(count, examples // count, *x.shape[1:]), batch)

    def over_devices(call: Callable[..., Any]) -> Any:
        """`call(state, part, axis=axis)` on each device, which all return the same."""

        def on_device(state: TrainState, part: Batch) -> Any:
            return call(state, part, axis=axis)

        mapped = jax.pmap(on_device, axis, in_axes=(None, 0), out_axes=None, devices=here)

        def run(state: TrainState, batch: Batch) -> Any:
            return mapped(state, divided(batch))

        return outermost("pmap", run)

    return inner._replace(
        init=init,
        step=over_devices(inner.step),
        gradient=inner.gradient and over_devices(inner.gradient),
    )
