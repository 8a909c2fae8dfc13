"""What happened to the time: accounts, recompilations, the arithmetic, traces."""

import gzip
import json
import logging
import threading
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdl
from jdl.core.flops import Flops
from jdl.report.report import write_report
from jdl.run.execution.trace import trace_steps
from jdl.run.storage.run_dir import RunDir
from jdl.run.telemetry import sessions
from jdl.run.telemetry.clock import CATEGORIES, TimeBreakdown
from jdl.run.telemetry.recompilation import MAX_WARNINGS, CompilationMonitor
from tests.support import learners
from tests.support.runs import force, line, net, quiet

pytestmark = pytest.mark.usefixtures("kept_programs")


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on when it is told to."""
    now = SimpleNamespace(at=0.0)
    monkeypatch.setattr(time, "perf_counter", lambda: now.at)

    def wait(seconds):
        now.at += seconds

    return wait


def test_every_second_is_in_one_account(clock):
    accounts = TimeBreakdown()
    clock(1)
    with accounts.span("other"):
        clock(2)
        with accounts.span("compute"):
            clock(4)
            with accounts.span("data"):
                clock(8)
            clock(16)
        with pytest.raises(ZeroDivisionError), accounts.span("save"):
            clock(32)
            _ = 1 / 0
        clock(64)
    expected = {"setup": 1, "other": 66, "compute": 20, "data": 8, "save": 32}
    assert accounts.seconds == dict.fromkeys(CATEGORIES, 0.0) | expected
    assert accounts.total() == 127


def test_compiling_is_taken_out_of_the_open_account_and_nested_tracing_counts_once(clock):
    hear = "/jax/core/compile/{}".format
    accounts = TimeBreakdown()
    with accounts, accounts.span("compute"):
        clock(10)  # of which 3 traced a function within one that took 7, and 2 compiled it
        jax.monitoring.record_event_duration_secs(hear("jaxpr_trace_duration"), 3.0)
        clock(1)
        jax.monitoring.record_event_duration_secs(hear("jaxpr_trace_duration"), 7.0)
        clock(2)
        jax.monitoring.record_event_duration_secs(
            hear("backend_compile_duration"), 2.0, fun_name="jit(f)"
        )
        other = threading.Thread(
            target=jax.monitoring.record_event_duration_secs,
            args=(hear("backend_compile_duration"), 5.0),
        )
        other.start()
        other.join()
    assert accounts.total() == 13
    assert (accounts.seconds["compile"], accounts.seconds["compute"]) == (9, 4)
    assert accounts.compiled == {"jit(f)": 1}
    # Nothing is heard once it has been left.
    jax.monitoring.record_event_duration_secs(hear("backend_compile_duration"), 2.0)
    assert accounts.seconds["compile"] == 9


def watched(accounts):
    def step(state, batch):
        return jax.tree.map(lambda t: t + batch["x"].sum(), state), batch["x"] @ jnp.ones((3, 5))

    return CompilationMonitor(jax.jit(step, donate_argnums=0), accounts, "state", "batch")


def test_a_compilation_is_explained_by_the_leaf_that_changed(caplog):
    caplog.set_level(logging.WARNING, logger="jdl")
    accounts = TimeBreakdown()
    step = watched(accounts)

    def call(x, start=0.0):
        step({"w": jnp.full(3, np.float32(start))}, {"x": x})

    with accounts:
        for _ in range(3):
            call(np.ones((8, 3), np.float32))
        assert not accounts.recompiled and not caplog.records
        assert step.flops() == Flops(2 * 8 * 3 * 5)
        call(np.ones((6, 3), np.float32))
        call(np.ones((6, 3), np.float16))
        call(np.ones((8, 3), np.float32))  # known: nothing is compiled
        step({"w": 1.0}, {"x": np.ones((8, 3), np.float32)})
    changes = [one["changed"] for one in accounts.recompiled]
    assert changes[0] == ["batch/x was float32[8,3] and is float32[6,3]"]
    assert changes[1] == ["batch/x was float32[6,3] and is float16[6,3]"]
    assert changes[2] == ["state/w was float32[3] and is float32[] of weak type"]
    assert caplog.records[0].getMessage() == (
        "jit(step) was compiled again: batch/x was float32[8,3] and is float32[6,3]"
    )
    assert len(caplog.records) == 3


def test_where_an_array_lies_tells_programs_apart():
    accounts = TimeBreakdown()
    step = watched(accounts)
    wide = jdl.mesh(data=8)
    rows = jax.NamedSharding(wide, jax.P("data"))
    with accounts:
        for batch in (jnp.ones((8, 3)), jax.device_put(jnp.ones((8, 3)), rows)):
            step({"w": jnp.zeros(3)}, {"x": batch})
    (one,) = accounts.recompiled
    assert one["changed"][0].startswith("batch/x was float32[8,3] and is float32[8,3] on 8 devices")
    assert "data" in one["changed"][0]


def test_many_warnings_of_one_program_are_not_all_shown(caplog):
    accounts = TimeBreakdown()
    step = CompilationMonitor(jax.jit(_double), accounts, "x")
    with accounts:
        for n in range(1, MAX_WARNINGS + 4):
            step(np.ones(n))
    assert len(accounts.recompiled) == MAX_WARNINGS + 2
    assert len(caplog.records) == MAX_WARNINGS
    assert caplog.records[-1].getMessage().endswith("recompilations are counted, not logged")


def _double(x):
    return x + x


# A run


class Changing(jdl.Feed):
    """A stream whose batches are float16 from step 9 on, and half as large from step 11 on."""

    @property
    def is_resident(self):
        return False

    def batch(self, step, rows=None):
        batch = super().batch(step, rows)
        if step >= 9:
            batch["x"] = batch["x"].astype(np.float16)
        return {name: rows[:4] for name, rows in batch.items()} if step >= 11 else batch

    def batches(self, start, count, rows=None):
        return {name: array[None] for name, array in self.batch(start, rows).items()}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run from a stream that changes, with a trace, saves and evaluations, and its seconds."""
    folder = tmp_path_factory.mktemp("run") / "one"
    options = quiet(log_every=4, save_seconds=0.0, profile=3)
    with pytest.MonkeyPatch.context() as patch:
        force(patch, "step", 2)
        began = time.perf_counter()
        feed = Changing(line(32), 8)
        jdl.fit(net(), feed, valid=line(8), epochs=3.5, run_dir=folder, options=options)
    return RunDir(folder), time.perf_counter() - began


def test_the_accounts_of_a_run_add_up_to_its_time(run):
    folder, whole = run
    (session,) = sessions.read(folder.times)
    seconds = session["time_seconds"]
    assert tuple(seconds) == CATEGORIES
    assert 0.9 * whole < sum(seconds.values()) <= whole
    assert all(value > 0 for value in seconds.values())
    assert (session["first_step"], session["last_step"]) == (0, 14)
    # Of four examples, as at last: two products of the first layer and three of the second; and
    # those by which guard looks through 32 weights and two moments of each.
    assert session["flops"] == 2 * 4 * (2 * 3 * 8 + 3 * 8 * 1) + 2 * 32 * 3
    assert session["programs"] >= 4


def test_a_feed_that_changes_is_named(run):
    folder, _ = run
    found = sessions.read(folder.times)[0]["recompiled"]
    assert [one["program"] for one in found] == ["jit(step)"] * 2
    one, other = (change["changed"] for change in found)
    assert one == ["data/stack/x was float32[1,8,3] and is float16[1,8,3]"]
    assert [text.split()[0] for text in other] == ["data/stack/x", "data/stack/y"]


def test_the_trace_holds_its_steps(run):
    folder, _ = run
    (file,) = folder.profile.glob("plugins/profile/*/*.trace.json.gz")
    assert list(file.parent.glob("*.xplane.pb"))
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    steps = [int(e["args"]["step_num"]) for e in events if e.get("name") == "train"]
    assert not [e for e in events if e.get("name", "").startswith("$")]  # Python's own calls
    assert steps == [2, 4]  # three steps, of dispatches of two: 2 and 3, then 4 alone


def test_the_page_shows_the_time(run):
    folder, _ = run
    page = write_report(folder).read_text()
    section = page.split("<h2>Time</h2>")[1].split("</section>")[0]
    assert section.count("<tr><td>") == section.count("<i style=") >= 3
    assert "jit(step) was compiled again: data/stack/x was float32[1,8,3]" in section
    assert "FLOP a step" in section and "tensorboard --logdir" in section


def test_sessions_of_a_resumed_run_add_up(tmp_path):
    for epochs in (1, 2):
        jdl.fit(
            net(), line(), batch_size=8, epochs=epochs, run_dir=tmp_path / "run", options=quiet()
        )
    recorded = sessions.read(tmp_path / "run" / "time.json")
    assert [(one["first_step"], one["last_step"]) for one in recorded] == [(0, 6), (6, 12)]
    each = [sum(one["time_seconds"].values()) for one in recorded]
    assert sum(sessions.totals(recorded).values()) == pytest.approx(sum(each))


def test_a_session_without_a_step_is_left_out_and_a_damaged_file_is_none(tmp_path):
    file = tmp_path / "time.json"
    sessions.write(file, [], made(last_step=0))
    assert not file.exists()
    sessions.write(file, [made()], made(last_step=0))
    assert sessions.read(file) == [made()]
    file.write_text('{"sessions": [3]}')
    assert sessions.read(file) == []


@pytest.mark.parametrize(
    "damage",
    [
        {"time_seconds": 5},
        {"time_seconds": {"compute": "3"}},
        {"time_seconds": {"compute": float("inf")}},
        {"time_seconds": {"compute": 10**400}},
        {"last_step": "8"},
        {"first_step": None},
        {"flops": 3},
        {"flops": 3, "devices": 0, "device_kind": "cpu"},
        {"flops": 3, "devices": 1, "device_kind": ["cpu"]},
        {"flops": "3", "devices": 1, "device_kind": "cpu"},
        {"recompiled": None},
        {"recompiled": 3},
        {"recompiled": [3]},
        {"recompiled": [{"program": "step", "changed": [3]}]},
    ],
    ids=str,
)
def test_a_damaged_session_is_left_out(damage, tmp_path):
    file = tmp_path / "time.json"
    file.write_text(json.dumps({"sessions": [made(**damage), made(last_step=9)]}))
    assert sessions.read(file) == [made(last_step=9)]


@pytest.mark.parametrize("content", ["{", '{"sessions": null}', '{"sessions": {"a": 1}}'])
def test_a_damaged_file_of_sessions_has_none(content, tmp_path):
    (tmp_path / "time.json").write_text(content)
    assert sessions.read(tmp_path / "time.json") == [] == sessions.read(tmp_path)


@pytest.mark.slow
def test_a_trace_changes_no_number(tmp_path):
    runs = [
        jdl.fit(
            net(0.3),
            line(),
            batch_size=8,
            epochs=2,
            run_dir=tmp_path / str(n),
            options=quiet(profile=n),
        )
        for n in (0, 5)
    ]
    learners.assert_same_bits(*(run.state for run in runs))


class Steps:
    """An executor that does nothing, and is interrupted at a step."""

    def __init__(self, fails_at=None):
        self.step, self._fails_at = 0, fails_at

    def advance(self, state, until):
        if self.step == self._fails_at:
            raise KeyboardInterrupt
        self.step = until
        return state, {}


def test_a_run_of_one_dispatch_says_that_there_is_no_trace(tmp_path, caplog):
    executor = Steps()
    with trace_steps(executor, tmp_path, 5):
        executor.advance({}, 9)
    assert caplog.records[0].getMessage().startswith("no trace was written: ")
    assert not list(tmp_path.iterdir())


def test_a_trace_ends_with_its_run_and_needs_a_folder(tmp_path):
    executor = Steps(fails_at=1)
    with pytest.raises(KeyboardInterrupt), trace_steps(executor, tmp_path, 5):
        executor.advance({}, 1)
        executor.advance({}, 9)
    jax.profiler.start_trace(str(tmp_path))  # which would raise, had the other not been ended
    jax.profiler.stop_trace()
    text = learners.message(lambda: jdl.fit(net(), line(), batch_size=8, options=quiet(profile=5)))
    assert "got:      a run without a directory" in text


# The words


def made(**more):
    seconds = {"compute": 6.0, "data": 1.0, "other": 1.0, "compile": 2.0}
    return {"time_seconds": seconds, "first_step": 0, "last_step": 8, "recompiled": [], **more}


def test_the_line_says_how_fast_it_was_where_the_peak_is_known():
    known = made(flops=197 * 10**12, devices=4, device_kind="TPU v5 lite")
    # 8 steps of 197 T in 8 seconds are a quarter of four devices' peak.
    assert sessions.summary_line([known]) == (
        "10.0 s: compute 60 %, compile 20 %, data 10 %, other 10 %; "
        "197 TFLOP a step, 197 TFLOP/s; "
        "25.0 % of 4 x TPU v5 lite at 197 TFLOP/s (model-FLOPs utilisation)"
    )
    cpu = sessions.summary_line([made(), made(flops=1000, devices=1, device_kind="cpu")])
    assert cpu.startswith("20.0 s: ") and cpu.endswith("1 kFLOP a step, 1 kFLOP/s")


def test_the_line_counts_what_was_compiled_again():
    again = [{"program": "jit(step)", "changed": []}]
    assert sessions.summary_line([made(recompiled=again)]).endswith("; 1 recompilation")
    assert sessions.recompilations([made(recompiled=again)]) == [
        "jit(step) was compiled again: its arguments look the same"
    ]
