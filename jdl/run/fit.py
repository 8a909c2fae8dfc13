"""The one training loop, and the same loop as a generator."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import jax

from jdl.core import tree
from jdl.core.errors import Diverged
from jdl.core.lowering import single_step_program
from jdl.core.types import Learner, Metrics, TrainState
from jdl.data.feed import Feed
from jdl.data.records import Data
from jdl.run.distributed.collectives import (
    Consensus,
    check_consistent,
    check_uses_all_processes,
    is_multiprocess,
    is_process_0,
    on_process_0,
)
from jdl.run.distributed.signals import Interrupted, Signals
from jdl.run.distributed.watchdog import report_phase
from jdl.run.evaluate import Result, evaluator
from jdl.run.execution.choosing import chosen, expected
from jdl.run.execution.executor import Advance, Executor
from jdl.run.execution.gc_pause import gc_paused
from jdl.run.execution.placement import mesh_of, placement
from jdl.run.execution.trace import trace_steps
from jdl.run.progress import ProgressBar
from jdl.run.recorder import Recorder, check_divergence, copy_skipped_steps
from jdl.run.setup import (
    Options,
    TrainingSetup,
    check_extreme_examples,
    fingerprint,
    init_state,
    initial_state,
    prepare,
    resolve_data,
)
from jdl.run.storage.run_dir import RunDir
from jdl.run.telemetry.clock import TimeBreakdown


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
    """Train a learner; with `run_dir`, go on where the run in that folder stopped.

    `data` is a dict of arrays, a `Feed` (with its own batch size and seed) or a `Data` record,
    whose `valid` part is evaluated unless another is given. `best="max accuracy"` returns the
    weights of the best evaluation; `patience` ends the run after that many evaluations without a
    better one (by "min loss" unless `best` says otherwise). `start` gives weights to begin from,
    with new moments. `log` is called with a dict of plain numbers for each row of the log.

    Raises `InputError` for what cannot be trained on, `Diverged` when the numbers stay non-finite,
    and after Ctrl-C `Interrupted`, a KeyboardInterrupt, once everything is saved.

    >>> import jdl, optax, numpy as np
    >>> x = np.linspace(-1, 1, 32, dtype=np.float32)[:, None]
    >>> model = jdl.from_linen(jdl.models.MLP(features=(), outputs=1))
    >>> line = jdl.learner(jdl.regression(model), optax.sgd(0.1))
    >>> quiet = Options(bar=False)
    >>> result = fit(line, {"x": x, "y": 3 * x + 1}, batch_size=8, epochs=50, options=quiet)
    >>> print(jdl.predict(result, np.array([[2.0]], np.float32)).round(2))
    [[7.]]
    """
    options = options or Options()
    accounts = TimeBreakdown()
    with accounts, gc_paused():
        feed, valid = resolve_data(data, valid, batch_size, seed)
        form = expected(feed, options.dispatch)
        plan = prepare(learner, feed, valid, epochs, best, patience, options)
    folder = RunDir(run_dir) if isinstance(run_dir, str | Path) else run_dir
    fixed = {"fit": fingerprint(plan, seed)}
    if is_multiprocess():
        check_consistent(fixed | (folder.identity() if folder else {}))
    with accounts, gc_paused(), single_step_program() if form == "step" else nullcontext():
        state = initial_state(plan, valid, seed, start)
        for part in (feed.data, valid):
            check_extreme_examples(learner, part, feed.batch_size)
    check_uses_all_processes(mesh_of(state))
    with folder.lock() if folder and is_process_0() else nullcontext():
        if folder is not None:
            on_process_0(lambda: folder.begin(fixed) and None)
            check_consistent({"the run folder is on a disk of all processes": folder.exists()})
        bar = ProgressBar(plan.total, shown=options.bar and is_process_0())
        record = Recorder(folder, plan.best, log, bar, plan.per_epoch, accounts)
        with closing(record), accounts, Signals(terminate=folder is not None) as signals:
            state = record.resume(state)
            with gc_paused():
                programs = Executor(plan.learner, feed, state, accounts, plan.looped)
                left = plan.total - int(state.step)
                dispatch = chosen(programs, state, options.dispatch, folder, left, form)
                programs.compile(dispatch.form, state)
            record.program = programs.watched[dispatch.form]
            count = evaluator(plan.learner, state, valid, feed.batch_size, accounts)
            advance = programs.advance(dispatch, int(state.step))
            place = folder.profile if folder else None
            with trace_steps(advance, place, options.profile) as advance, accounts.span("other"):
                state, stop = _run(plan, advance, count, record, state, signals)
    result = Result(state, learner, record.rows, folder.path if folder else None)
    if stop is not None and int(state.step) < plan.total:
        raise Interrupted(stop, int(state.step), result)
    return result if record.best_state is None else result._replace(state=record.best_state)


def _run(
    plan: TrainingSetup,
    advance: Advance,
    count: Callable[[TrainState], list[Metrics]],
    record: Recorder,
    state: TrainState,
    signals: Signals,
) -> tuple[TrainState, int | None]:
    """Step to the end: note at boundaries, save by the clock, stop when asked (by that signal)."""
    step, guards, accounts = int(state.step), copy_skipped_steps(state), record.accounts
    agreed = Consensus()
    in_flight: deque[tuple[str, Any]] = deque()
    report_phase("training", step)
    stop, _ = agreed(signals.received, False)
    try:
        while step < plan.total and stop is None and not plan.is_over(step):
            boundary = plan.boundary_after(step)
            with accounts.span("compute"):
                state, metrics, step = advance(state, step, boundary)
            in_flight.append(("compute", metrics))
            while len(in_flight) > 2:
                name, values = in_flight.popleft()
                with accounts.span(name):
                    jax.block_until_ready(values)
            if step == boundary:
                record.read()
                check_divergence(guards, plan.feed, plan.guard)
                guards = copy_skipped_steps(state)
                if plan.logs(step):
                    record.training(step, metrics)
                if plan.evaluates(step):
                    report_phase("evaluation", step)
                    with accounts.span("evaluate"):
                        parts = count(state)
                    in_flight.append(("evaluate", parts))
                    record.evaluation(step, parts, state)
            record.progress(step)
            if not record.rows:
                record.read()  # the first row at once: somebody waits to see that the run works
            report_phase("training", step)
            stop, save = agreed(signals.received, record.save_due(plan.options.save_seconds))
            if save:
                record.save(step, state)
        check_divergence(copy_skipped_steps(state), plan.feed, plan.guard)
    except Diverged:
        record.save(step, state, wait=True)
        raise
    record.save(step, state, wait=True)
    report_phase("finishing", step, slow=True)
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

    Nothing is logged, saved or read back. `start` goes on from a state, step and moments included.
    With `donate` each state is gone as soon as the next is asked for.

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
