"""A run has the same bits however it is cut into dispatches and wherever its batches come from."""

import json
import time

import jax
import numpy as np
import optax
import pytest

import jdl
from jdl.core import lowering
from jdl.data import feed as feed_module
from jdl.data.feed import Feed
from jdl.run import fit
from jdl.run.execution import autotune, choosing, executor, remembered
from jdl.run.execution.executor import STACK_BYTES, DispatchMode, Executor
from jdl.run.storage.run_dir import RunDir
from tests.support import learners
from tests.support.runs import assert_same_run, classes, dropout_net, line, net, quiet
from tests.support.sources import Source

pytestmark = pytest.mark.usefixtures("kept_programs")


@pytest.fixture
def forced(monkeypatch):
    """Runs a learner in a given form."""

    def run(learner, data, form, size, **given):
        monkeypatch.setattr(fit, "chosen", lambda *_: DispatchMode(form, size))
        given = {"batch_size": 8, "epochs": 4, "options": quiet(log_every=5)} | given
        return jdl.fit(learner, data, valid=line(20, seed=1), **given)

    return run


@pytest.fixture(scope="module")
def cnn():
    """A small network of convolutions, and pictures for it."""
    draw = np.random.default_rng(0)
    data = {"x": draw.random((24, 8, 8, 1), np.float32), "y": np.arange(24, dtype=np.int32) % 3}
    model = jdl.models.CNN(features=(2,), hidden=(4,), classes=3, dropout=0.2)
    return jdl.learner(jdl.classification(jdl.from_linen(model)), optax.adam(1e-2)), data


def test_a_loop_cut_in_any_way_has_the_same_bits(forced):
    runs = [forced(net(0.3), line(), "loop", size) for size in (1000, 1, 3, 7)]
    assert int(runs[0].state.step) == 24
    for other in runs[1:]:
        assert_same_run(runs[0], other)


@pytest.mark.slow
def test_dropout_is_the_same_in_any_cut(monkeypatch):
    runs = []
    for size in (1000, 4):
        monkeypatch.setattr(fit, "chosen", lambda *_, size=size: DispatchMode("loop", size))
        runs.append(jdl.fit(dropout_net(), classes(), batch_size=8, epochs=2, options=quiet()))
    assert_same_run(*runs)


def test_steps_one_by_one_have_the_same_bits_in_any_number(forced):
    one = forced(net(0.3), line(), "step", 1)
    assert_same_run(one, forced(net(0.3), line(), "step", 32))
    other = forced(net(0.3), line(), "step", 32, seed=1)
    assert learners.differ(one.state.params, other.state.params)


@pytest.mark.parametrize("form", ["step", "loop"])
def test_resident_and_streamed_have_the_same_bits(forced, monkeypatch, form):
    resident = forced(net(0.3), line(), form, 6)
    source = Source(line())
    assert_same_run(resident, forced(net(0.3), Feed(source, 8, 0), form, 6))
    assert source.reads >= 4 * 48  # it was streamed
    monkeypatch.setattr(Feed, "is_resident", property(lambda self: False))
    assert_same_run(resident, forced(net(0.3), line(), form, 4))


@pytest.mark.slow
def test_resident_and_streamed_have_the_same_bits_with_convolutions(monkeypatch, cnn):
    learner, data = cnn
    monkeypatch.setattr(fit, "chosen", lambda *_: DispatchMode("step", 3))
    feeds = [Feed(data, 8, 0), Feed(Source(data), 8, 0)]
    one, other = (jdl.fit(learner, feed, epochs=2, options=quiet(log_every=4)) for feed in feeds)
    assert_same_run(one, other)


@pytest.mark.slow
def test_sharded_runs_have_the_same_bits_in_any_cut(forced):
    wide = jdl.shard(net(0.3), jdl.mesh(data=8), jdl.rules.fsdp(smallest=8))
    runs = [forced(wide, line(), "loop", size, epochs=2) for size in (1000, 4)]
    assert_same_run(*runs)


@pytest.mark.parametrize("form", ["step", "loop"])
def test_one_program_trains_from_a_stream(monkeypatch, form):
    monkeypatch.setattr(fit, "chosen", lambda *_: DispatchMode(form, 6))
    with learners.compilations() as names:
        jdl.fit(net(), Feed(Source(line()), 8), epochs=3, options=quiet(log_every=7))
    assert names.count("jit(step)") == 1


def test_measuring_chooses_one_form_and_writes_it_down(tmp_path, monkeypatch):
    given = {"batch_size": 8, "epochs": 2, "seed": 3}
    measured = jdl.fit(
        net(), line(), run_dir=tmp_path / "run", options=quiet(dispatch="auto"), **given
    )
    choice = json.loads((tmp_path / "run" / "dispatch.json").read_text())
    assert choice["form"] in ("step", "loop") and choice["size"] >= 1
    # What was measured leaves no trace in the run.
    monkeypatch.setattr(fit, "chosen", lambda *_: DispatchMode(**choice))
    assert_same_run(measured, jdl.fit(net(), line(), options=quiet(), **given))


def test_a_form_is_measured_once_in_the_life_of_a_run(tmp_path, monkeypatch):
    RunDir(tmp_path).create({})
    state = jax.jit(net().init)(jax.random.key(0), line(8))
    programs = Executor(net(), Feed(line(), 8), state)
    chosen = [(DispatchMode("loop", 5), True), (DispatchMode("step", 1), True)]
    monkeypatch.setattr(choosing, "autotune", lambda *_: chosen.pop(0))
    monkeypatch.setattr(remembered, "_file", lambda: None)
    for _ in range(3):
        assert choosing.chosen(programs, state, "auto", RunDir(tmp_path)) == ("loop", 5)
    assert choosing.chosen(programs, state, "step", RunDir(tmp_path)) == ("loop", 5)
    assert choosing.chosen(programs, state, "auto", None) == ("step", 1)


@pytest.mark.parametrize("resident", [True, False])
def test_a_program_is_known_by_its_text_without_its_large_constants(monkeypatch, resident):
    monkeypatch.setattr(Feed, "is_resident", property(lambda self: resident))
    state = jax.jit(net().init)(jax.random.key(0), line(8))

    def texts(rate, number):
        # As a teacher's weights are. (An array of one number would be written as that number.)
        held = number * np.arange(1000, dtype=np.float32)

        def step(state, batch, *, axis=None):
            far = jax.numpy.asarray(held).mean()
            return net(rate).step(state, batch | {"y": batch["y"] + far}, axis=axis)

        programs = Executor(net(rate)._replace(step=step), Feed(line(), 8), state)
        return [programs.text(state, form) for form in ("step", "loop")]

    assert all(len(text) < 50_000 for text in texts(0.1, 1.0))
    assert texts(0.1, 1.0) == texts(0.1, 2.0)
    assert not set(texts(0.1, 1.0)) & set(texts(0.2, 1.0))


def test_single_steps_have_xlas_convolutions_and_loops_products(cnn):
    learner, data = cnn
    wide = jdl.models.CNN(features=(6, 2), hidden=(), classes=3, padding="SAME")
    learner = jdl.learner(jdl.classification(jdl.from_linen(wide)), optax.sgd(0.1))
    state = jax.jit(learner.init)(jax.random.key(0), {k: v[:8] for k, v in data.items()})
    programs = Executor(learner, Feed(data, 8), state)
    given = {"step": (state, programs.shapes), "loop": (state, programs.shapes, 2)}
    steps = {"step": programs._one, "loop": programs._many}
    texts = {form: steps[form].lower(*given[form]).compile().as_text() for form in steps}
    assert " convolution(" in texts["step"] and " convolution(" not in texts["loop"]


def test_on_an_nvidia_device_a_loop_is_one_graph(monkeypatch):
    state = jax.jit(net().init)(jax.random.key(0), line(8))
    plain = Executor(net(), Feed(line(), 8), state)
    monkeypatch.setattr(lowering, "cuda_capability", lambda: 9.0)
    asked = {}
    jit = jax.jit

    def seen(function, **options):
        asked[function.__name__] = options.get("compiler_options")
        return jit(function, **options)

    monkeypatch.setattr(jax, "jit", seen)
    programs = Executor(net(), Feed(line(), 8), state)
    kinds = next(filter(None, asked.values()))["xla_gpu_enable_command_buffer"].split(",")
    assert "WHILE" in kinds and "FUSION" in kinds
    # The compiler knows every word, on CPU too, where they mean nothing.
    copies = (jax.tree.map(jax.numpy.copy, state) for _ in range(2))
    dispatched = [each.advance(DispatchMode("loop", 8), 0) for each in (programs, plain)]
    learners.assert_same_bits(
        *(run(copy, 0, 8)[0] for run, copy in zip(dispatched, copies, strict=True))
    )


@pytest.mark.parametrize("form", ["step", "loop"])
def test_a_run_that_outlasts_its_table_of_rows_goes_on_in_order(form, monkeypatch):
    """A table of three steps, cut by rows of the log at seven."""
    options = quiet(dispatch=form, log_every=7)
    whole = jdl.fit(net(), line(), batch_size=8, epochs=3, options=options)
    monkeypatch.setattr(executor, "MAX_TABLE_ROWS", 24)
    assert_same_run(whole, jdl.fit(net(), line(), batch_size=8, epochs=3, options=options))


class Slow(Source):
    """Every example takes a hundredth of a second."""

    def __getitem__(self, index):
        time.sleep(0.01)
        return super().__getitem__(index)


def shares(data, form="step", **more):
    """The part of the time of each row that steps waited for data; None where it is not said."""
    options = quiet(log_every=2, dispatch=form)
    rows = jdl.fit(net(), data, batch_size=8, options=options, **more).history
    return [row.get("wait_share") for row in rows[1:]]


@pytest.mark.parametrize("form", ["step", "loop"])
def test_the_wait_for_data_is_in_the_log(form, monkeypatch):
    # Eight examples a batch in four threads: 20 ms a batch, for a step of less than one. A batch
    # that was read while the program was compiled is not waited for.
    monkeypatch.setattr(Executor, "_stack_size", lambda *_: 4)
    slow = shares(Feed(Slow(line()), 8), form, epochs=5)
    assert max(slow) > 0.5 and all(0 <= share <= 1 for share in slow)
    assert set(shares(line(), epochs=5)) == {None}  # what lives on the device is not waited for


def test_a_stack_is_put_together_while_the_step_before_it_runs(monkeypatch):
    # Reading takes 40 ms a stack, and training on it 60: but for the first, nothing is waited for.
    def slowly(self, dispatch, start):
        advance = fast(self, dispatch, start)

        def run(state, step, boundary):
            found = advance(state, step, boundary)
            time.sleep(0.015 * (found[2] - step))
            return found

        return run

    fast = Executor.advance
    monkeypatch.setattr(Executor, "advance", slowly)
    monkeypatch.setattr(Executor, "_stack_size", lambda *_: 4)
    monkeypatch.setattr(feed_module, "RESIDENT_BYTES", 0)
    taken = Feed.batches

    def sleeping(self, *given):
        time.sleep(0.04)
        return taken(self, *given)

    monkeypatch.setattr(Feed, "batches", sleeping)
    found = shares(line(), "loop", epochs=10)
    assert sorted(found)[len(found) // 2] < 0.2


@pytest.mark.parametrize("size", [3, 4, 32])
def test_stacks_that_end_elsewhere_than_the_log_change_nothing(size, monkeypatch):
    monkeypatch.setattr(feed_module, "RESIDENT_BYTES", 0)
    runs = []
    for most in (size, 1):
        monkeypatch.setattr(Executor, "_stack_size", lambda *_, most=most: most)
        options = quiet(log_every=5, dispatch="loop")
        runs.append(jdl.fit(net(), line(), batch_size=8, epochs=3, options=options))
    learners.assert_same_bits(*(run.state for run in runs))
    losses = [[row["loss"] for row in run.history] for run in runs]
    assert losses[0] == losses[1]


def test_a_stack_stays_small():
    state = jax.jit(net().init)(jax.random.key(0), line(8))
    one = sum(array[:8].nbytes for array in line().values())
    programs = Executor(net(), Feed(line(), 8), state)
    assert [programs._stack_size(size) for size in (1, 32, 10**9)] == [1, 32, STACK_BYTES // one]


def test_the_program_of_a_stream_that_was_measured_is_the_one_of_the_run(monkeypatch, tmp_path):
    monkeypatch.setattr(feed_module, "RESIDENT_BYTES", 0)
    real = autotune.time_step

    def seconds(programs, form, *given, **named):
        real(programs, form, *given, **named)
        return {"step": 0.2, "loop": 0.01}[form]

    monkeypatch.setattr(autotune, "time_step", seconds)
    options = quiet(dispatch="auto")
    run = jdl.fit(net(), line(), batch_size=8, epochs=40, run_dir=tmp_path / "run", options=options)
    assert run.run_dir is not None
    told = json.loads((run.run_dir / "time.json").read_text())
    assert told["sessions"][0]["recompiled"] == []
    assert json.loads((run.run_dir / "dispatch.json").read_text()) == {"form": "loop", "size": 2}


def test_a_form_asked_for_too_late_is_named(tmp_path, caplog):
    """Another form would change the bits of a run that has begun."""

    def forms(form, epochs):
        caplog.clear()
        options = quiet(dispatch=form)
        jdl.fit(
            net(), line(), batch_size=8, epochs=epochs, run_dir=tmp_path / "run", options=options
        )
        return [record.getMessage() for record in caplog.records if "goes on" in record.msg]

    assert forms("loop", 1) == forms("loop", 1) == forms("auto", 1) == []
    assert forms("step", 1) == [
        'dispatch: the run goes on in the form "loop" that it began with, not "step"'
    ]
