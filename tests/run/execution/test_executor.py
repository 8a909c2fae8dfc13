"""A run has the same bits however it is cut into dispatches and wherever its batches come from."""

import time

import jax
import numpy as np
import optax
import pytest

import jdl
from jdl.core import lowering
from jdl.data import feed as feed_module
from jdl.data.feed import Feed
from jdl.run import setup
from jdl.run.execution import batches
from jdl.run.execution.batches import STACK_BYTES, StreamedBatches
from jdl.run.execution.executor import Executor
from jdl.run.telemetry.clock import TimeBreakdown
from tests.support import learners
from tests.support.runs import (
    assert_same_run,
    classes,
    counter,
    dropout_net,
    force,
    line,
    net,
    quiet,
)
from tests.support.sources import Source

pytestmark = pytest.mark.usefixtures("kept_programs")


@pytest.fixture
def forced(monkeypatch):
    """Runs a learner with a given dispatch."""

    def run(learner, data, kind, steps, **given):
        force(monkeypatch, kind, steps)
        given = {"batch_size": 8, "epochs": 4, "options": quiet(log_every=5)} | given
        return jdl.fit(learner, data, valid=line(20, seed=1), **given)

    return run


def prepared(learner, data, kind="loop", steps=8, **more):
    """An executor, and the state that it begins with."""
    options = quiet(dispatch=kind, **more)
    made, state = setup.prepare(learner, data, batch_size=8, epochs=4, options=options)
    return Executor(made, state), state


@pytest.fixture(scope="module")
def cnn():
    """A small network of convolutions, and images for it."""
    draw = np.random.default_rng(0)
    data = {"x": draw.random((24, 8, 8, 1), np.float32), "y": np.arange(24, dtype=np.int32) % 3}
    model = jdl.models.CNN(features=(2,), hidden=(4,), classes=3, dropout=0.2)
    return jdl.learner(jdl.classification(jdl.from_linen(model)), optax.adam(1e-2)), data


def test_a_loop_cut_in_any_way_has_the_same_bits(forced):
    runs = [forced(net(0.3), line(), "loop", steps) for steps in (1000, 1, 3, 7)]
    assert int(runs[0].state.step) == 24
    for other in runs[1:]:
        assert_same_run(runs[0], other)


@pytest.mark.slow
def test_dropout_is_the_same_in_any_cut(monkeypatch):
    runs = []
    for steps in (1000, 4):
        force(monkeypatch, "loop", steps)
        runs.append(jdl.fit(dropout_net(), classes(), batch_size=8, epochs=2, options=quiet()))
    assert_same_run(*runs)


def test_steps_one_by_one_have_the_same_bits_in_any_number(forced):
    one = forced(net(0.3), line(), "step", 1)
    assert_same_run(one, forced(net(0.3), line(), "step", 32))
    other = forced(net(0.3), line(), "step", 32, seed=1)
    assert learners.differ(one.state.params, other.state.params)


@pytest.mark.parametrize("kind", ["step", "loop"])
def test_resident_and_streamed_have_the_same_bits(forced, monkeypatch, kind):
    resident = forced(net(0.3), line(), kind, 6)
    source = Source(line())
    assert_same_run(resident, forced(net(0.3), Feed(source, 8, 0), kind, 6))
    assert source.reads >= 4 * 48  # it was streamed
    monkeypatch.setattr(Feed, "is_resident", property(lambda self: False))
    assert_same_run(resident, forced(net(0.3), line(), kind, 4))


@pytest.mark.parametrize("kind", ["loop", pytest.param("step", marks=pytest.mark.slow)])
def test_an_iterator_that_ends_in_a_source_ends_no_run(forced, kind):
    class Ended(Source):
        def __getitem__(self, index):
            if index == last:
                next(iter(()))
            return super().__getitem__(index)

    last = int(Feed(line(64), 4, 0).rows(12)[0][2])
    feed = Feed(Ended(line(64)), 4, 0)
    with pytest.raises(RuntimeError, match=f"raised StopIteration at example {last}:"):
        forced(counter(), feed, kind, 8, epochs=1)


@pytest.mark.slow
def test_resident_and_streamed_have_the_same_bits_with_convolutions(monkeypatch, cnn):
    learner, data = cnn
    force(monkeypatch, "step", 3)
    feeds = [Feed(data, 8, 0), Feed(Source(data), 8, 0)]
    one, other = (jdl.fit(learner, feed, epochs=2, options=quiet(log_every=4)) for feed in feeds)
    assert_same_run(one, other)


@pytest.mark.slow
def test_sharded_runs_have_the_same_bits_in_any_cut(forced):
    wide = jdl.shard(net(0.3), jdl.mesh(data=8), jdl.rules.fsdp(smallest=8))
    runs = [forced(wide, line(), "loop", steps, epochs=2) for steps in (1000, 4)]
    assert_same_run(*runs)


class Masked(Feed):
    """A feed whose batches hold fewer examples at every other step."""

    def rows(self, step):
        rows, _ = super().rows(step)
        odd = np.asarray(step)[..., None] % 2
        return rows, (np.arange(self.batch_size) >= 3 * odd).astype(np.float32)


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("kind", ["step", "loop"])
def test_rows_that_do_not_count_are_left_out_of_the_steps(forced, monkeypatch, kind, resident):
    data = line()
    monkeypatch.setattr(Feed, "is_resident", property(lambda self: resident))
    run = forced(net(), Masked(data, 8), kind, 6)
    feed, learner = Feed(data, 8), jdl.jit(net())
    state = learner.init(jax.random.key(0), feed.batch(0))
    for step in range(24):
        batch = feed.batch(step)
        kept = {name: value[3 * (step % 2) :] for name, value in batch.items()}
        state, _ = learner.step(state, kept)
    learners.assert_close(run.state.params, state.params)
    rows = [row for row in run.history if row["split"] == "train"]
    assert rows[0]["loss"] != forced(net(), Feed(data, 8), kind, 6).history[0]["loss"]


@pytest.mark.parametrize("kind", ["step", "loop"])
def test_one_program_trains_from_a_stream(monkeypatch, kind):
    force(monkeypatch, kind, 6)
    with learners.compilations() as names:
        jdl.fit(net(), Feed(Source(line()), 8), epochs=3, options=quiet(log_every=7))
    assert names.count("jit(step)") == 1


def test_a_run_compiles_one_training_program():
    with learners.compilations() as names:
        jdl.fit(net(), line(), batch_size=8, epochs=3, options=jdl.Options(bar=False))
    assert names.count("jit(step)") == 1


def test_single_steps_have_xlas_convolutions_and_loops_products(cnn):
    _, data = cnn
    wide = jdl.models.CNN(features=(6, 2), hidden=(), classes=3, padding="SAME")
    learner = jdl.learner(jdl.classification(jdl.from_linen(wide)), optax.sgd(0.1))
    texts = {}
    for kind, more in (("step", ()), ("loop", (2,))):
        executor, state = prepared(learner, data, kind)
        shapes = executor._batches.shapes
        texts[kind] = executor._program.call.lower(state, shapes, *more).compile().as_text()
    assert " convolution(" in texts["step"] and " convolution(" not in texts["loop"]


def test_on_an_nvidia_device_a_loop_is_one_graph(monkeypatch):
    plain, state = prepared(net(), line())
    monkeypatch.setattr(lowering, "cuda_capability", lambda: 9.0)
    asked = {}
    jit = jax.jit

    def seen(function, **options):
        asked[function.__name__] = options.get("compiler_options")
        return jit(function, **options)

    monkeypatch.setattr(jax, "jit", seen)
    graph, other = prepared(net(), line())
    kinds = asked["step"]["xla_gpu_enable_command_buffer"].split(",")
    assert "WHILE" in kinds and "FUSION" in kinds
    # The compiler knows every word, on CPU too, where they mean nothing.
    learners.assert_same_bits(plain.advance(state, 8)[0], graph.advance(other, 8)[0])


@pytest.mark.parametrize("kind", ["step", "loop"])
def test_a_run_that_outlasts_its_table_of_rows_goes_on_in_order(kind, monkeypatch):
    """A table of three steps, cut by rows of the log at seven."""
    options = quiet(dispatch=kind, log_every=7)
    whole = jdl.fit(net(), line(), batch_size=8, epochs=3, options=options)
    monkeypatch.setattr(batches, "TABLE_ROWS", 24)
    assert_same_run(whole, jdl.fit(net(), line(), batch_size=8, epochs=3, options=options))


class Slow(Source):
    """Every example takes a hundredth of a second."""

    def __getitem__(self, index):
        time.sleep(0.01)
        return super().__getitem__(index)


def shares(data, kind="step", **more):
    """The part of the time of each row that steps waited for data; None where it is not stated."""
    options = quiet(log_every=2, dispatch=kind)
    rows = jdl.fit(net(), data, batch_size=8, options=options, **more).history
    return [row.get("wait_share") for row in rows[1:]]


def four_in_a_stack(monkeypatch):
    bytes_of_batch = sum(array[:8].nbytes for array in line().values())
    monkeypatch.setattr(batches, "STACK_BYTES", 4 * bytes_of_batch)


@pytest.mark.parametrize("kind", ["step", "loop"])
def test_the_wait_for_data_is_in_the_log(kind, monkeypatch):
    # Eight examples a batch in four threads: 20 ms a batch, for a step of less than one. A batch
    # that was read while the program was compiled is not waited for.
    four_in_a_stack(monkeypatch)
    slow = shares(Feed(Slow(line()), 8), kind, epochs=5)
    assert max(slow) > 0.5 and all(0 <= share <= 1 for share in slow)
    assert set(shares(line(), epochs=5)) == {None}  # what lives on the device is not waited for


def test_a_stack_is_put_together_while_the_step_before_it_runs(monkeypatch):
    # Reading takes 40 ms a stack, and training on it 60: but for the first, nothing is waited for.
    fast = Executor.advance

    def slowly(self, state, until):
        first = self.step
        found = fast(self, state, until)
        time.sleep(0.015 * (self.step - first))
        return found

    monkeypatch.setattr(Executor, "advance", slowly)
    four_in_a_stack(monkeypatch)
    monkeypatch.setattr(feed_module, "RESIDENT_BYTES", 0)
    taken = Feed.batches

    def sleeping(self, *given):
        time.sleep(0.04)
        return taken(self, *given)

    monkeypatch.setattr(Feed, "batches", sleeping)
    found = shares(line(), "loop", epochs=10)
    assert sorted(found)[len(found) // 2] < 0.2


@pytest.mark.parametrize("steps", [3, 4, 32])
def test_stacks_that_end_elsewhere_than_the_log_change_nothing(steps, monkeypatch):
    monkeypatch.setattr(feed_module, "RESIDENT_BYTES", 0)
    runs = []
    for most in (steps, 1):
        force(monkeypatch, "loop", most)
        options = quiet(log_every=5)
        runs.append(jdl.fit(net(), line(), batch_size=8, epochs=3, options=options))
    learners.assert_same_bits(*(run.state for run in runs))
    losses = [[row["loss"] for row in run.history] for run in runs]
    assert losses[0] == losses[1]


def test_a_stack_stays_small(monkeypatch):
    state = jax.jit(net().init)(jax.random.key(0), line(8))
    one = sum(array[:8].nbytes for array in line().values())
    feed = Feed(line(), 8)
    found = [
        StreamedBatches(feed, state, steps, TimeBreakdown())._steps for steps in (1, 32, 10**9)
    ]
    assert found == [1, 32, STACK_BYTES // one]


def test_another_dispatch_than_the_run_began_with_is_refused(tmp_path):
    """It would change the bits of a run that has begun."""

    def run(kind):
        options = quiet(dispatch=kind)
        return jdl.fit(net(), line(), batch_size=8, epochs=1, run_dir=tmp_path, options=options)

    run("loop")
    assert int(run("loop").state.step) == 6
    text = learners.message(lambda: run("step"))
    assert 'fit.dispatch: "loop" in the run, "step" now' in text
