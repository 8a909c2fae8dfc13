"""What a step needs of each device, found by compiling it and not by running it.

Nothing is allocated: parameters, moments and batch are shapes with shardings. The devices need not
be there (`jdl.parallel.topology`).
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
    """What the compiler says of the memory of one device, in bytes."""

    arguments: int
    outputs: int
    aliased: int
    """Of the outputs, what takes the place of arguments."""
    temporaries: int
    """Activations, gradients, and whatever else a step writes down and throws away."""
    code: int

    @property
    def needed(self) -> int:
        """The memory of one device that a step takes."""
        return self.arguments + self.outputs - self.aliased + self.temporaries + self.code


@dataclass(frozen=True)
class MemoryEstimate:
    """A step on a mesh of devices, before there is one."""

    target: str
    mesh: dict[str, int]
    batch: dict[str, tuple[int, ...]]
    state: TrainState
    """The shapes of the state with the sharding of every leaf."""
    held: dict[str, int]
    """Bytes on one device: parameters, optimizer, model state, averages, batch, data set."""
    compiled: Compiled | None
    """None where the compiler refused."""
    refusal: str | None
    refused_at: int | None
    """Bytes of one device that the compiler says the program would take, where it refused."""
    memory: int | None
    """Bytes that one device has."""
    collectives: tuple[Collective, ...]
    flops: Flops
    """Of one step, of all devices together."""
    seconds: dict[str, float]
    """Clock time of tracing and of compiling."""

    @property
    def needed(self) -> int | None:
        """Bytes of one device; None where neither the compiler's account nor its refusal say."""
        if self.compiled is None:
            return self.refused_at
        return self.compiled.needed + self.held["data set"]

    @property
    def fits(self) -> bool | None:
        """Whether the step fits; None where the memory of a device is not known."""
        if self.compiled is None:
            return False
        return None if self.memory is None else (self.needed or 0) <= self.memory

    @property
    def parameters(self) -> int:
        """Number of parameters, of all devices together."""
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
    """Compile `learner.step` for a target, and account for the memory of one device.

    `learner` is one that `shard` put on `mesh` with `rule`, or without a mesh any; `batch` is
    arrays or shapes. `memory` bytes a device has, where that is not the target's own. `data_set`
    bytes lie on each device beside the step.
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
    compiled, refusal, at = _compile(lowered)
    compiled_at = clock()
    return MemoryEstimate(
        target.name,
        dict(mesh.shape) if mesh is not None else {},
        {path: leaf.shape for path, leaf in tree.flatten(shapes).items()},
        state,
        _held(state, shapes, data_set),
        _memory(compiled),
        refusal,
        at,
        target.memory if memory is None else memory,
        collectives(compiled.as_text()) if compiled is not None else (),
        of_jaxpr(traced.jaxpr),
        {"trace": traced_at - began, "compile": compiled_at - traced_at},
    )


def sharded_shapes(
    learner: Learner, batch: Batch, target: Target, mesh: Mesh | None, rule: Rule | None
) -> tuple[TrainState, PyTree]:
    """The shapes of state and batch, each with its sharding; no array is made."""
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(x.dtype)), dict(batch)
    )
    key = tree.any_key()
    state = jax.eval_shape(learner.init, key, shapes)
    if mesh is None:
        here = SingleDeviceSharding(target.devices[0])
        return jax.tree.map(lambda x: _at(x, here), state), jax.tree.map(
            lambda x: _at(x, here), shapes
        )
    places = shardings(state, mesh, rule or replicated())
    split = batch_shardings(shapes, mesh, batch_axis(mesh))
    return jax.tree.map(_at, state, places), jax.tree.map(_at, shapes, split)


def _held(state: TrainState, shapes: PyTree, data_set: int) -> dict[str, int]:
    held = dict.fromkeys(STATE_GROUPS.values(), 0)
    for path, leaf in tree.flatten(state).items():
        held[STATE_GROUPS[path.partition("/")[0]]] += local_bytes(leaf)
    held["batch"] = sum(map(local_bytes, jax.tree.leaves(shapes)))
    held["data set"] = data_set
    return held


def _at(x: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def local_bytes(leaf: Any) -> int:
    """Bytes of one device that a shape with a sharding takes."""
    count = prod(leaf.sharding.shard_shape(leaf.shape))
    if tree.is_key(leaf):
        data = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct((), leaf.dtype))
        return count * data.size * data.dtype.itemsize
    return count * leaf.dtype.itemsize


def _compile(lowered: Any) -> tuple[Any, str | None, int | None]:
    """The compiled program, or why there is none and how much memory it would take."""
    try:
        return lowered.compile(), None, None
    except jax.errors.JaxRuntimeError as refusal:
        text = str(refusal)
        if "RESOURCE_EXHAUSTED" not in text and "out of memory" not in text.lower():
            raise
        return None, text.splitlines()[0], refused_bytes(text)


def refused_bytes(text: str) -> int | None:
    """The bytes that a compiler's refusal speaks of.

    >>> refused_bytes("HLO temporaries (98.77G) exceeds available HBM (15.75G)") // 2**20
    101140
    >>> refused_bytes("Used 20.50G of 15.75G hbm. Exceeded hbm capacity by 4.75G.") // 2**20
    20992
    """
    found = re.search(r"temporaries \(([\d.]+)([KMGT])\) exceeds", text)
    found = found or re.search(r"Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm", text)
    if found is None:
        return None
    return round(float(found[1]) * GIB * 1024 ** ("KMGT".index(found[2]) - 2))


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
