"""Several processes that train one learner: joining, agreeing, and who writes.

Every process runs the same program on its own devices, so whatever is decided by a clock, a disk
or a signal has to be decided once and be known to all at the same step. `jax.distributed` joins
them; `broadcast` and `Consensus` are small collectives. With one process each of them costs
nothing.
"""

import json
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jdl.core.errors import InputError, error
from jdl.run.storage.files import flatten_config

MAX_DISPATCHES_AHEAD = 2
"""Dispatches that a run may be ahead of its agreement, so that nothing waits for it."""


def is_multiprocess() -> bool:
    """Whether other processes train the same learner."""
    return jax.process_count() > 1


def is_process_0() -> bool:
    """Whether this process is the one that writes and prints."""
    return jax.process_index() == 0


def all_gather(value: Any) -> list[Any]:
    """What every process gives (as JSON can hold it), by their index, in all of them."""
    if not is_multiprocess():
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = np.asarray(multihost_utils.process_allgather(np.int32(len(text)))).reshape(-1)
    padded = np.zeros(int(lengths.max()), np.uint8)
    padded[: len(text)] = text
    rows = np.asarray(multihost_utils.process_allgather(padded)).reshape(len(lengths), -1)
    return [json.loads(row[:n].tobytes()) for row, n in zip(rows, lengths, strict=True)]


def broadcast(value: Any) -> Any:
    """What process 0 gives (as JSON can hold it), in all processes."""
    if not is_multiprocess():
        return value
    text = np.frombuffer(json.dumps(value if is_process_0() else None).encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    padded = np.zeros(length, np.uint8)
    padded[: len(text)] = text[:length]
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes())


def on_process_0(call: Callable[[], Any]) -> Any:
    """Process 0 calls, all get its answer; its `InputError` is everyone's."""
    if not is_multiprocess():
        return call()
    answer, refusal = None, None
    if is_process_0():
        try:
            answer = call()
        except InputError as bad:
            refusal = str(bad)
    answer, refusal = broadcast((answer, refusal))
    if refusal is not None:
        raise InputError(refusal)
    return answer


def check_consistent(settings: Mapping[str, Any]) -> None:
    """Raise in every process unless all have the same settings; names what differs, and where."""
    if not is_multiprocess():
        return
    first, *others = all_gather(flatten_config(settings))
    differing = [
        f"{name}: {first.get(name)!r} in process 0, {other.get(name)!r} in process {i}"
        for i, other in enumerate(others, 1)
        for name in dict.fromkeys([*first, *other])
        if first.get(name) != other.get(name)
    ]
    if differing:
        raise error(
            f"the configuration of {len(others) + 1} processes",
            expected="the same in all of them",
            got="; ".join(differing[:8]) + ("; ..." if len(differing) > 8 else ""),
            fix="start every process with the same file, versions and flags (but --run.process)",
        )


def check_uses_all_processes(mesh: Mesh | None) -> None:
    """Raise where several processes would each train a learner of their own."""
    if is_multiprocess() and (mesh is None or not mesh.is_multi_process):
        raise error(
            f"fit in {jax.process_count()} processes",
            expected=f"a learner on a mesh of all {jax.device_count()} devices",
            got="one that each process would train alone",
            fix=f"jdl.shard(learner, jdl.mesh(data={jax.device_count()}))",
        )


class Consensus:
    """What any process was asked to do, carried out by all of them at the same step.

    Each dispatch sends the wishes of its process on their way, and learns those of
    `MAX_DISPATCHES_AHEAD` dispatches before, which have long arrived. One process alone does at
    once what it wishes.
    """

    def __init__(self) -> None:
        self._alone = not is_multiprocess()
        self._wishes: deque[jax.Array] = deque()
        self._stale = 0
        if not self._alone:
            first = {d.process_index: d for d in reversed(jax.devices())}  # one device of each
            mesh = Mesh(np.array([first[i] for i in sorted(first)]), ("process",))
            self._place = NamedSharding(mesh, PartitionSpec("process"))
            whole = NamedSharding(mesh, PartitionSpec())
            self._all = jax.jit(lambda wishes: wishes.max(0), out_shardings=whole)

    def __call__(self, stop: int | None, save: bool) -> tuple[int | None, bool]:
        """`stop` is the number of a signal; `save` counts in process 0, which has the clock."""
        if self._alone:
            return stop, save
        wish = np.array([[stop or 0, save and is_process_0()]], np.int32)
        self._wishes.append(self._all(jax.make_array_from_process_local_data(self._place, wish)))
        if len(self._wishes) <= MAX_DISPATCHES_AHEAD:
            return None, False
        number, due = np.asarray(self._wishes.popleft()).tolist()
        if self._stale:  # asked for before the last save was made
            self._stale, due = self._stale - 1, 0
        elif due:
            self._stale = MAX_DISPATCHES_AHEAD
        return number or None, bool(due)
