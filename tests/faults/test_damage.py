"""Ninety damaged checkpoints: the error names the file, and the run goes on from the step before.

Each file of a checkpoint is flipped, cut, emptied and deleted, and then overwritten and extended.
"""

import shutil
from pathlib import Path

import jax
import pytest

from jdl.core.types import TrainState
from jdl.run.storage.checkpoint import Checkpoints
from tests.faults.catalogue import COUNTS, refused
from tests.support import learners
from tests.support.runs import content, line, net

AT_ONCE = 10


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)


FAULTS = {
    "flipped": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "emptied": lambda path: path.write_bytes(b""),
    "deleted": lambda path: path.unlink(),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "extended": lambda path: path.write_bytes(path.read_bytes() + b"\n"),
    # Orbax writes now more, now fewer files: with this one there are always ninety pairs.
    "doubled": lambda path: path.write_bytes(2 * path.read_bytes()),
}
HARMLESS_IN_JSON = "manifest.json"
"""A last line end is no part of what the manifest says, and its own digest is of what it says."""


def cases(folder: Path) -> list[tuple[str, str]]:
    """The first ninety pairs of a fault and a file in which it changes something."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    pairs = [
        (fault, path.relative_to(folder).as_posix())
        for fault in FAULTS
        for path in files
        if (path.stat().st_size or fault in ("deleted", "extended"))
        and not (path.name == HARMLESS_IN_JSON and fault in ("cut", "extended"))
    ]
    return pairs[: COUNTS["damaged checkpoints"]]


@pytest.fixture(scope="module")
def states() -> dict[int, TrainState]:
    """What a learner with Adam holds, at two steps."""
    learner = net(noise=0.1)
    step = jax.jit(learner.step, static_argnames="axis")
    first = jax.jit(learner.init)(jax.random.key(0), line())
    second, _ = step(first, line())
    return {10: first, 20: second}


@pytest.fixture(scope="module")
def saved(states, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    for step, state in states.items():
        Checkpoints(folder).save(step, state, wait=True)
    return folder


def test_there_are_ninety(saved):
    found = cases(saved / "20")
    assert len(found) == len(set(found)) == COUNTS["damaged checkpoints"]
    files = {path.relative_to(saved / "20").as_posix() for path in (saved / "20").rglob("*")}
    assert {name for fault, name in found if fault == "deleted"} <= files


def parts() -> list[object]:
    return [
        pytest.param(part, marks=() if part == 0 else pytest.mark.slow)
        for part in range(COUNTS["damaged checkpoints"] // AT_ONCE)
    ]


@pytest.mark.parametrize("part", parts())
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(part, saved, states, tmp_path):
    target = jax.eval_shape(lambda: states[10])
    for fault, name in cases(saved / "20")[AT_ONCE * part : AT_ONCE * (part + 1)]:
        folder = tmp_path / fault / name.replace("/", " ")
        shutil.copytree(saved, folder)
        FAULTS[fault](folder / "20" / name)
        checkpoints = Checkpoints(folder)
        refused(lambda: checkpoints.restore(target, step=20), ("step 20: ", Path(name).name))  # noqa: B023
        state, step = checkpoints.restore(target)
        assert step == 10
        learners.assert_same_bits(content(state), content(states[10]))


def test_whole_the_newest_is_used(saved, states):
    """The control: without damage it is step 20, in all its bits."""
    state, step = Checkpoints(saved).restore(jax.eval_shape(lambda: states[10]))
    assert step == 20
    learners.assert_same_bits(content(state), content(states[20]))
    assert learners.differ(content(states[20])["params"], content(states[10])["params"])
