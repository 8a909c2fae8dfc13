"""The memory that a step needs on each device, found by compiling it without running it.

Nothing is allocated: parameters, moments and batch are shapes with shardings. The devices need not
exist here (see `jdl.parallel.topology`).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, SingleDeviceSharding

from jdl.core import tree
from jdl.core.flops import Flops, of_jaxpr
from jdl.core.lowering import lowering_for
from jdl.core.types import Batch, Learner, PyTree, TrainState
from jdl.parallel.hlo import Collective, collectives
from jdl.parallel.mesh import batch_axis
from jdl.parallel.rules import Rule, replicated
from jdl.parallel.shard import batch_shardings, shardings
from jdl.parallel.topology import GIB, Target

STATE_GROUPS = {
    "params": "parameters",
    "opt_state": "optimizer",
    "model_state": "model state",
    "extra": "averages and sums",
    "step": "averages and sums",
    "key": "averages and sums",
}


class Compiled(NamedTuple):
    """The compiler's analysis of the memory of one device, in bytes."""

    arguments: int
    outputs: int
    aliased: int
    """Outputs that reuse the memory of donated arguments."""
    temporaries: int
    """Activations, gradients and other intermediate values."""
    code: int

    @property
    def needed(self) -> int:
        """Bytes that a step needs on one device."""
        return self.arguments + self.outputs - self.aliased + self.temporaries + self.code


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory, communication and FLOPs of a step on a mesh."""

    target: str
    mesh: dict[str, int]
    batch: dict[str, tuple[int, ...]]
    state: TrainState
    """The shapes of the state, with shardings."""
    held: dict[str, int]
    """Bytes on one device of parameters, optimizer, model state, averages, batch and data set."""
    compiled: Compiled | None
    """None if the compiler ran out of device memory."""
    refusal: str | None
    """The first line of the compiler's out-of-memory error."""
    refused_at: int | None
    """Bytes on one device that the program would need according to that error."""
    memory: int | None
    """Bytes of memory of one device; None if unknown."""
    collectives: tuple[Collective, ...]
    flops: Flops
    """FLOPs of one step on all devices together."""
    seconds: dict[str, float]
    """Clock time of tracing and compiling."""

    @property
    def needed(self) -> int | None:
        """Bytes that a step needs on one device; None if the compiler does not report them."""
        if self.compiled is None:
            return self.refused_at
        return self.compiled.needed + self.held["data set"]

    @property
    def fits(self) -> bool | None:
        """Whether the step fits; None if the memory of a device is unknown."""
        if self.compiled is None:
            return False
        return None if self.memory is None else (self.needed or 0) <= self.memory

    @property
    def parameters(self) -> int:
        """Number of parameters on all devices together."""
        return tree.count(self.state.params)


def estimate(
    learner: Learner,
    batch: Batch,
    target: Target,
    mesh: Mesh | None = None,
    rule: Rule | None = None,
    *,
    memory: int | None = None,
    data_set: int = 0,
    clock: Callable[[], float] = lambda: 0.0,
) -> MemoryEstimate:
    """Compile `learner.step` for a target, and analyse the memory of one device.

    With a mesh, `learner` is the result of `shard(..., mesh, rule)`. `batch` holds arrays or shapes
    `(batch, ...)`. `memory`, in bytes, replaces the memory of the target's devices. `data_set` is
    the size in bytes of a data set that is also on each device.
    """
    state, shapes = sharded_shapes(learner, batch, target, mesh, rule)
    began = clock()
    with lowering_for(platform=target.platform, single_step=True):
        pinned = jax.tree.map(lambda x: x.sharding, state)
        step = jax.jit(
            learner.step, static_argnames="axis", donate_argnums=0, out_shardings=(pinned, None)
        )
        traced = step.trace(state, shapes)
        lowered = traced.lower()
    traced_at = clock()
    compiled, refusal, refused_at = _compile(lowered)
    compiled_at = clock()
    return MemoryEstimate(
        target.name,
        dict(mesh.shape) if mesh is not None else {},
        {path: leaf.shape for path, leaf in tree.flatten(shapes).items()},
        state,
        _held(state, shapes, data_set),
        _memory(compiled),
        refusal,
        refused_at,
        target.memory if memory is None else memory,
        collectives(compiled.as_text()) if compiled is not None else (),
        of_jaxpr(traced.jaxpr),
        {"trace": traced_at - began, "compile": compiled_at - traced_at},
    )


def sharded_shapes(
    learner: Learner, batch: Batch, target: Target, mesh: Mesh | None, rule: Rule | None
) -> tuple[TrainState, PyTree]:
    """The shapes of state and batch with shardings, without allocating arrays."""
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(x.dtype)), dict(batch)
    )
    key = tree.any_key()
    state = jax.eval_shape(learner.init, key, shapes)
    if mesh is None:
        single = SingleDeviceSharding(target.devices[0])
        on_one = lambda leaves: jax.tree.map(lambda x: _with_sharding(x, single), leaves)
        return on_one(state), on_one(shapes)
    state_shardings = shardings(state, mesh, rule or replicated())
    split = batch_shardings(shapes, mesh, batch_axis(mesh))
    return (
        jax.tree.map(_with_sharding, state, state_shardings),
        jax.tree.map(_with_sharding, shapes, split),
    )


def _held(state: TrainState, shapes: PyTree, data_set: int) -> dict[str, int]:
    held = dict.fromkeys(STATE_GROUPS.values(), 0)
    for path, leaf in tree.flatten(state).items():
        held[STATE_GROUPS[path.partition("/")[0]]] += local_bytes(leaf)
    held["batch"] = sum(map(local_bytes, jax.tree.leaves(shapes)))
    held["data set"] = data_set
    return held


def _with_sharding(x: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def local_bytes(leaf: Any) -> int:
    """Bytes on one device of a shape with a sharding."""
    count = prod(leaf.sharding.shard_shape(leaf.shape))
    if tree.is_key(leaf):
        data = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct((), leaf.dtype))
        return count * data.size * data.dtype.itemsize
    return count * leaf.dtype.itemsize


def _compile(lowered: Any) -> tuple[Any, str | None, int | None]:
    """The compiled program; or None, the out-of-memory error, and the bytes it would need."""
    try:
        return lowered.compile(), None, None
    except jax.errors.JaxRuntimeError as refusal:
        text = str(refusal)
        if "RESOURCE_EXHAUSTED" not in text and "out of memory" not in text.lower():
            raise
        return None, text.splitlines()[0], refused_bytes(text)


def refused_bytes(text: str) -> int | None:
    """The bytes that a program needs, from the compiler's out-of-memory error.

    >>> refused_bytes("HLO temporaries (98.77G) exceeds available HBM (15.75G)") // 2**20
    101140
    >>> refused_bytes("Used 20.50G of 15.75G hbm. Exceeded hbm capacity by 4.75G.") // 2**20
    20992
    """
    match = re.search(r"temporaries \(([\d.]+)([KMGT])\) exceeds", text)
    match = match or re.search(r"Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm", text)
    if match is None:
        return None
    return round(float(match[1]) * GIB * 1024 ** ("KMGT".index(match[2]) - 2))


def _memory(compiled: Any) -> Compiled | None:
    if compiled is None:
        return None
    stats = compiled.memory_analysis()
    return Compiled(
        stats.argument_size_in_bytes,
        stats.output_size_in_bytes,
        stats.alias_size_in_bytes,
        stats.temp_size_in_bytes,
        stats.generated_code_size_in_bytes,
    )
