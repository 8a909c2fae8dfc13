"""Sixteen learners that a checkpoint does not belong to: one message, which names the leaf."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import pytest
from flax import linen as nn

import jdl
from jdl.core.types import Learner, TrainState
from jdl.run.storage.checkpoint import Checkpoints
from tests.faults.catalogue import refused, rows
from tests.support.runs import classes

BATCH = classes(8)


class Net(nn.Module):
    """One hidden layer; everything about it can be another."""

    width: int = 4
    first: str = "hidden"
    norm: bool = False
    dtype: Any = np.float32
    second: bool = False

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.Dense(self.width, name=self.first, param_dtype=self.dtype)(x)
        if self.norm:
            x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
        if self.second:
            x = nn.Dense(4, name="second")(x)
        return nn.Dense(2, name="output")(x)


def learner(tx: Any = None, **given: Any) -> Learner:
    task = jdl.classification(jdl.from_linen(Net(**given)))
    return jdl.learner(task, tx or optax.adam(1e-2))


def shapes(learner: Learner) -> TrainState:
    return jax.eval_shape(learner.init, jax.random.key(0), BATCH)


def changed(**given: Any) -> Callable[[], TrainState]:
    return lambda: shapes(learner(**given))


def state_with(**given: Any) -> Callable[[], TrainState]:
    return lambda: shapes(learner()).replace(**given)


def turned() -> TrainState:
    """As many numbers, in another shape."""
    target = shapes(learner())
    hidden = target.params["hidden"] | {"kernel": jax.ShapeDtypeStruct((4, 3), np.float32)}
    return target.replace(params=target.params | {"hidden": hidden})


KERNEL = "params/hidden/kernel"
RBG = jax.eval_shape(lambda: jax.random.key(0, impl="rbg"))
# the target, the leaf, what is expected and what the checkpoint has
TABLE: dict[str, tuple[Callable[[], TrainState], str, str, str]] = {
    "wider": (changed(width=5), "params/hidden/bias", "float32 [5]", "float32 [4]"),
    "turned round": (turned, KERNEL, "float32 [4, 3]", "float32 [3, 4]"),
    "half precision": (
        changed(dtype=jax.numpy.bfloat16),
        "params/hidden/bias",
        "bfloat16 [4]",
        "float32 [4]",
    ),
    "renamed layer": (changed(first="dense"), "params/dense/bias", "float32 [4]", "no such leaf"),
    "one layer more": (changed(second=True), "params/second/", "float32 [4]", "no such leaf"),
    "one layer less": (
        lambda: shapes(learner()).replace(params={"output": shapes(learner()).params["output"]}),
        "params/hidden/bias",
        "no such leaf",
        "float32 [4]",
    ),
    "batch statistics": (changed(norm=True), "params/norm/", "float32 [4]", "no such leaf"),
    "without moments": (changed(tx=optax.sgd(0.1)), "opt_state/0/", "no such leaf", "[]"),
    "momentum": (
        changed(tx=optax.sgd(0.1, momentum=0.9)),
        "opt_state/0/trace/hidden/bias",
        "float32 [4]",
        "no such leaf",
    ),
    "rmsprop": (changed(tx=optax.rmsprop(0.1)), "opt_state/0/count", "no such leaf", "int32 []"),
    "a schedule": (
        changed(tx=optax.adam(optax.linear_schedule(0.1, 0.0, 9))),
        "opt_state/1/count",
        "int32 []",
        "no such leaf",
    ),
    "an average": (
        lambda: shapes(jdl.ema(learner(), 0.9)),
        "extra/count/",
        "",
        "no such leaf",
    ),
    "members": (lambda: shapes(jdl.ensemble(learner(), 3)), "key", "key<fry> [3]", "key<fry> []"),
    "another kind of key": (state_with(key=RBG), "key", "key<rbg> []", "key<fry> []"),
    "a step of floats": (state_with(step=np.float32(0)), "step", "float32 []", "int32 []"),
    "two players": (
        lambda: shapes(
            jdl.game(
                one=jdl.Player(jdl.classification(jdl.from_linen(Net())), optax.adam(0.1)),
            )
        ),
        "params/one/",
        "float32 [4]",
        "no such leaf",
    ),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Checkpoints:
    checkpoints = Checkpoints(tmp_path_factory.mktemp("checkpoints"))
    state = jax.jit(learner().init)(jax.random.key(0), BATCH)
    checkpoints.save(3, state, wait=True)
    return checkpoints


@pytest.mark.parametrize("name", rows(TABLE, TABLE))
def test_a_wrong_target_is_refused_naming_the_leaf(name, saved):
    target, leaf, expected, got = TABLE[name]
    message = refused(lambda: saved.restore(target()))
    first, wanted, found, fix = message.splitlines()
    assert first.startswith(f"checkpoint 3, leaf {leaf}")
    assert wanted.startswith(f"  expected: {expected}") and wanted.endswith(" (in the learner)")
    assert found.startswith("  got:      ") and got in found and "(in the checkpoint)" in found
    assert "the configuration that the run was started with" in fix


def test_the_right_target_is_taken(saved):
    assert saved.restore(shapes(learner()))[1] == 3
