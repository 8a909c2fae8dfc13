"""jdl: `jdl.fit` with everything it does by default; "jdl_train" as the command line sets it up.

"jdl_bf16" is that with the model computed in bfloat16.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.worker import Rounds
from benchmarks.workloads import LEARNING_RATE, WORKLOADS


def run(peer: str, workload: str, rounds: Rounds) -> None:
    if peer != "jdl":
        from jdl.run import flags

        flags.set_up()
    import optax

    import jdl

    work, dtype = WORKLOADS[workload], "bfloat16" if peer == "jdl_bf16" else "float32"
    x, y = work.data()
    data = {"x": x} if workload == "gpt" else {"x": x, "y": y}
    # A long run in either case: a short one would not look for the faster form of its steps.
    every = 1 if rounds.once else jdl.Options.log_every
    with tempfile.TemporaryDirectory() as folder:
        jdl.fit(
            jdl.learner(task(workload, dtype), optax.adam(LEARNING_RATE)),
            data,
            batch_size=work.batch,
            epochs=10**6,
            dir=Path(folder) / "run",
            log=Answers(rounds),
            options=jdl.Options(bar=False, log_every=every),
        )


class Answers:
    """Gets every row of the log, waits there for a round, and answers when its time is over.

    A row comes when its steps are done, so the time between two rows is that of the steps between.
    The first two rows of a round do not count: while one waits, steps in flight end for nothing.
    """

    def __init__(self, rounds: Rounds):
        self.rounds: Rounds = rounds
        self.asked: Iterator[float] = iter(())
        self.seconds: float | None = None
        self.early = 0
        self.first: tuple[int, float] | None = None

    def __call__(self, row: dict[str, Any]) -> None:
        now, step = time.perf_counter(), int(row["step"])
        if self.seconds is None:
            self.rounds.first()
            if self.rounds.once:
                raise SystemExit
            self.asked = self.rounds.ready(row["loss"])
            self.seconds = next(self.asked)
            return
        if self.early < 2:
            self.early += 1
            self.first = step, now
            return
        assert self.first is not None
        steps, spent = step - self.first[0], now - self.first[1]
        if spent < self.seconds:
            return
        self.rounds.done(steps, spent)
        try:
            self.seconds, self.early = next(self.asked), 0
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
