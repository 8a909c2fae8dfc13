"""`save_state` and `load_state`: the state of a loop of your own, whole and verified."""

import errno
import itertools
import os
import shutil
from collections import namedtuple
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import jdl
from jdl.run.storage import checkpoint, orbax_io, state
from tests.support.learners import assert_same_bits, batch, message, network

Pair = namedtuple("Pair", "first second")


def mixed(scale: float = 1.0) -> dict[str, object]:
    """A pytree of your own, with one of everything."""
    return {
        "weights": jnp.array([1 / 3, jnp.nan, -0.0]) * scale,
        "pair": Pair(jnp.ones(2, jnp.bfloat16), [np.arange(3), (scale, 7, True)]),
        "keys": jax.random.split(jax.random.key(int(scale)), 3),
        "rbg": jax.random.key(1, impl="rbg"),
        "empty": jnp.zeros((0, 3)),
        "none": None,
    }


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "tree_of", [mixed, lambda: jnp.arange(3), lambda: (jax.random.key(3), {7: 1})]
)
def test_a_tree_comes_back_bit_for_bit(tmp_path, tree_of):
    jdl.save_state(tmp_path / "new" / "state", tree_of())
    got = jdl.load_state(str(tmp_path / "new" / "state"), tree_of())
    assert_same_bits(got, tree_of())
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(tree_of()), strict=True):
        assert type(one) is type(other)


def test_a_loop_continues_as_if_it_had_not_stopped(tmp_path):
    learner = jdl.ema(jdl.learner(network(noise=0.1), optax.adam(0.1)), 0.9)
    loop = lambda n, **start: [
        *itertools.islice(jdl.steps(learner, batch(16), batch_size=4, **start), n)
    ]
    (third, _), *_, (last, metrics) = loop(6)[2:]
    jdl.save_state(tmp_path, third)
    loaded = jdl.load_state(tmp_path, jax.eval_shape(learner.init, jax.random.key(0), batch(4)))
    assert_same_bits(loaded, third)
    again, its_metrics = loop(3, start=loaded)[-1]
    assert_same_bits(again, last)
    assert_same_bits(its_metrics, metrics)


def test_arrays_get_the_sharding_of_like(tmp_path):
    mesh = jdl.mesh(data=8)
    rows, whole = (NamedSharding(mesh, PartitionSpec(*spec)) for spec in (("data",), ()))
    saved = {
        "rows": jax.device_put(jnp.arange(16.0), rows),
        "keys": jax.device_put(jax.random.split(jax.random.key(0), 8), rows),
    }
    jdl.save_state(tmp_path, saved)
    shape = jax.ShapeDtypeStruct((16,), jnp.float32, sharding=whole)
    for like in (saved, {"rows": shape, "keys": jax.device_put(saved["keys"], whole)}):
        got = jdl.load_state(tmp_path, like)
        assert_same_bits(got, saved)
        assert all(got[name].sharding == like[name].sharding for name in like)


def test_one_changed_byte_is_refused_and_its_file_named(tmp_path):
    jdl.save_state(tmp_path, mixed())
    names = {"manifest.json": 0, state.MARKER: 0, "_METADATA": 0}
    for path in files(tmp_path):
        content = path.read_bytes()
        if not content:
            continue
        changed = bytearray(content)
        changed[len(content) // 2] ^= 1
        path.write_bytes(changed)
        text = message(lambda: jdl.load_state(tmp_path, mixed()))
        assert text.startswith(f"load_state: {tmp_path}\n  expected: an undamaged checkpoint")
        assert path.name in text, (path, text)
        names.pop(path.name, None)
        path.write_bytes(content)
    assert not names
    (tmp_path / "1" / "manifest.json").unlink()
    assert "unfinished, no manifest.json" in message(lambda: jdl.load_state(tmp_path, mixed()))


@pytest.mark.parametrize("moment", ["_orbax_save", "_write_manifest", "sync_directory"])
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space"), KeyboardInterrupt()])
def test_a_save_that_ends_early_leaves_a_whole_state(tmp_path, monkeypatch, moment, failure):
    """An OSError is a full disk; an exception that nothing handles stands for a kill."""
    jdl.save_state(tmp_path, {"a": jnp.zeros(3)})
    real = getattr(checkpoint, moment)

    def fail(*args):
        if moment == "_orbax_save":
            real(*args)  # all arrays are there, but no manifest
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, moment, fail)
        with pytest.raises((jdl.InputError, KeyboardInterrupt)) as info:
            jdl.save_state(tmp_path, {"a": jnp.ones(3)})
    if isinstance(failure, OSError):
        assert str(info.value) == (
            f"save_state: {tmp_path} was not written\n"
            "  expected: free space on the disk\n"
            "  got:      No space; the checkpoint before is kept\n"
            "  fix:      free some space, then save again"
        )
    is_renamed = moment == "sync_directory"  # before that the new one does not count
    got = jdl.load_state(tmp_path, {"a": jnp.zeros(3)})["a"]
    assert got.tolist() == [float(is_renamed)] * 3
    jdl.save_state(tmp_path, {"a": jnp.full(3, 2.0)})
    assert jdl.load_state(tmp_path, {"a": jnp.zeros(3)})["a"].tolist() == [2.0] * 3
    numbers = [name for name in os.listdir(tmp_path) if name != state.MARKER]
    assert numbers == ["3" if is_renamed else "2"]


@pytest.mark.parametrize(
    ("change", "leaf", "expected", "got"),
    [
        ({"weights": jnp.zeros(4)}, ", leaf weights", "float32 [4]", "float32 [3]"),
        ({"weights": jnp.zeros(3, int)}, ", leaf weights", "int32 [3]", "float32 [3]"),
        ({"more": jnp.zeros(1)}, ", leaf more", "float32 [1]", "no such leaf"),
        ({"weights": None}, ", leaf weights", "no such leaf", "float32 [3]"),
        ({"rbg": jax.random.key(0)}, ", leaf rbg", "key<fry> []", "key<rbg> []"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_leaf_that_differs_from_like_is_named(whole, change, leaf, expected, got):
    assert message(lambda: jdl.load_state(whole, mixed() | change)) == (
        f"load_state: {whole}{leaf}\n"
        f"  expected: {expected} (in `like`)\n"
        f"  got:      {got} (in the checkpoint)\n"
        "  fix:      pass a `like` with the structure, shapes and types of what was saved"
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("whole")
    jdl.save_state(path, mixed())
    return path


def test_containers_without_leaves_and_leaves_that_change_on_the_way(whole, monkeypatch):
    text = message(lambda: jdl.load_state(whole, mixed() | {"more": {}}))
    assert "expected: the same tree structure (in `like`)" in text
    real = orbax_io.load
    other = lambda *given: real(*given) | {"weights": np.ones(3, np.float32)}
    monkeypatch.setattr(orbax_io, "load", other)
    assert "leaf weights was changed" in message(lambda: jdl.load_state(whole, mixed()))


def test_what_is_no_checkpoint_is_left_alone(tmp_path):
    run, file, empty = tmp_path / "checkpoints", tmp_path / "file", tmp_path / "empty"
    checkpoint.Checkpoints(run).save(5, {"a": jnp.zeros(1)}, wait=True)  # type: ignore
    file.write_text("mine")
    empty.mkdir()
    before = {path: path.read_bytes() for path in files(tmp_path)}
    for path, found in ((run, "a directory that holds 5"), (file, "a file")):
        text = message(lambda path=path: jdl.save_state(path, {"a": jnp.ones(1)}))
        assert f"save_state: {path}\n  expected: a new or empty directory" in text
        assert f"got:      {found}\n" in text
    for path, found in (
        (run, "a directory that holds 5"),
        (file, "a file"),
        (empty, "a directory that holds nothing"),
        (tmp_path / "none", "no such directory"),
    ):
        text = message(lambda path=path: jdl.load_state(path, {"a": jnp.ones(1)}))
        assert f"expected: a checkpoint of jdl.save_state\n  got:      {found}\n" in text
    assert {path: path.read_bytes() for path in files(tmp_path)} == before
    assert not (tmp_path / "none").exists()


def test_your_own_files_beside_a_checkpoint_stay(tmp_path):
    jdl.save_state(tmp_path, {"a": 1})
    (tmp_path / "2024").mkdir()
    (tmp_path / "2024" / "photo").write_text("mine")
    jdl.save_state(tmp_path, {"a": 2})
    assert jdl.load_state(tmp_path, {"a": 0}) == {"a": 2}
    assert (tmp_path / "2024" / "photo").read_text() == "mine"


def test_a_marker_half_written_by_a_killed_save_is_no_foreign_file(tmp_path):
    (tmp_path / f".{state.MARKER}.new").write_bytes(state.MARKER_BYTES[:5])
    jdl.save_state(tmp_path, {"a": 1})
    assert jdl.load_state(tmp_path, {"a": 0}) == {"a": 1}
    shutil.rmtree(tmp_path / "1")  # as if killed after the marker was written
    assert "got:      a directory that holds" in message(lambda: jdl.load_state(tmp_path, 0))
    jdl.save_state(tmp_path, {"a": 3})
    assert jdl.load_state(tmp_path, {"a": 0}) == {"a": 3}


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({}, "expected: a pytree with at least one number"),
        ({"rule": "max"}, ", leaf rule\n  expected: an array or a number\n  got:      a str"),
        ({"a.b": 1, "a": {"b": 2}}, "a second leaf of that name"),
    ],
)
def test_what_cannot_be_saved_is_refused_before_anything_is_written(tmp_path, wrong, text):
    assert text in message(lambda: jdl.save_state(tmp_path / "new", wrong))
    assert not (tmp_path / "new").exists()
