"""An experiment for several processes, with a fault where the environment asks for one.

`FAULT=PROCESS:KIND:COUNT` strikes when that process turns its row number COUNT into numbers;
`SLOW` are seconds to wait at each row, so that a run can be hit in the middle.
`DIFFER=PROCESS:KIND` gives that process other data, or another key for its first weights.
"""

import dataclasses
import os
import signal
import sys
import threading
import time
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import jdl
from jdl.run.storage import checkpoint


def write_error() -> None:
    """From now on TensorStore cannot write, and says so as it does."""
    begin = checkpoint._orbax_begin

    class Failing(NamedTuple):
        saved: Any

        def result(self) -> None:
            self.saved.result()
            raise ValueError(
                'UNKNOWN: Error writing "params/c/0" in OCDBT database at local file "x": '
                "Failed to fsync file: Input/output error [os_error_code='5']"
            )

    checkpoint._orbax_begin = lambda *given: Failing(begin(*given))


def slow_disk() -> None:
    """The next time that the training thread waits for the disk takes seconds."""
    sync = os.fsync

    def slow(handle: int) -> None:
        if threading.current_thread() is threading.main_thread():
            os.fsync = sync
            time.sleep(7)
        sync(handle)

    os.fsync = slow


FAULTS = {
    "disk": write_error,
    "slow": slow_disk,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "freeze": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "term": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "vanish": lambda: os._exit(0),
    "exit": lambda: sys.exit(0),
    "hang": lambda: time.sleep(3600),
}
ROWS = [0]


@dataclasses.dataclass(frozen=True)
class Config:
    epochs: int = 4
    width: int = 8
    stream: bool = False


class Source:
    def __init__(self, arrays: dict[str, np.ndarray]):
        self.arrays = arrays

    def __len__(self) -> int:
        return len(self.arrays["x"])

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: values[index] for name, values in self.arrays.items()}


def show(total: Any) -> Any:
    """The number of a metric; a place that every row passes, in the thread that trains."""
    ROWS[0] += 1
    time.sleep(float(os.environ.get("SLOW", 0)))
    process, kind, count = os.environ.get("FAULT", "-1:none:0").split(":")
    if (jax.process_index(), ROWS[0]) == (int(process), int(count)):
        print(f"fault at {time.time()}", file=sys.stderr, flush=True)
        if kind == "raise":
            raise RuntimeError("a fault on purpose")
        FAULTS[kind]()
    return np.asarray(total)


def differs(kind: str) -> bool:
    return os.environ.get("DIFFER") == f"{jax.process_index()}:{kind}"


def classes(examples: int, seed: int) -> dict[str, np.ndarray]:
    x = np.random.default_rng(seed).normal(size=(examples, 3)).astype(np.float32)
    return {"x": x, "y": (x.sum(1) > 0).astype(np.int32)}


def experiment(config: Config) -> jdl.Experiment:
    if os.environ.get("BROKEN") == str(jax.process_index()):
        raise FileNotFoundError("no data on this machine")
    model = jdl.from_linen(jdl.models.MLP((config.width,), outputs=2, dropout=0.1))
    rows = jdl.Metric(lambda outputs, batch: outputs.sum() * 0, show)
    task = jdl.classification(model, metrics={"accuracy": jdl.metrics.accuracy, "zero": rows})
    train = classes(100, 2 if differs("data") else 0)
    learner = jdl.learner(task, optax.adam(1e-2))
    if differs("key"):
        init = learner.init
        learner = learner._replace(init=lambda key, batch: init(jax.random.key(9), batch))
    return jdl.Experiment(
        "faulty",
        learner,
        jdl.Feed(Source(train), 8) if config.stream else train,
        valid=classes(27, 1),
        batch_size=8,
        epochs=config.epochs,
        options=jdl.Options(log_every=5, evaluate_every=10, save_seconds=0.3, dispatch="loop"),
        best="min loss",
    )
