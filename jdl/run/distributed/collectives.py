"""Collectives on host values, for several processes that train one learner.

Every process runs the same program on its own devices. So whatever depends on a clock, a disk or a
signal is decided once, and every process must know the decision at the same step. With one process
these functions cost nothing.
"""

import json
import re
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jdl.core.errors import InputError, error
from jdl.run.storage.files import flatten_config

MAX_DISPATCHES_AHEAD = 2
"""Dispatches between sending a request to `Consensus` and acting on it, so that nothing waits."""


def is_multiprocess() -> bool:
    """Whether several processes train the same learner."""
    return jax.process_count() > 1


def is_process_0() -> bool:
    """Whether this process is the one that writes and prints."""
    return jax.process_index() == 0


def all_gather(value: Any) -> list[Any]:
    """The values of all processes by their index, in every process; values must be JSON types."""
    if not is_multiprocess():
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = np.asarray(multihost_utils.process_allgather(np.int32(len(text)))).reshape(-1)
    padded = np.zeros(int(lengths.max()), np.uint8)
    padded[: len(text)] = text
    rows = np.asarray(multihost_utils.process_allgather(padded)).reshape(len(lengths), -1)
    return [json.loads(row[:n].tobytes()) for row, n in zip(rows, lengths, strict=True)]


def broadcast(value: Any) -> Any:
    """The value of process 0 in every process; it must be a JSON type."""
    if not is_multiprocess():
        return value
    text = np.frombuffer(json.dumps(value if is_process_0() else None).encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    padded = np.zeros(length, np.uint8)
    padded[: len(text)] = text[:length]
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes())


def agree_on_signal(number: int | None) -> int | None:
    """A signal that any process received, in every process."""
    return max(all_gather(number or 0)) or None


def on_process_0(call: Callable[[], Any]) -> Any:
    """Call in process 0, and return the result or raise its `InputError` in every process."""
    if not is_multiprocess():
        return call()
    result, message = None, None
    if is_process_0():
        try:
            result = call()
        except InputError as bad:
            message = str(bad)
    result, message = broadcast((result, message))
    if message is not None:
        raise InputError(message)
    return result


SAME_COMMAND = "start every process with the same file, versions and flags, except --run.process"


def check_consistent(
    settings: Mapping[str, Any], what: str = "configuration", fix: str = SAME_COMMAND
) -> None:
    """Raise `InputError` in every process if settings differ, naming each and its values."""
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
            f"the {what} of {len(others) + 1} processes",
            expected=f"the same {what} in every process",
            got="; ".join(differing[:8]) + ("; ..." if len(differing) > 8 else ""),
            fix=fix,
        )


def check_shared(folder: Path, is_seen: bool) -> None:
    """Raise `InputError` in every process if one does not see the run in its directory."""
    blind = [str(process) for process, seen in enumerate(all_gather(is_seen)) if not seen]
    if blind:
        raise error(
            f"run directory {folder}",
            expected="a directory on a disk that all processes share",
            got=f"no run in it for process {', '.join(blind)}",
            fix="choose a directory on a shared disk (--run.dir), or mount that disk there",
        )


def check_uses_all_processes(mesh: Mesh | None) -> None:
    """Raise `InputError` if each of several processes would train a learner of its own."""
    if is_multiprocess() and (mesh is None or not mesh.is_multi_process):
        raise error(
            f"fit in {jax.process_count()} processes",
            expected=f"a learner on a mesh of all {jax.device_count()} devices",
            got="a learner that each process would train separately",
            fix=f"use jdl.shard(learner, jdl.mesh(data={jax.device_count()}))",
        )


def is_failed_collective(failure: BaseException | None) -> bool:
    """Whether a collective failed, probably because another process has ended.

    An `InputError` is a fault of this process, whatever caused it; so is a disk error.
    """
    if failure is None or isinstance(failure, InputError):
        return False
    # Errors of Gloo are ValueError, most others JaxRuntimeError. Both begin with a status code, as
    # those of TensorStore do, which name a file.
    text = str(failure)
    is_jax = isinstance(failure, ValueError | RuntimeError) and re.match(r"[A-Z_]+: ", text)
    is_of_a_file = re.search(r"os_error_code=|Error (opening|reading|writing) ", text)
    return bool(is_jax and not is_of_a_file) or is_failed_collective(failure.__cause__)


class Consensus:
    """Agreement on requests to stop or save, so that all processes act at the same step.

    Each call sends the requests of this process, and returns the combined requests of
    `MAX_DISPATCHES_AHEAD` calls before, which have long arrived. With one process a call returns
    its own requests.
    """

    def __init__(self) -> None:
        self._is_multiprocess = is_multiprocess()
        self._requests: deque[jax.Array] = deque()
        self._stale = 0
        if self._is_multiprocess:
            first = {d.process_index: d for d in reversed(jax.devices())}  # one device of each
            mesh = Mesh(np.array([first[i] for i in sorted(first)]), ("process",))
            self._sharding = NamedSharding(mesh, PartitionSpec("process"))
            replicated = NamedSharding(mesh, PartitionSpec())
            self._combine = jax.jit(lambda requests: requests.max(0), out_shardings=replicated)

    def __call__(self, stop: int | None, save: bool) -> tuple[int | None, bool]:
        """`stop` is the number of a signal or None; `save` counts in process 0 only."""
        if not self._is_multiprocess:
            return stop, save
        own = np.array([[stop or 0, save and is_process_0()]], np.int32)
        own = jax.make_array_from_process_local_data(self._sharding, own)
        self._requests.append(self._combine(own))
        if len(self._requests) <= MAX_DISPATCHES_AHEAD:
            return None, False
        number, due = np.asarray(self._requests.popleft()).tolist()
        if self._stale:  # requested before the last save
            self._stale, due = self._stale - 1, 0
        elif due:
            self._stale = MAX_DISPATCHES_AHEAD
        return number or None, bool(due)
