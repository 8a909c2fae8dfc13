"""The one training loop, and the same loop as a generator."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from jdl.core import tree
from jdl.core.errors import Diverged
from jdl.core.nouns import check_learner
from jdl.core.types import Learner, Metrics, TrainState
from jdl.data.feed import Feed
from jdl.data.records import Data
from jdl.run.check_mask import check_mask_weight, with_mask
from jdl.run.checks import check_labels_of_batches, resolve_data
from jdl.run.distributed.collectives import Consensus, agree_on_signal
from jdl.run.distributed.signals import Interrupted, Signals
from jdl.run.evaluate import Result, check_classes
from jdl.run.execution.executor import Executor, compile_steps
from jdl.run.execution.placement import placement
from jdl.run.recorder import Recorder, check_callback, open_run
from jdl.run.setup import Options, TrainingSetup, init_state, prepare
from jdl.run.start import check_start
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
    fork: str | Path | None = None,
    best: str | None = None,
    patience: int | None = None,
    log: Callable[[dict[str, Any]], Any] | None = None,
    options: Options | None = None,
) -> Result:
    """Train a learner. With `run_dir`, save the run there, or resume the run that is there.

    - `data`: a dict of arrays with shapes `(examples, ...)`, a `Feed` (which has its own batch size
      and seed), or a `Data` record, whose `valid` split is used unless you pass `valid`.
    - `valid`: a dict of arrays; or several by name, `{"clean": {...}, "noisy": {...}}`, whose
      metrics are then called `clean/loss`, `noisy/loss`, ..., also in `best="min clean/loss"`.
    - `start`: a state, or parameters, that training begins with; moments and step count start anew.
    - `fork`: a run directory, or `"RUN@STEP"`. A new run starts from the whole checkpoint: step,
      weights, moments and key.
    - `best`: "min NAME" or "max NAME" of an evaluation metric. The result then has the weights of
      the best evaluation, not of the last step.
    - `patience`: stop after this many evaluations without a better one (by "min loss" if `best` is
      None).
    - `log`: called with a dict of scalars for each row of the log. If it raises, the run stops, its
      state is saved, and the error is raised again.

    A run resumes only with the same settings, data and program; `epochs` may grow, and the run is
    then the one that had them from the start. If a schedule depends on the number of steps, a
    warning says how its rate jumps.

    Raises `InputError` if data, learner or options do not fit together, before any training, and if
    the run directory cannot be used; `Diverged` after `options.guard` skipped steps in a row; and
    `Interrupted`, a KeyboardInterrupt, after Ctrl-C (or SIGTERM, if there is a run directory), once
    the state is saved; its `result` is the `Result` so far. If the signal arrives when the last
    step is done, a handler of your own for it is called instead.

    >>> import jdl, optax, numpy as np
    >>> x = np.linspace(-1, 1, 32, dtype=np.float32)[:, None]
    >>> model = jdl.from_linen(jdl.models.MLP(features=(), outputs=1))
    >>> line = jdl.learner(jdl.regression(model), optax.sgd(0.1))
    >>> quiet = Options(bar=False)
    >>> result = fit(line, {"x": x, "y": 3 * x + 1}, batch_size=8, epochs=50, options=quiet)
    >>> print(jdl.predict(result, np.array([[2.0]], np.float32)).round(2))
    [[7.]]
    """
    check_callback(log)
    setup, state = prepare(
        learner,
        data,
        valid,
        batch_size=batch_size,
        epochs=epochs,
        seed=seed,
        run_dir=run_dir,
        start=start,
        fork=fork,
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
    recorder.raise_callback_error(stop, executor.step)
    if stop is None or executor.step == setup.total_steps:
        stop = agree_on_signal(signals.pass_on())  # received since the loop last asked
        if recorder.best_state is not None:
            result = result._replace(state=setup.caller_state(recorder.best_state))
    if stop is not None:
        raise Interrupted(stop, executor.step, result)
    return result


def train(
    setup: TrainingSetup,
    executor: Executor,
    recorder: Recorder,
    state: TrainState,
    signals: Signals,
) -> tuple[TrainState, int | None]:
    """The loop: step, log and evaluate at boundaries, save by the clock, stop on a signal.

    Returns the last state, and the number of the signal if one stopped the run, or
    `CALLBACK_FAILED`.
    """
    consensus, step = Consensus(), executor.step
    stop, _ = consensus(signals.received, False)
    try:
        while stop is None and not setup.is_over(step):
            boundary = setup.next_boundary(step)
            state, metrics = executor.advance(state, until=boundary)
            step = executor.step
            if step == boundary:
                recorder.read()  # the metrics of the boundary before
                recorder.check_divergence(state)
                if setup.logs(step):
                    recorder.training(step, metrics, state)
                if setup.evaluates(step):
                    state = recorder.evaluation(step, executor.evaluate(state), state)
            recorder.progress(step)
            stop, save = consensus(recorder.failed or signals.received, recorder.is_save_due())
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
    data: Mapping[str, Any] | Data | Feed,
    *,
    batch_size: int = 128,
    seed: int = 0,
    start: TrainState | None = None,
    donate: bool = False,
) -> Iterator[tuple[TrainState, Metrics]]:
    """Train one step at a time in a loop of your own; yields `(state, metrics)` without end.

    It takes the steps of `fit` and nothing else: no guard, no log, no checkpoint, no read from the
    device. Metrics are those of one step, before `jdl.metrics.compute`. `start` is a state to
    continue from, step and moments included. With `donate=True` each state is deleted when you ask
    for the next one, which saves memory. `data` is as in `fit`, with shapes `(examples, ...)`.

    Raises `InputError` for data that are not finite or do not fit the learner.

    >>> import itertools, jdl, optax, numpy as np
    >>> model = jdl.from_functions(lambda key, x: {"w": 2.0}, lambda params, x: params["w"] * x)
    >>> learner = jdl.learner(jdl.regression(model), optax.sgd(0.1))
    >>> data = {"x": np.ones((8, 1), np.float32), "y": np.ones((8, 1), np.float32)}
    >>> for state, metrics in itertools.islice(steps(learner, data, batch_size=4), 3):
    ...     pass
    >>> int(state.step), sorted(metrics)
    (3, ['gradient_norm', 'loss'])
    """
    check_learner(learner, "steps: learner")
    feed, _ = resolve_data(data, None, batch_size, seed)
    if start is not None:
        check_start(start)
    state = init_state(learner, feed, seed) if start is None else start
    check_mask_weight(learner, state, with_mask(feed.batch(0)))
    if isinstance(feed.data, Mapping):
        check_classes(learner, state, feed.batch(0), feed.data, "training data")
    feed = check_labels_of_batches(learner, state, feed)
    if donate:
        state = tree.copy(state)
    put = placement(state)
    step = jax.jit(learner.step, static_argnames="axis", donate_argnums=(0,) if donate else ())
    count = int(state.step)
    batches = map(feed.batch, iter(range(count, 2**31))) if feed.is_resident else feed.stream(count)
    for batch in batches:
        state, metrics = step(state, put(batch))
        yield state, metrics
