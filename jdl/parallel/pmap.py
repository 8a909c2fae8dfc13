"""Data parallelism with explicit collectives: one program per device, sums over a named axis."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jdl.core import tree
from jdl.core.errors import error
from jdl.core.nouns import check_learner
from jdl.core.types import Batch, Key, Learner, TrainState
from jdl.parallel.shard import outermost


def pmap(inner: Learner, axis: str = "data", devices: int | None = None) -> Learner:
    """Run `step` on each device with its part of the batch, and sum gradients over `axis`.

    Each device gets batch / devices examples, so arrays of shape `(batch, ...)` become `(devices,
    batch / devices, ...)`. `inner.step` is called as `step(state, part, axis=axis)` and computes
    its collectives itself. Results are those of `shard` with a replicated state, with two
    exceptions. Each device draws its own dropout mask. Each device uses the batch statistics of its
    own part, unless BatchNorm is built with `axis_name=axis`; running averages are averaged over
    devices. Evaluation and prediction run on the whole batch.

    Prefer `shard`; JAX keeps `pmap` in maintenance mode. To write collectives of your own, use
    `shard_map`.

    Raises `InputError` if there are fewer than `devices` local devices; in `step` if the devices do
    not divide the batch, or if the learner stands inside another transform over devices.

    >>> import jdl, optax
    >>> model = jdl.from_functions(lambda key, x: {"w": 2.0}, lambda params, x: params["w"] * x)
    >>> learner = pmap(jdl.learner(jdl.regression(model), optax.sgd(0.1)), devices=1)
    >>> batch = {"x": np.ones((4, 1), np.float32), "y": np.ones((4, 1), np.float32)}
    >>> state, metrics = learner.step(learner.init(jax.random.key(0), batch), batch)
    >>> float(metrics["loss"].value)
    1.0
    """
    check_learner(inner, "pmap: inner")
    count = jax.local_device_count() if devices is None else devices
    if not 1 <= count <= jax.local_device_count():
        raise error(
            "pmap(devices=...)",
            expected=f"from 1 to {jax.local_device_count()}, the number of local devices",
            got=str(count),
            fix="pass a smaller number, or leave devices out to use all local devices",
        )
    local_devices = jax.local_devices()[:count]
    replicated = NamedSharding(
        Mesh(np.array(local_devices), (axis,), axis_types=(AxisType.Auto,)), PartitionSpec()
    )

    def init(key: Key, batch: Batch) -> TrainState:
        # The sharding that `step` returns, so that the second step does not recompile.
        return jax.lax.with_sharding_constraint(inner.init(key, batch), replicated)

    def split(batch: Batch) -> Batch:
        examples = tree.leading(batch)
        if examples % count:
            raise error(
                "batch_size",
                expected=f"a multiple of the {count} devices",
                got=str(examples),
                fix=f"use batch_size={max(count, examples - examples % count)}",
            )
        return jax.tree.map(lambda x: x.reshape(count, examples // count, *x.shape[1:]), batch)

    def over_devices(call: Callable[..., Any]) -> Any:
        """`call(state, part, axis=axis)` on each device; all must return the same."""

        def on_device(state: TrainState, part: Batch) -> Any:
            return call(state, part, axis=axis)

        mapped = jax.pmap(on_device, axis, in_axes=(None, 0), out_axes=None, devices=local_devices)

        def run(state: TrainState, batch: Batch) -> Any:
            return mapped(state, split(batch))

        return outermost("pmap", run)

    return inner._replace(
        init=init,
        step=over_devices(inner.step),
        gradient=inner.gradient and over_devices(inner.gradient),
        info=replace(inner.info, unsharded=inner),
    )
