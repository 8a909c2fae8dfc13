"""The one training loop, and the same loop as a generator."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from jdl.core import tree
from jdl.core.errors import Diverged
from jdl.core.types import Learner, Metrics, TrainState
from jdl.data.feed import Feed
from jdl.data.records import Data
from jdl.run.checks import resolve_data
from jdl.run.distributed.collectives import Consensus
from jdl.run.distributed.signals import Interrupted, Signals
from jdl.run.evaluate import Result
from jdl.run.execution.executor import Executor, compile_steps
from jdl.run.execution.placement import placement
from jdl.run.recorder import Recorder, open_run
from jdl.run.setup import Options, TrainingSetup, init_state, prepare
from jdl.run.storage.run_dir import RunDir


def fit(
    learner: Learner,
    data: Mapping[str, Any] | Data | Feed,
    *,
    valid: Mapping[str, Any] | None = None,
    batch_size: int = 128,
    epochs: float = 10,
    seed: int = 0,
    run_dir: str | Path | RunDir | None = None,
    start: TrainState | None = None,
    best: str | None = None,
    patience: int | None = None,
    log: Callable[[dict[str, Any]], Any] | None = None,
    options: Options | None = None,
) -> Result:
    """Train a learner; with `run_dir`, resume where the run in that directory stopped.

    `data` is a dict of arrays, a `Feed` (with its own batch size and seed) or a `Data` record,
    whose `valid` part is evaluated unless another is given. `best="max accuracy"` returns the
    weights of the best evaluation; `patience` ends the run after that many evaluations without a
    better one (by "min loss" unless `best` says otherwise). `start` gives weights to begin from,
    with new moments. `log` is called with a dict of plain numbers for each row of the log.

    Raises `InputError` for what cannot be trained on, `Diverged` when values stay non-finite, and
    after Ctrl-C `Interrupted`, a KeyboardInterrupt, once everything is saved.

    >>> import jdl, optax, numpy as np
    >>> x = np.linspace(-1, 1, 32, dtype=np.float32)[:, None]
    >>> model = jdl.from_linen(jdl.models.MLP(features=(), outputs=1))
    >>> line = jdl.learner(jdl.regression(model), optax.sgd(0.1))
    >>> quiet = Options(bar=False)
    >>> result = fit(line, {"x": x, "y": 3 * x + 1}, batch_size=8, epochs=50, options=quiet)
    >>> print(jdl.predict(result, np.array([[2.0]], np.float32)).round(2))
    [[7.]]
    """
    setup, state = prepare(
        learner,
        data,
        valid,
        batch_size=batch_size,
        epochs=epochs,
        seed=seed,
        run_dir=run_dir,
        start=start,
        best=best,
        patience=patience,
        options=options,
    )
    with (
        open_run(setup, state, log) as (state, recorder, signals),
        compile_steps(setup, state) as executor,
    ):
        state, stop = train(setup, executor, recorder, state, signals)
    result = Result(
        setup.caller_state(state), learner, recorder.rows, setup.run_dir and setup.run_dir.path
    )
    if stop is not None and executor.step < setup.total_steps:
        raise Interrupted(stop, executor.step, result)
    if recorder.best_state is not None:
        result = result._replace(state=setup.caller_state(recorder.best_state))
    return result


def train(
    setup: TrainingSetup,
    executor: Executor,
    recorder: Recorder,
    state: TrainState,
    signals: Signals,
) -> tuple[TrainState, int | None]:
    """Step to the end: note at boundaries, save by the clock, stop when asked (by that signal)."""
    consensus, step = Consensus(), executor.step
    stop, _ = consensus(signals.received, False)
    try:
        while stop is None and not setup.is_over(step):
            boundary = setup.next_boundary(step)
            state, metrics = executor.advance(state, until=boundary)
            step = executor.step
            if step == boundary:
                recorder.read()  # what was noted at the boundary before
                recorder.check_divergence(state)
                if setup.logs(step):
                    recorder.training(step, metrics)
                if setup.evaluates(step):
                    recorder.evaluation(step, executor.evaluate(state), state)
            recorder.progress(step)
            stop, save = consensus(signals.received, recorder.is_save_due())
            if save:
                recorder.save(step, state)
        recorder.check_divergence(state, wait=True)
    except Diverged:
        recorder.save(step, state, wait=True)
        raise
    recorder.save(step, state, wait=True)
    return state, stop


def steps(
    learner: Learner,
    data: Mapping[str, Any] | Feed,
    *,
    batch_size: int = 128,
    seed: int = 0,
    start: TrainState | None = None,
    donate: bool = False,
) -> Iterator[tuple[TrainState, Metrics]]:
    """The same loop, one step at a time and without end: `for state, metrics in steps(...)`.

    Nothing is logged, saved or read back. `start` continues from a state, step and moments
    included. With `donate` each state is gone as soon as you ask for the next.

    >>> import itertools, jdl, optax, numpy as np
    >>> model = jdl.from_linen(jdl.models.MLP(features=(), outputs=1))
    >>> line = jdl.learner(jdl.regression(model), optax.sgd(0.1))
    >>> data = {"x": np.ones((8, 1), np.float32), "y": np.ones((8, 1), np.float32)}
    >>> for state, metrics in itertools.islice(steps(line, data, batch_size=4), 3):
    ...     pass
    >>> int(state.step)
    3
    """
    feed, _ = resolve_data(data, None, batch_size, seed)
    state = init_state(learner, feed, seed) if start is None else start
    if donate:
        state = tree.copy(state)
    put = placement(state)
    step = jax.jit(learner.step, static_argnames="axis", donate_argnums=(0,) if donate else ())
    count = int(state.step)
    batches = map(feed.batch, iter(range(count, 2**31))) if feed.is_resident else feed.stream(count)
    for batch in batches:
        state, metrics = step(state, put(batch))
        yield state, metrics
