"""One run in several processes: slices of one order, one writer, and an end for all."""

import functools
import json
import os
import signal
import sys
import textwrap
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdl.cli import flags, process
from jdl.core.errors import InputError
from jdl.data.feed import Feed
from jdl.data.order import Order, process_rows
from jdl.run.distributed import collectives, exit_reporter, join
from jdl.run.distributed.watchdog import FINAL_PHASE, HealthCheck, Heartbeat
from jdl.run.experiment import load_module
from tests.support import learners, multiprocess
from tests.support.multiprocess import command, ended, members, started, struck, train
from tests.support.runs import content, rows, saved, target_of_experiment

# Slices of the one global order, without processes


@settings(max_examples=10, deadline=None)
@given(
    size=st.integers(256, 5000),
    each=st.integers(1, 4),
    step=st.integers(0, 10**6),
    seed=st.integers(0, 2**32 - 1),
)
def test_64_hosts_feed_every_example_of_every_step_once(size, each, step, seed):
    hosts, batch = 64, 64 * each
    order = Order(size, seed)
    for at in (step, step + 1):
        parts = [order(at, batch, np)[process_rows([host], hosts, batch)] for host in range(hosts)]
        assert {len(part) for part in parts} == {each}
        np.testing.assert_array_equal(np.concatenate(parts), order(at, batch, np))


def test_64_hosts_see_whole_epochs_and_the_same_slices_after_a_resume():
    hosts, batch, size = 64, 128, 640
    feed = Feed({"x": np.arange(size)}, batch, seed=3)
    seen = []
    for host in range(hosts):
        mine = process_rows([host], hosts, batch)
        whole = [feed.batch(step, mine)["x"] for step in range(10)]
        if host in (0, 63):
            resumed = feed.stream(7, rows=mine)
            again = [next(resumed)["x"] for _ in range(3)]
            resumed.close()
            np.testing.assert_array_equal(np.stack(whole[7:]), np.stack(again))
        seen.append(np.concatenate(whole))
    # Ten batches are two epochs: every example twice, and no host has what another has there.
    assert (np.bincount(np.concatenate(seen)) == 2).all()
    assert len({len(part) for part in seen}) == 1


def test_a_process_with_several_parts_feeds_them_in_order():
    assert process_rows([5, 1], 8, 16).tolist() == [2, 3, 10, 11]
    assert process_rows(range(8), 8, 16).tolist() == list(range(16))
    with pytest.raises(InputError, match=r"multiple of 8.*\n.*12\n.*use 8"):
        process_rows([0], 8, 12)


# The judge, without processes


def beats(*places, number=1, limit=5.0):
    return {i: Heartbeat(number, place, limit, f"step {place}") for i, place in enumerate(places)}


def test_a_judge_waits_for_the_slow_and_not_for_the_silent():
    judge = HealthCheck(limit=5)
    assert judge(beats(3, 3, 3), 0) is None
    assert judge(beats(3, 3, 3, number=2), 100) is None  # all wait: a long step is no fault
    assert judge(beats(4, 4, 3, number=3), 101) is None  # nor is it to be a moment late
    assert judge(beats(4, 4, 3, number=4), 106) is None
    assert judge(beats(4, 4, 3, number=5), 106.1).process == 2
    silent = HealthCheck(limit=5)
    assert silent(beats(3, 3), 0) is None
    assert silent({**beats(3, 3), 0: Heartbeat(2, 3, 5, "step 3")}, 5) is None
    verdict = silent({**beats(3, 3), 0: Heartbeat(3, 3, 5, "step 3")}, 5.1)
    assert verdict.process == 1 and "process 1 has been silent" in verdict.reason


def test_a_judge_allows_more_for_slow_work_and_forgets_who_is_done():
    judge = HealthCheck(limit=5)
    for now in range(0, 300, 4):  # compiling may take `start`
        slow = {0: Heartbeat(now, 4, 5, "step 4"), 1: Heartbeat(now, 3, 300, "compiling")}
        assert judge(slow, now) is None
    over = {0: Heartbeat(1, 9, 5, FINAL_PHASE), 1: Heartbeat(now, 3, 300, "compiling")}
    assert (
        judge(over, now + 1) is None
        and judge({**over, 1: Heartbeat(0, 3, 5, "x")}, now + 2) is None
    )


def test_a_process_that_never_spoke_is_silent():
    judge = HealthCheck(limit=5)
    assert judge({0: Heartbeat(1, 0, 5, "starting"), 1: None}, 0) is None
    assert judge({0: Heartbeat(2, 0, 5, "starting"), 1: None}, 6).process == 1


# One process alone


def test_one_process_agrees_with_itself_at_once():
    agreed = collectives.Consensus()
    assert agreed(None, False) == (None, False)
    assert agreed(15, True) == (15, True)
    assert collectives.all_gather({"a": 1}) == [{"a": 1}] and collectives.broadcast("b") == "b"
    assert collectives.on_process_0(lambda: 3) == 3
    collectives.check_consistent({"a": 1})


def caused_by(failure, cause):
    failure.__cause__ = cause
    return failure


def test_a_wish_is_carried_out_by_all_two_dispatches_later(monkeypatch):
    monkeypatch.setattr(collectives, "is_multiprocess", lambda: True)
    agreed = collectives.Consensus()
    nothing = (None, False)
    assert [agreed(None, True) for _ in range(2)] == [nothing] * 2
    # Each of the dispatches asked for a save, and it is made once.
    assert agreed(None, True) == (None, True)
    assert [agreed(None, False) for _ in range(4)] == [nothing] * 4
    assert [agreed(15, False), agreed(None, False)] == [nothing] * 2
    assert agreed(None, True) == (15, False)


def test_what_differs_between_processes_is_named(monkeypatch):
    theirs = [{"width": 8, "run.seed": 0}, {"width": 8, "run.seed": 1}, {"width": 9}]
    monkeypatch.setattr(collectives, "is_multiprocess", lambda: True)
    monkeypatch.setattr(collectives, "all_gather", lambda mine: theirs)
    with pytest.raises(InputError, match="configuration of 3 processes") as refused:
        collectives.check_consistent({"width": 8, "run": {"seed": 0}})
    got = "run.seed: 0 in process 0, 1 in process 1; width: 8 in process 0, 9 in process 2"
    assert got in str(refused.value) and "run.seed: 0 in process 0, None" in str(refused.value)


def test_a_directory_that_one_does_not_see(monkeypatch):
    monkeypatch.setattr(collectives, "all_gather", lambda mine: [mine, False, True, False])
    with pytest.raises(InputError) as refused:
        collectives.check_shared(Path("/data/run"), True)
    assert "no run in it for process 1, 3" in str(refused.value)
    assert "a directory on a shared disk (--run.dir)" in str(refused.value)


@pytest.mark.parametrize(
    ("failure", "is_of_others"),
    [
        (ValueError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer"), True),
        (jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: Barrier timed out"), True),
        (caused_by(RuntimeError("a run"), ValueError("UNAVAILABLE: no peer")), True),
        (ValueError('UNKNOWN: Error writing "c/0": Input/output error'), False),
        (ValueError("UNKNOWN: Failed to fsync file [os_error_code='5']"), False),
        (caused_by(InputError("not written"), ValueError("UNAVAILABLE: no peer")), False),
        (RuntimeError("a fault on purpose"), False),
    ],
)
def test_who_is_to_blame_for_an_exception(failure, is_of_others):
    assert collectives.is_failed_collective(failure) is is_of_others


def test_one_process_resumes_what_several_began_sharded(tmp_path):
    flag = flags.RunFlags(dir=str(tmp_path), sharding="fsdp")
    assert flags.default_mesh(flag) == flag
    for mesh, wanted in ((None, "data=8"), ("data=4", None)):
        (tmp_path / "config.json").write_text(json.dumps({"run": {"mesh": mesh}}))
        assert flags.default_mesh(flag).mesh == wanted
    assert flags.default_mesh(flags.RunFlags(dir=str(tmp_path))).mesh is None


def test_flags_of_several_processes():
    for words in (["localhost:1"], ["localhost", "--run.processes", "2", "--run.process", "0"]):
        run = flags.parse(several_config(), ["--run.coordinator", *words], "jdl train")[1]
        with pytest.raises(InputError, match=r"--run.coordinator\n.*HOST:PORT"):
            process.join_processes(run)
    with pytest.raises(InputError, match=r"--run.process\n.*from 0 to 1"):
        join.join("localhost:1", 2, 2, 1)
    assert flags.default_mesh(flags.RunFlags()).mesh is None


def several_config():
    from tests.support.faulty_experiment import Config

    return Config


def test_a_learner_without_a_mesh_is_refused_in_several_processes(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(InputError, match=r"fit in 2 processes\n.*all 8 devices"):
        collectives.check_uses_all_processes(None)


# Real processes

KEEPER = """
    import hashlib, sys
    import jax, optax, numpy as np
    import jdl
    from jdl.core import tree
    from jdl.run.storage import leaf_io
    from jdl.run.storage.checkpoint import Checkpoints
    from jdl.run.distributed.join import join

    folder, rule, *place = sys.argv[1:]
    if place:
        join(place[0], int(place[1]), int(place[2]), 60)
    model = jdl.from_linen(jdl.models.MLP((64, 32), outputs=8))
    learner = jdl.learner(jdl.regression(model), optax.adam(1e-2))
    rules = {"replicated": jdl.rules.replicated(), "fsdp": jdl.rules.fsdp(smallest=8)}
    wide = jdl.shard(learner, jdl.mesh(data=jax.device_count()), rules[rule])
    x = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)
    batch = {"x": x, "y": x}
    state = jax.jit(wide.init)(jax.random.key(1), batch)
    saved = Checkpoints(folder + "/checkpoints")
    if saved.steps():
        fresh = jax.tree.map(lambda leaf: leaf + 1 if leaf.dtype == np.float32 else leaf, state)
        state, step = saved.restore(fresh)
    else:
        state, _ = jax.jit(wide.step)(state, batch)
        step = 0
    saved.save(step + 1, state, wait=True)

    whole = jax.sharding.NamedSharding(jdl.mesh(data=jax.device_count()), jax.P())
    digest = hashlib.sha256()
    for name, leaf in sorted(tree.flatten(state).items()):
        leaf = jax.random.key_data(leaf) if tree.is_key(leaf) else leaf
        spread = leaf.sharding.is_fully_replicated
        print(name, leaf.shape, leaf.sharding.spec, file=sys.stderr)
        full = leaf if spread else jax.jit(lambda a: a, out_shardings=whole)(leaf)
        digest.update(np.asarray(full).tobytes())
    print(digest.hexdigest())
"""


def places_of(count):
    """Arguments of `KEEPER`: none for one process alone."""
    address = f"localhost:{multiprocess.free_port()}"
    return [()] if count == 1 else [(address, count, index) for index in range(count)]


@functools.cache
def shapes():
    """The state of the faulty experiment, to be restored into."""
    module = load_module(multiprocess.FAULTY)
    return target_of_experiment(module.experiment(module.Config()))


def values(folder):
    """What a run left: the bits of its state, and its log without clocks."""
    return content(saved(folder, shapes())), rows(folder)


def assert_same_runs(one, other):
    (state, log), (state2, log2) = values(one), values(other)
    learners.assert_same_bits(state, state2)
    assert log == log2


@pytest.mark.slow
def test_two_processes_train_one_run(tmp_path):
    one, other = train(tmp_path / "run", "--epochs", 1)
    assert (one.code, other.code) == (0, 0), one.err + other.err
    assert "step 13: training loss" in one.out and other.out == ""
    state, log = values(tmp_path / "run")
    assert int(state["step"]) == 13
    assert [(r["step"], r["split"]) for r in log] == [
        *((5, "train"), (10, "train"), (10, "valid"), (13, "train"), (13, "valid"))
    ]
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["processes"] == 2 and len(environment["devices"]) == 4


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run of each number of processes that nothing disturbs."""
    made = {}

    def run(count):
        if count not in made:
            made[count] = tmp_path_factory.mktemp("whole") / "run"
            codes = [one.code for one in train(made[count], count=count)]
            assert codes == [0] * count
        return made[count]

    return run


SAYS = {
    "kill": "process {} has been silent",
    "vanish": "process {} has been silent",
    "freeze": "process {} has been silent",
    "raise": "process {} has ended. RuntimeError: a fault on purpose",
    "exit": "process {} has ended. exit code 0 before the end of the run",
    "hang": "process {} has not moved",
}
GONE = "Terminating process because the JAX distributed service detected fatal errors"


def check_resumes(folder, count, whole):
    """`jdl train` in the folder of a broken run comes to the bits of the one nothing broke."""
    before = len(rows(folder))
    again = train(folder, count=count)
    assert [one.code for one in again] == [0] * count, again
    assert len(rows(folder)) > before
    assert_same_runs(folder, whole(count))


@pytest.mark.slow
@pytest.mark.parametrize("process", [0, 1])
@pytest.mark.parametrize("kind", SAYS)
def test_a_fault_ends_all_and_loses_nothing(tmp_path, whole, kind, process):
    check_fault(tmp_path / "run", whole, kind, process, 2)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "process"), [("kill", 2), ("raise", 3), ("hang", 1)])
def test_a_fault_in_four_processes(tmp_path, whole, kind, process):
    check_fault(tmp_path / "run", whole, kind, process, 4)


def check_fault(folder, whole, kind, process, count):
    commands = [command("--run.dir", folder, *member) for member in members(count)]
    with started(commands, FAULT=f"{process}:{kind}:8", SLOW=0.1) as running:
        others = [member for index, member in enumerate(running) if index != process]
        if kind == "freeze":  # nothing can end a frozen process but who froze it
            found = ended(others)
            os.kill(running[process].pid, signal.SIGCONT)
            (own,) = ended([running[process]])
            found.insert(process, own)
        else:
            found = ended(running)
    began = struck(found)
    for index, one in enumerate(found):
        if index == process:
            continue
        print(f"{kind} in {process} of {count}: {index} ended {one.time - began:.1f} s later")
        assert one.time - began < 10, (index, one.time - began, one.err[-3000:])
        assert one.code not in (0, None), one.err[-3000:]
        said = SAYS[kind].format(process)
        # Where process 0 is gone at once, so is the place to tell it: JAX says it. And where Gloo
        # ends a process from below, its witness does.
        gone = process == 0 and GONE in one.err
        assert said in one.err or gone or exit_reporter.exit_message(index) in one.err, one.err[
            -3000:
        ]
    check_resumes(folder, count, whole)


@pytest.mark.slow
@pytest.mark.parametrize(("process", "count"), [(0, 2), (1, 2), (3, 4)])
def test_sigterm_to_one_saves_all_at_one_step(tmp_path, whole, process, count):
    commands = [command("--run.dir", tmp_path / "run", *member) for member in members(count)]
    with started(commands, FAULT=f"{process}:term:8", SLOW=0.1) as running:
        found = ended(running)
    assert [one.code for one in found] == [0] * count, [one.err[-2000:] for one in found]
    steps = {
        one.err.partition("jdl: stopped by SIGTERM after step ")[2].split()[0] for one in found
    }
    assert len(steps) == 1
    state, _ = values(tmp_path / "run")
    assert int(state["step"]) == int(steps.pop())
    assert max(one.time for one in found) - struck(found) < 10
    check_resumes(tmp_path / "run", count, whole)


@pytest.mark.slow
def test_a_different_configuration_is_named_in_every_process(tmp_path):
    first, second, third = members(3)
    commands = [
        command("--run.dir", tmp_path / "run", *first),
        command("--run.dir", tmp_path / "run", *second, "--width", 9),
        command("--run.dir", tmp_path / "run", *third),
    ]
    with started(commands) as running:
        for one in ended(running):
            assert one.code in (2, 4)
            assert "width: 8 in process 0, 9 in process 1" in one.err
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "told"), [("data", "data.train x"), ("key", "constants.init")])
def test_other_data_or_weights_are_named_in_every_process(tmp_path, kind, told):
    for one in train(tmp_path / "run", DIFFER=f"1:{kind}"):
        assert one.code in (2, 4)
        assert "the data and program of 2 processes" in one.err and told in one.err
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.slow
def test_a_disk_error_of_one_is_its_own_fault(tmp_path, whole):
    one, other = train(tmp_path / "run", FAULT="0:disk:8", SLOW=0.1)
    assert (one.code, other.code) == (2, 4)
    for text in (one.err, other.err):
        assert "process 0 has ended. checkpoint" in text and "got:      Input/output error" in text
    check_resumes(tmp_path / "run", 2, whole)


@pytest.mark.slow
def test_a_slow_disk_is_no_fault(tmp_path, whole):
    found = train(tmp_path / "run", FAULT="0:slow:8", SLOW=0.1)
    assert [one.code for one in found] == [0, 0], [one.err[-2000:] for one in found]
    assert_same_runs(tmp_path / "run", whole(2))


@pytest.mark.slow
def test_a_sharded_run_goes_on_in_one_process(tmp_path):
    rule = ("--run.sharding", "output/kernel$=data,None")
    found = train(tmp_path / "run", "--epochs", 1, *rule)
    assert [one.code for one in found] == [0, 0], [one.err[-2000:] for one in found]
    for epochs, devices in ((2, 1), (3, 4)):
        words = command("--run.dir", tmp_path / "run", "--epochs", epochs, *rule)
        with started([words], devices) as running:
            (one,) = ended(running)
        assert one.code == 0, one.err[-2000:]
    steps = [row["step"] for row in rows(tmp_path / "run") if row["split"] == "train"]
    assert steps == [5, 10, 13, 15, 20, 25, 30, 35, 38]


@pytest.mark.slow
@pytest.mark.parametrize("process", [0, 1])
def test_a_process_that_is_missing_is_waited_for_so_long(tmp_path, process):
    member = members(2)[process]
    only = command("--run.dir", tmp_path / "run", *member, "--run.join-timeout", 5)
    with started([only]) as running:
        (one,) = ended(running)
    assert one.code == 4
    assert f"process {process} of 2 at localhost" in one.err
    assert "all processes within 5 s (--run.join-timeout)" in one.err


@pytest.mark.slow
def test_a_process_that_is_late_is_waited_for(tmp_path):
    first, second = (command("--run.dir", tmp_path / "run", *m, "--epochs", 1) for m in members(2))
    with started([first]) as early:
        time.sleep(8)
        with started([second]) as late:
            assert [one.code for one in ended(early + late)] == [0, 0]


@pytest.mark.slow
def test_a_process_that_fails_before_training_ends_all(tmp_path):
    one, other = train(tmp_path / "run", BROKEN=1)
    assert one.code == 4 and "process 1 has ended. FileNotFoundError: no data" in one.err
    assert other.code == 1 and "Traceback" in other.err


@pytest.mark.slow
def test_streamed_slices_are_the_batches_of_one_process(tmp_path):
    """The same batches, whether each process reads its rows or one reads all."""
    runs = {}
    for name, count, devices in (("two", 2, 2), ("four", 4, 1)):
        found = train(tmp_path / name, "--stream", count=count, devices=devices)
        assert [one.code for one in found] == [0] * count, found
        runs[name] = rows(tmp_path / name)
    words = command("--run.dir", tmp_path / "one", "--stream", "--run.mesh", "data=4")
    with started([words], 4) as running:
        assert ended(running)[0].code == 0
    runs["one"] = rows(tmp_path / "one")
    for name in ("two", "four"):
        assert len(runs[name]) == len(runs["one"])
        for a, b in zip(runs[name], runs["one"], strict=True):
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["replicated", "fsdp"])
def test_a_run_goes_on_with_other_processes_and_devices(tmp_path, rule):
    """8 devices of one process, 4 of each of two, then one alone: what is saved is what was."""
    folder, digests = tmp_path / "run", []
    for count, devices in ((1, 8), (2, 4), (1, 1)):
        words = [sys.executable, "-c", textwrap.dedent(KEEPER), folder, rule]
        words = [str(word) for word in words]
        places = [[*words, *map(str, place)] for place in places_of(count)]
        with started(places, devices) as running:
            found = ended(running)
        assert [one.code for one in found] == [0] * count, [one.err[-2000:] for one in found]
        digests.append(found[0].out.split()[-1])
    assert len(set(digests)) == 1


@pytest.mark.slow
def test_jdl_train_goes_on_with_other_processes(tmp_path):
    """Two epochs, each time with other processes; the log has no gap and no step twice."""
    folder = tmp_path / "run"
    for epochs, count in ((1, 4), (2, 2), (3, 1)):
        alone = [] if count > 1 else [command("--run.dir", folder, "--epochs", epochs)]
        together = [
            command("--run.dir", folder, "--epochs", epochs, *member) for member in members(count)
        ]
        with started(alone or together) as running:
            found = ended(running)
        assert [one.code for one in found] == [0] * count, [one.err[-2000:] for one in found]
    steps = [row["step"] for row in rows(folder) if row["split"] == "train"]
    assert steps == [5, 10, 13, 15, 20, 25, 30, 35, 38]
