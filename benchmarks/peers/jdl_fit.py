"""`jdl.fit` with all its defaults; "jdl_train" in a process set up as `jdl train` sets up its own.

"jdl_bf16" is that with the model computed in bfloat16.
"""

import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from benchmarks.command_process import command_process
from benchmarks.peer_process import Rounds
from benchmarks.workloads import LEARNING_RATE, WORKLOADS


def run(peer: str, workload: str, rounds: Rounds) -> None:
    work, dtype = WORKLOADS[workload], "bfloat16" if peer == "jdl_bf16" else "float32"
    with nullcontext() if peer == "jdl" else command_process():
        import optax

        import jdl

        x, y = work.data()
        data = {"x": x} if workload == "gpt" else {"x": x, "y": y}
        learner = jdl.learner(task(workload, dtype), optax.adam(LEARNING_RATE))
    every = 1 if rounds.first_step_only else jdl.Options.log_every
    with tempfile.TemporaryDirectory() as folder:
        jdl.fit(
            learner,
            data,
            batch_size=work.batch,
            epochs=10**6,
            run_dir=Path(folder) / "run",
            log=Answers(rounds),
            options=jdl.Options(bar=False, log_every=every),
        )


class Answers:
    """Called with every row of the log: waits there for a round, and answers when it is over.

    A row has the speed of the steps since the row before. The first two rows of a round do not
    count: steps that were in flight while the peer waited take no time.
    """

    def __init__(self, rounds: Rounds):
        self.rounds: Rounds = rounds
        self.asked: Iterator[float] = iter(())
        self.wanted: float | None = None
        self.skipped, self.step = 0, 0
        self.steps, self.spent = 0, 0.0

    def __call__(self, row: dict[str, Any]) -> None:
        step, self.step = self.step, int(row["step"])
        if self.wanted is None:
            self.rounds.first()
            if self.rounds.first_step_only:
                raise SystemExit
            self.asked = self.rounds.ready(row["loss"])
            self.wanted = next(self.asked)
            return
        if self.skipped < 2:
            self.skipped += 1
            return
        self.steps += self.step - step
        self.spent += (self.step - step) / row["steps_per_second"]
        if self.spent < self.wanted:
            return
        self.rounds.done(self.steps, self.spent)
        self.skipped, self.steps, self.spent = 0, 0, 0.0
        try:
            self.wanted = next(self.asked)
        except StopIteration:
            raise SystemExit from None


def task(workload: str, dtype: str = "float32") -> Any:
    """What is trained, computed in `dtype`."""
    import jdl

    if workload == "gpt":
        model = jdl.models.Decoder(vocabulary=65, context=128, blocks=4, heads=4, width=128)
        return jdl.tasks.language_model(jdl.precision(jdl.from_linen(model), dtype))
    networks = {
        "cnn": lambda: jdl.models.CNN((32, 64), (128,), 10, padding="SAME"),
        "mlp": lambda: jdl.models.MLP((128,), outputs=10),
        "lstm": lambda: jdl.models.RNN((128, 128), outputs=10),
    }
    return jdl.classification(jdl.precision(jdl.from_linen(networks[workload]()), dtype))
