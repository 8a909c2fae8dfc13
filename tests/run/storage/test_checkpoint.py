"""What is restored is what was saved, bit for bit, or an error that names the fault."""

import errno
import json
import logging
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jdl.core import tree
from jdl.core.errors import InputError
from jdl.core.types import Mean, TrainState
from jdl.run.storage import checkpoint, orbax_io
from jdl.run.storage.checkpoint import MANIFEST, Checkpoints

ROOT = Path(__file__).resolve().parents[3]


def make(step: int = 3, width: int = 4) -> TrainState:
    """A small state with one of everything that learners keep; its numbers depend on the step."""
    params = {
        "dense": {
            "kernel": jnp.arange(3.0 * width).reshape(3, width) / 7,
            "bias": jnp.zeros(width),
        },
        "half": jnp.array([1.5, jnp.nan, -0.0], jnp.bfloat16),
    }
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    updates, opt_state = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    return TrainState(
        step=jnp.int32(step),
        key=jax.random.key(step),
        params=jax.tree.map(lambda p, u: p + u + step, params, updates),
        model_state={},
        opt_state=opt_state,
        extra={"empty": {}, "nothing": None, "window": Mean(jnp.float32(0.1), jnp.int32(step))},
    )


def assert_same_bits(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    pairs = zip(tree.flatten(one).items(), tree.flatten(other).values(), strict=True)
    for (name, a), b in pairs:
        assert type(a) is type(b), name
        assert getattr(a, "dtype", None) == getattr(b, "dtype", None), name
        if tree.is_key(a):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape and a.tobytes() == b.tobytes(), name


@pytest.fixture
def saved(tmp_path) -> Checkpoints:
    """Good checkpoints of the steps 10 and 20."""
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step in (10, 20):
        checkpoints.save(step, make(step), wait=True)
    return checkpoints


# Round trips


@pytest.mark.parametrize("target", ["arrays", "shapes"])
def test_a_state_comes_back_bit_for_bit(saved, target):
    want = make(20)
    like = make(0) if target == "arrays" else jax.eval_shape(lambda: make(0))
    got, step = saved.restore(like)
    assert step == 20
    assert_same_bits(want, got)
    assert isinstance(got.opt_state[1][0], optax.ScaleByAdamState)
    assert_same_bits(make(10), saved.restore(like, step=10)[0])


def odd_leaves() -> dict[str, object]:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 256, 64, np.uint8)
    dtypes = ["int8", "uint8", "int16", "int32", "uint32", "float16", "float32", "bool"]
    views = {
        d: jnp.asarray((bits % 2).view("bool") if d == "bool" else bits.view(d)) for d in dtypes
    }
    return {
        **views,
        "float8": jnp.asarray(bits.view(jnp.float8_e4m3fn)),
        "int4": jnp.arange(-8, 8, dtype=jnp.int4),
        "complex": jnp.asarray(bits.view(np.complex64)),
        "no rows": jnp.zeros((0, 3)),
        "numpy": {"float64": bits.view(np.float64), "scalar": np.float32(1 / 3), "0d": np.array(3)},
        "python": [3, 2**40, 1 / 3, True, 1 + 2j],
        "keys": jax.random.split(jax.random.key(0), 5),
        "rbg": jax.random.key(1, impl="rbg"),
        "numbered": {7: (jnp.ones(1),)},
        "weak": jnp.asarray(0.25),
    }


def test_every_type_of_leaf(tmp_path):
    state = make().replace(extra=odd_leaves())
    assert state.extra["weak"].weak_type
    Checkpoints(tmp_path).save(1, state, wait=True)
    got, _ = Checkpoints(tmp_path).restore(state)
    assert_same_bits(state, got)
    assert got.extra["weak"].weak_type
    assert got.extra["rbg"].dtype == state.extra["rbg"].dtype


def test_float64(tmp_path, x64):
    state = make().replace(extra={"third": jnp.float64(1) / 3, "ints": jnp.arange(3)})
    assert state.extra["third"].dtype == jnp.float64
    Checkpoints(tmp_path).save(1, state, wait=True)
    got, _ = Checkpoints(tmp_path).restore(jax.eval_shape(lambda: state))
    assert_same_bits(state, got)


def test_float64_without_the_flag_is_refused(tmp_path):
    state = make().replace(extra={"third": np.array(1 / 3)})
    Checkpoints(tmp_path).save(1, state, wait=True)
    target = state.replace(extra={"third": jax.ShapeDtypeStruct((), np.float64)})
    with pytest.raises(InputError) as info:
        Checkpoints(tmp_path).restore(target)
    assert str(info.value) == (
        "checkpoint 1, leaf extra/third\n"
        "  expected: an array of float64\n"
        "  got:      float32, which JAX converts it to\n"
        '  fix:      call jax.config.update("jax_enable_x64", True) first'
    )


def test_shardings_and_devices(tmp_path):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    state = make().replace(
        extra={
            "rows": jax.device_put(jnp.arange(16.0), rows),
            "keys": jax.device_put(jax.random.split(jax.random.key(0), 8), rows),
            "whole": jax.device_put(jnp.arange(3.0), NamedSharding(mesh, PartitionSpec())),
            "second": jax.device_put(jnp.ones(2), jax.devices()[1]),
        }
    )
    Checkpoints(tmp_path).save(1, state, wait=True)
    got, _ = Checkpoints(tmp_path).restore(state)
    assert_same_bits(state, got)
    for name, leaf in tree.flatten(state).items():
        assert tree.flatten(got)[name].sharding == leaf.sharding, name
        assert tree.flatten(got)[name].committed == leaf.committed, name

    # another topology: spread what was whole, and the other way round
    other = make().replace(
        extra={
            "rows": jax.ShapeDtypeStruct((16,), jnp.float32),
            "keys": state.extra["keys"],
            "whole": jax.ShapeDtypeStruct((3,), jnp.float32),
            "second": jax.ShapeDtypeStruct(
                (2,), jnp.float32, sharding=state.extra["whole"].sharding
            ),
        }
    )
    got, _ = Checkpoints(tmp_path).restore(other)
    assert_same_bits(state, got)
    assert not got.extra["rows"].committed
    assert got.extra["second"].sharding == state.extra["whole"].sharding


# Orbax says so wherever it is asked to load without a target.
@pytest.mark.filterwarnings("ignore:Sharding info not provided:UserWarning")
def test_orbax_itself_opens_a_checkpoint(saved):
    from orbax.checkpoint import v1 as ocp

    got = ocp.load(saved.folder / "20", make(0))
    assert_same_bits(make(20), got)
    plain = ocp.load(saved.folder / "20")
    want = make(20)
    np.testing.assert_array_equal(
        plain["params"]["dense"]["kernel"], want.params["dense"]["kernel"]
    )
    assert jax.random.key_data(plain["key"]).tolist() == jax.random.key_data(want.key).tolist()


def test_the_state_may_be_donated_and_changed_at_once(tmp_path):
    change = jax.jit(
        lambda t: t.replace(params=jax.tree.map(lambda x: x * 0 - 1, t.params)), donate_argnums=0
    )
    want = jax.tree.map(np.array, make(5).params)
    checkpoints = Checkpoints(tmp_path)
    for step in range(3):
        state = make(5).replace(extra={"host": np.ones(1000)})
        host = state.extra["host"]
        checkpoints.save(step, state)
        change(state.replace(extra={}, key=jax.random.key(9)))
        host[:] = 7
        checkpoints.wait()
        got, _ = checkpoints.restore(make(0).replace(extra={"host": np.empty(1000)}))
        assert_same_bits(want, jax.tree.map(np.asarray, got.params))
        assert (got.extra["host"] == 1).all()


def test_a_restored_state_trains_to_the_same_bits_without_compiling(tmp_path, caplog):
    tx = optax.adam(0.1)

    @jax.jit
    def step(state):
        grads = jax.tree.map(lambda p: p * jax.random.normal(state.key, p.shape), state.params)
        updates, opt_state = tx.update(grads, state.opt_state)
        params = optax.apply_updates(state.params, updates)
        return state.replace(
            step=state.step + 1,
            key=jax.random.fold_in(state.key, 1),
            params=params,
            opt_state=opt_state,
        )

    params = {"kernel": jnp.linspace(-1, 1, 12).reshape(3, 4)}
    state = TrainState(jnp.int32(0), jax.random.key(0), params, {}, tx.init(params))
    for _ in range(3):
        state = step(state)
    Checkpoints(tmp_path).save(3, state, wait=True)
    again, _ = Checkpoints(tmp_path).restore(state)
    with jax.log_compiles():
        for _ in range(4):
            state, again = step(state), step(again)
        assert "Compiling" not in caplog.text
        step(jax.device_put(state, jax.devices()[0]))  # the control: committed leaves are new
        assert "Compiling jit(step)" in caplog.text
    assert_same_bits(state, again)


# Faults on the disk


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


FAULTS = {
    "flipped": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "emptied": lambda path: path.write_bytes(b""),
    "deleted": lambda path: path.unlink(),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_any_file_is_named_and_the_previous_step_used(saved, tmp_path, fault, caplog):
    whole = tmp_path / "whole"
    shutil.copytree(saved.folder / "20", whole)
    want, target = make(10), jax.eval_shape(lambda: make(0))
    damaged = 0
    for path in files(whole):
        if path.stat().st_size == 0 and fault != "deleted":
            continue  # nothing in it can change
        name = path.relative_to(whole).as_posix()
        shutil.rmtree(saved.folder / "20")
        shutil.copytree(whole, saved.folder / "20")
        FAULTS[fault](saved.folder / "20" / name)
        with pytest.raises(InputError, match="checkpoint 20 cannot be used") as info:
            saved.restore(target, step=20)
        assert Path(name).name in str(info.value), str(info.value)
        if damaged % 5 == 0:
            caplog.clear()
            got, step = saved.restore(target)
            assert step == 10
            assert_same_bits(want, got)
            (record,) = caplog.records
            assert (record.name, record.levelno) == ("jdl", logging.WARNING)
            assert record.getMessage().startswith("checkpoint 20 is skipped: ")
            assert Path(name).name in record.getMessage()
        damaged += 1
    assert damaged >= 10


def test_orbax_alone_would_have_read_a_wrong_value(saved):
    """The negative control: without the digests, a flipped bit is either unseen or a bad error."""
    from orbax.checkpoint import v1 as ocp

    outcomes = set()
    for path in files(saved.folder / "20" / "state"):
        before = path.read_bytes()
        for at in range(0, len(before), max(1, len(before) // 40)):
            content = bytearray(before)
            content[at] ^= 64
            path.write_bytes(content)
            try:
                got = ocp.load(saved.folder / "20", make(0))
                assert_same_bits(make(20), got)
            except AssertionError:
                outcomes.add("wrong value")
                break
            except Exception:
                outcomes.add("error")
            finally:
                path.write_bytes(before)
        if "wrong value" in outcomes:
            break
    assert "wrong value" in outcomes, outcomes


def test_no_good_checkpoint_left(saved, tmp_path):
    flip(saved.folder / "10" / "state" / "_METADATA")
    (saved.folder / "20" / MANIFEST).unlink()
    with pytest.raises(InputError) as info:
        saved.restore(make())
    assert str(info.value) == (
        "no good checkpoint left\n"
        f"  expected: an undamaged checkpoint in {saved.folder}\n"
        f"  got:      step 20: unfinished, no {MANIFEST}; "
        "step 10: state/_METADATA was changed (SHA-256 differs)\n"
        "  fix:      restore the directory from a backup, or start a new run"
    )
    with pytest.raises(InputError, match="no good checkpoint left") as info:
        Checkpoints(tmp_path / "nowhere").restore(make())
    assert "got:      no checkpoint" in str(info.value)
    assert not (tmp_path / "nowhere").exists()


def test_a_step_that_is_not_there(saved):
    with pytest.raises(InputError, match="step 15: no such directory") as info:
        saved.restore(make(), step=15)
    assert "choose one of the steps [10, 20]" in str(info.value)


def test_a_changed_manifest_is_damage_and_not_another_learner(saved):
    manifest = saved.folder / "20" / MANIFEST
    manifest.write_text(manifest.read_text().replace('"bfloat16"', '"float16"'))
    with pytest.raises(InputError, match=f"step 20: {MANIFEST} was changed"):
        saved.restore(make(), step=20)
    assert saved.restore(make())[1] == 10


def test_a_checkpoint_under_another_number_is_refused(saved):
    shutil.copytree(saved.folder / "10", saved.folder / "30")
    with pytest.raises(InputError, match=f"step 30: {MANIFEST} was changed"):
        saved.restore(make(), step=30)


def test_a_leaf_that_changes_after_the_files_were_compared_is_found(saved, monkeypatch):
    real = orbax_io.load

    def other(*args):
        state = real(*args)
        return state.replace(params={**state.params, "half": state.params["half"] * 2})

    monkeypatch.setattr(orbax_io, "load", other)
    with pytest.raises(InputError, match="leaf params/half was changed"):
        saved.restore(make(), step=20)


# Targets that do not fit


def with_params(**params):
    return make().replace(params={**make().params, **params})


@pytest.mark.parametrize(
    ("target", "leaf", "expected", "got"),
    [
        (make(width=5), "params/dense/bias", "float32 [5]", "float32 [4]"),
        (with_params(new=jnp.ones(1)), "params/new", "float32 [1]", "no such leaf"),
        (with_params(half=jnp.ones(3)), "params/half", "float32 [3]", "bfloat16 [3]"),
        (make().replace(extra={}), "extra/window/total", "no such leaf", "float32 []"),
        (make().replace(step=jnp.float32(1)), "step", "float32 []", "int32 []"),
        (make().replace(key=jax.random.key(0, impl="rbg")), "key", "key<rbg> []", "key<fry> []"),
        (make().replace(key=jnp.zeros(2, jnp.uint32)), "key", "uint32 [2]", "key<fry> []"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_target_that_does_not_fit(saved, target, leaf, expected, got):
    with pytest.raises(InputError) as info:
        saved.restore(target)
    assert str(info.value) == (
        f"checkpoint 20, leaf {leaf}\n"
        f"  expected: {expected} (in the learner)\n"
        f"  got:      {got} (in the checkpoint)\n"
        "  fix:      build the learner with the configuration that the run was started with"
    )


def test_a_target_with_other_empty_containers(saved):
    state = make()
    with pytest.raises(InputError) as info:
        saved.restore(state.replace(extra={**state.extra, "more": {}}))
    assert str(info.value).startswith("checkpoint 20\n  expected: the same tree structure")
    assert "got:      another structure at extra.more: (in the checkpoint)" in str(info.value)


def test_what_cannot_be_saved_is_refused_before_anything_is_written(tmp_path):
    for extra, message in [
        ({"a.b": jnp.ones(1), "a": {"b": jnp.zeros(1)}}, "got:      a second leaf of that name"),
        ({"rule": "max"}, "leaf extra/rule\n  expected: an array or a number\n  got:      a str"),
    ]:
        with pytest.raises(InputError) as info:
            Checkpoints(tmp_path / "c").save(1, make().replace(extra=extra))
        assert message in str(info.value)
    with pytest.raises(InputError, match="keep\n  expected: 1 or more"):
        Checkpoints(tmp_path / "c", keep=0)
    assert not (tmp_path / "c").exists()


# Retention


def test_the_newest_and_the_best_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    seen = []
    for step in range(1, 7):
        checkpoints.save(step, make(step), best=step in (2, 5), wait=True)
        seen.append((checkpoints.steps(), checkpoints.best()))
    assert seen == [
        ([1], None),
        ([1, 2], 2),
        ([2, 3], 2),
        ([2, 3, 4], 2),
        ([4, 5], 5),
        ([5, 6], 5),
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["5", "6", "best.json"]
    assert json.loads((tmp_path / "best.json").read_text()) == {"step": 5}
    again = Checkpoints(tmp_path, keep=1)
    again.save(7, make(7), wait=True)
    again.save(8, make(8), wait=True)
    assert again.steps() == [5, 8]
    assert_same_bits(make(5), again.restore(make(0), again.best())[0])


def test_the_same_step_twice(saved):
    manifest = saved.folder / "20" / MANIFEST
    before = manifest.stat().st_mtime_ns
    saved.save(20, make(20), best=True, wait=True)
    assert manifest.stat().st_mtime_ns == before and saved.best() == 20
    saved.save(20, make(21), wait=True)
    assert_same_bits(make(21), saved.restore(make(0))[0])
    flip(saved.folder / "20" / "state" / "_METADATA")
    saved.save(20, make(21), wait=True)
    assert_same_bits(make(21), saved.restore(make(0), 20)[0])


def test_damaged_later_steps_do_not_push_out_good_ones(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (10, 30, 40):
        checkpoints.save(step, make(step), best=step == 10, wait=True)
    for step in (30, 40):
        flip(tmp_path / str(step) / "state" / "_METADATA")
    assert checkpoints.restore(make())[1] == 10
    for step in (12, 14, 16):
        checkpoints.save(step, make(step), wait=True)
    assert checkpoints.steps() == [10, 14, 16, 30, 40]
    assert checkpoints.restore(make())[1] == 16
    checkpoints.save(50, make(50), wait=True)
    checkpoints.save(60, make(60), wait=True)
    assert checkpoints.steps() == [10, 50, 60]


def test_a_damaged_note_of_the_best_is_a_warning(saved, caplog):
    saved.save(20, make(20), best=True, wait=True)
    (saved.folder / "best.json").write_text("{")
    assert saved.best() is None
    assert "best.json cannot be read" in caplog.text


def test_a_protected_step_is_kept_and_the_best_one_has_its_value(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, make(1), best=True, value=0.5)
    checkpoints.save(2, make(2))
    checkpoints.save(3, make(3), best=True, value=0.25, protected=1, wait=True)
    assert (checkpoints.steps(), checkpoints.saved_best()) == ([1, 3], (3, 0.25))
    checkpoints.mark_best(1, 0.5)
    checkpoints.mark_best(2, 0.0)  # there is no such checkpoint
    assert checkpoints.saved_best() == (1, 0.5)
    checkpoints.mark_best(None)
    assert checkpoints.best() is None and not (tmp_path / "best.json").exists()


def test_runs_in_threads_do_not_disturb_each_other(tmp_path):
    """Orbax counts its operations in the whole process: half of these fail without a lock."""

    def train(name):
        checkpoints = Checkpoints(tmp_path / name)
        for step in range(4):
            checkpoints.save(step, make(step))
            if step % 2:
                checkpoints.restore(make(0))
        checkpoints.wait()
        return checkpoints.steps()

    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(train, "abcd")] == [[2, 3]] * 4


# Writes that fail


@pytest.mark.parametrize(
    ("number", "expected", "fix"),
    [
        (errno.ENOSPC, "free space on the disk", "free some space, then resume the run"),
        (errno.EROFS, "a writable directory", "change its permissions, then resume the run"),
        (errno.EIO, "a successful write", "check the disk and the cause of this error"),
    ],
)
@pytest.mark.parametrize("moment", ["_orbax_save", "_write_manifest"])
def test_a_failed_write_is_raised_at_the_next_call(
    saved, monkeypatch, number, expected, fix, moment
):
    def fail(*args):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, moment, fail)
        saved.save(30, make(30))
        with pytest.raises(InputError) as info:
            saved.save(40, make(40))
    assert f"checkpoint 30 was not written to {saved.folder}\n  expected: {expected}\n" in str(
        info.value
    )
    assert f"{os.strerror(number)}; the last good checkpoint is step 20" in str(info.value)
    assert fix in str(info.value)
    assert sorted(p.name for p in saved.folder.iterdir()) == ["10", "20"]
    saved.save(30, make(30), wait=True)
    assert saved.steps() == [20, 30]


# Orbax leaves its event loop with a write still under way.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_disk_that_takes_no_more(tmp_path):
    """A real refusal of the system, in the middle of Orbax's own writing."""
    checkpoints = Checkpoints(tmp_path)
    big = make().replace(extra={"noise": np.random.default_rng(0).normal(size=100_000)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        checkpoints.save(1, big)
        with pytest.raises(
            InputError, match=r"(?s)checkpoint 1 was not written to.*got: +File too large; no"
        ):
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert checkpoints.steps() == []
    checkpoints.save(1, big, wait=True)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_a_folder_that_was_removed_is_not_made_anew(tmp_path):
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    checkpoints.save(1, make(), wait=True)
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(InputError, match=r"run directory .*run\n(.|\n)*it was removed or moved"):
        checkpoints.save(2, make(), wait=True)
    assert not (tmp_path / "run").exists()


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    with pytest.raises(InputError, match="expected: a writable directory"):
        checkpoints.save(1, make(), wait=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(saved):
    saved.folder.chmod(0o500)
    try:
        with pytest.raises(InputError, match="change its permissions"):
            saved.save(30, make(), wait=True)
        assert saved.restore(make())[1] == 20
    finally:
        saved.folder.chmod(0o700)


# Death in the middle of a save

VICTIM = """
    import os, signal, sys
    import numpy as np
    from pathlib import Path
    import jax, jax.numpy as jnp
    from jdl.core.types import TrainState
    from jdl.run.storage import checkpoint

    def make(step):
        params = {f"w{i}": np.full(20_000, step + i, np.float32) for i in range(8)}
        return TrainState(np.int32(step), jax.random.key(step), params, {}, ())

    folder, moment = Path(sys.argv[1]), sys.argv[2]
    checkpoints = checkpoint.Checkpoints(folder)
    checkpoints.save(10, make(10), best=True, wait=True)

    def die(*args):
        os.kill(os.getpid(), signal.SIGKILL)

    if moment == "orbax":
        import threading
        real = checkpoint._orbax_save
        def save(path, state):
            def watch():
                while not list(folder.glob(".new-20*/**/d/*")): pass
                die()
            threading.Thread(target=watch, daemon=True).start()
            real(path, state)
        checkpoint._orbax_save = save
    elif moment == "manifest":
        checkpoint._write_manifest = die
    elif moment == "rename":
        rename = os.rename
        os.rename = lambda old, new: die() if Path(new) == folder / "20" else rename(old, new)
    elif moment == "best":
        checkpoint.Checkpoints._retain = die
    checkpoints.save(20, make(20), best=True, wait=True)
"""


@pytest.mark.parametrize("moment", ["orbax", "manifest", "rename", "best"])
def test_kill_in_the_middle_of_a_save(tmp_path, moment):
    folder = tmp_path / "checkpoints"
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(VICTIM), str(folder), moment],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    params = {f"w{i}": np.empty(20_000, np.float32) for i in range(8)}
    target = TrainState(np.int32(0), jax.random.key(0), params, {}, ())
    checkpoints = Checkpoints(folder)
    got, step = checkpoints.restore(target)
    assert step == (20 if moment == "best" else 10)
    assert checkpoints.best() == 10
    for i, value in enumerate(got.params.values()):
        assert (value == step + i).all()
    left = [path.name for path in folder.glob(".*")]
    assert bool(left) == (moment != "best"), left
    checkpoints.save(20, got, wait=True)
    assert sorted(path.name for path in folder.iterdir()) == ["10", "20", "best.json"]


# Nothing in a checkpoint is a program


def test_nothing_is_run_when_a_checkpoint_is_read(saved):
    """No file holds a pickle, and reading imports and opens nothing named by the checkpoint."""
    for path in files(saved.folder):
        content = path.read_bytes()
        assert not content.startswith((b"\x80\x04", b"\x80\x05")), path
    watched, active = [], [True]

    def watch(event, args):
        if active[0] and event in (
            "exec",
            "compile",
            "os.system",
            "subprocess.Popen",
            "pickle.find_class",
        ):
            watched.append((event, str(args)[:80]))

    saved.restore(make())  # imports what has to be imported
    sys.addaudithook(watch)
    saved.restore(make())
    active[0] = False
    assert [event for event in watched if event[0] != "exec" or "<frozen" not in event[1]] == []


# Several processes

MEMBER = """
    import sys
    from pathlib import Path
    import jax
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
    import numpy as np
    from jax.experimental.multihost_utils import sync_global_devices
    from jax.sharding import AxisType, NamedSharding, PartitionSpec
    from jdl.core.types import TrainState
    from jdl.run.storage.checkpoint import Checkpoints

    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))

    def put(value, *spec):
        place = NamedSharding(mesh, PartitionSpec(*spec))
        return jax.make_array_from_callback(value.shape, place, lambda index: value[index])

    def make(step):
        key = jax.random.wrap_key_data(put(np.array([0, step], np.uint32)))
        rows = np.arange(24, dtype=np.float32).reshape(8, 3) + step
        return TrainState(put(np.array(step)), key, put(rows, "data"), put(rows[0]), ())

    checkpoints = Checkpoints(Path(sys.argv[3]))
    for step in (1, 2, 3):
        checkpoints.save(step, make(step), best=step == 1)
    checkpoints.wait()
    sync_global_devices("saved")
    got, step = checkpoints.restore(make(0))
    want = make(3)
    assert (step, checkpoints.steps(), checkpoints.best()) == (3, [1, 2, 3], 1)
    assert got.params.sharding == want.params.sharding
    for a, b in zip(got.params.addressable_shards, want.params.addressable_shards, strict=True):
        assert np.asarray(a.data).tobytes() == np.asarray(b.data).tobytes()
    assert np.asarray(got.model_state).tobytes() == np.asarray(want.model_state).tobytes()
    assert np.asarray(jax.random.key_data(got.key)).tolist() == [0, 3]
"""


@pytest.mark.slow
def test_two_processes_save_and_restore_one_state(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    flags = "--xla_force_host_platform_device_count=2"
    members = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                textwrap.dedent(MEMBER),
                address,
                str(rank),
                str(tmp_path / "c"),
            ],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for member in members:
            message = member.communicate(timeout=120)[1]
            assert member.returncode == 0, message
    finally:
        for member in members:
            member.kill()
