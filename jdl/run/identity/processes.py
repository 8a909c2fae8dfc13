"""Whether the processes of one run hold the same: data, program, weights.

What each process makes for itself may differ without a fault in any of them: an old copy of a file,
the order of a `set`, a generator without a seed. Training on it would go on in silence. With one
process these functions do nothing.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jdl.core import tree
from jdl.core.types import Learner, PyTree, TrainState
from jdl.data.feed import Feed, evaluation_batches
from jdl.run.distributed.collectives import check_consistent, is_multiprocess
from jdl.run.identity.data import describe_array
from jdl.run.identity.fingerprint import without_mesh
from jdl.run.identity.program import Program, describe
from jdl.run.named_sets import join, sets_of
from jdl.run.storage.leaf_io import is_distributed

if TYPE_CHECKING:
    from jdl.run.setup import TrainingSetup

SAME_CONTENT = (
    "build the same in every process: read the same files, sort sets and directory listings, and "
    "seed every generator of random numbers"
)

FLAGS = (
    *("jax_enable_x64", "jax_default_prng_impl", "jax_threefry_partitionable"),
    *("jax_disable_jit", "jax_debug_nans"),
)
"""Flags of JAX that change what a trace computes."""


def check_same_start(setup: "TrainingSetup", start: Any) -> None:
    """Raise `InputError` in every process if data, program or `start` differ in one.

    Nothing has been compiled before: processes with other programs would wait for each other.
    """
    if is_multiprocess():
        check_consistent(describe_start(setup, start), "data and program", SAME_CONTENT)


def check_same_state(state: TrainState) -> None:
    """Raise `InputError` in every process if a leaf of the first state differs in one."""
    if is_multiprocess():
        check_consistent(describe_values(state), "first state", SAME_CONTENT)


def check_same_data(data: Mapping[str, Any], name: str) -> None:
    """Raise `InputError` in every process if an array differs in one."""
    if is_multiprocess():
        found = {entry: _shown(describe_array(value)) for entry, value in data.items()}
        check_consistent(found, name, SAME_CONTENT)


def describe_start(setup: "TrainingSetup", start: Any = None) -> dict[str, Any]:
    """What decides the run, as text and numbers by name: its data, flags, program and `start`."""
    taken = setup.fingerprint
    programs = dict(taken.programs)
    for name, data in sets_of(setup.valid).items() if programs else ():
        programs[join(name, "evaluate")] = _evaluation(setup.inner, setup.feed, data)
    return {
        "data": {name: _shown(found) for name, found in taken.data.items()},
        "versions": taken.record()["versions"],
        "flags": {name: str(getattr(jax.config, name)) for name in FLAGS},
        "state": dict(taken.state),
        "program": {name: program.structure[:12] for name, program in programs.items()},
        "constants": {name: _constants(program) for name, program in programs.items()},
        "start": None if start is None else describe_values(start),
    }


def describe_values(state: PyTree) -> dict[str, Any]:
    """Type, shape and hash of each leaf by its path; without hash where it lies in many processes.

    >>> describe_values({"w": np.zeros(2, np.float32)})
    {'w': 'float32 [2] af5570f5a181 (all bytes)'}
    """
    return {path: _value(leaf) for path, leaf in tree.flatten(state).items()}


def _value(leaf: Any) -> str:
    if is_distributed(leaf):
        return f"{leaf.dtype} {list(leaf.shape)}"
    array = np.asarray(jax.random.key_data(leaf) if tree.is_key(leaf) else leaf)
    return type(leaf).__name__ if array.dtype.hasobject else _shown(describe_array(array))


def _evaluation(inner: Learner, feed: Feed, valid: Mapping[str, Any]) -> Program:
    learner = without_mesh(inner, feed.batch(0))
    state = jax.eval_shape(learner.init, tree.any_key(), feed.batch(0))
    batch = next(evaluation_batches(valid, feed.batch_size))
    return describe(jax.make_jaxpr(learner.evaluate)(state, batch))


def _shown(found: Mapping[str, Any]) -> str:
    """The identity of an array or a source in a line, with a short hash."""
    rest = [str(found[name]) for name in ("dtype", "shape", "examples") if name in found]
    return " ".join([*rest, str(found["hash"])[:12], f"({found['hash of']})"])


def _constants(program: Program) -> dict[str, Any]:
    recorded = program.record()
    values = [*recorded["constants"], *recorded["schedule"]]
    return {str(place): value for place, value in enumerate(values)}
