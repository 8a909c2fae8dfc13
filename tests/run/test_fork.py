"""A fork begins a new run from a checkpoint of another, with stated changes."""

import json

import jax
import numpy as np
import optax
import pytest

import jdl
from jdl.run.storage.checkpoint import Checkpoints
from tests.support import learners
from tests.support.runs import assert_same_run, content, line, net, quiet, rows

pytestmark = pytest.mark.usefixtures("kept_programs")

OPTIONS = quiet(log_every=6)


def train(folder, learner=None, *, epochs=4, **given):
    return jdl.fit(
        learner or jdl.ema(net(noise=0.1), 0.9),
        line(),
        batch_size=8,
        epochs=epochs,
        run_dir=folder,
        options=given.pop("options", OPTIONS),
        **given,
    )


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """A run with checkpoints at steps 12 and 24."""
    folder = tmp_path_factory.mktemp("parent") / "run"
    train(folder, epochs=2)
    train(folder, epochs=4)
    assert Checkpoints(folder / "checkpoints").steps() == [12, 24]
    return folder


def test_a_fork_without_a_change_is_the_parents_future(parent, tmp_path):
    whole = train(parent, epochs=4)
    fork = train(tmp_path / "fork", fork=f"{parent}@12")
    learners.assert_same_bits(content(fork.state), content(whole.state))
    assert rows(fork) == [row for row in rows(whole) if row["step"] > 12]
    recorded = json.loads((tmp_path / "fork" / "parent.json").read_text())
    assert recorded == {"run": str(parent), "step": 12, "changes": []}


def test_the_newest_checkpoint_and_no_directory(parent):
    result = train(None, fork=parent, epochs=5)
    assert int(result.state.step) == 30 and rows(result)[0]["step"] == 30


def test_changes_are_stated_and_recorded(parent, tmp_path):
    slower = jdl.ema(net(noise=0.1, rate=1e-9), 0.9)
    result = train(tmp_path / "fork", slower, fork=f"{parent}@24", epochs=5, seed=3)
    before, _ = Checkpoints(parent / "checkpoints").read(24)
    for name, leaf in result.state.params.items():
        np.testing.assert_allclose(leaf, before[f"params/{name}"], atol=1e-6)
    changes = json.loads((tmp_path / "fork" / "parent.json").read_text())["changes"]
    assert {"fit.epochs: 4 -> 5", "fit.seed: 0 -> 3"} <= set(changes)
    assert not np.array_equal(
        jax.random.key_data(result.state.key), jax.random.key_data(before["key"])
    )


def test_a_fork_is_resumed_by_the_same_call_and_without_naming_the_parent(parent, tmp_path):
    once = train(tmp_path / "fork", fork=f"{parent}@12")
    assert_same_run(train(tmp_path / "fork", fork=f"{parent}@12"), once)
    assert_same_run(train(tmp_path / "fork"), once)
    text = learners.message(lambda: train(tmp_path / "fork", fork=f"{parent}@24", epochs=5))
    assert f"the directory of a fork of {parent}@12" in text


def test_a_fork_that_was_killed_early_does_not_begin_from_nothing(parent, tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", stopped)
        with pytest.raises(RuntimeError, match="killed"):
            train(tmp_path / "fork", fork=f"{parent}@12")
    text = learners.message(lambda: train(tmp_path / "fork"))
    assert f'give fork="{parent}@12" again' in text
    assert int(train(tmp_path / "fork", fork=f"{parent}@12").state.step) == 24


def wider():
    return jdl.ema(jdl.learner(learners.network(width=16, noise=0.1), optax.adam(1e-2)), 0.9)


def momentum():
    return jdl.ema(jdl.learner(learners.network(noise=0.1), optax.sgd(1e-2, momentum=0.9)), 0.9)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"learner": wider()}, ["params/in float32 [3, 16]", "params/in float32 [3, 8]"]),
        ({"learner": momentum()}, ["opt_state/0/trace/in", "no such leaf", "start="]),
        ({"learner": jdl.ema(jdl.ema(net(), 0.9), 0.9)}, ["extra/", "no such leaf"]),
        ({"epochs": 2}, ["more steps than the 12"]),
        ({"start": 0}, ["got:      both"]),
        ({"step": 13}, ["checkpoint 13 cannot be used", "[12, 24]"]),
    ],
)
def test_what_cannot_be_carried_over_is_refused(parent, tmp_path, given, told):
    given = {"epochs": 5, **given}
    step = given.pop("step", 12)
    text = learners.message(lambda: train(tmp_path / "fork", fork=f"{parent}@{step}", **given))
    assert all(part in text for part in told), text
    assert not (tmp_path / "fork" / "config.json").exists()


def test_a_run_that_is_no_fork_and_a_directory_that_is_no_run_are_refused(parent, tmp_path):
    text = learners.message(lambda: train(parent, fork=f"{parent}@12"))
    assert "a run that is no fork" in text
    text = learners.message(lambda: train(None, fork=tmp_path / "none"))
    assert "no such" in text


def test_hyperparameters_in_a_state_are_the_new_ones(tmp_path):
    def injected(rate):
        tx = optax.inject_hyperparams(optax.adam)(learning_rate=rate)
        return jdl.learner(learners.network(), tx)

    train(tmp_path / "run", injected(1e-2), epochs=1)
    result = train(tmp_path / "fork", injected(1e-4), epochs=2, fork=tmp_path / "run")
    assert float(result.state.opt_state.hyperparams["learning_rate"]) == np.float32(1e-4)
    assert int(result.state.opt_state.inner_state[0].count) == 12


def test_transforms_are_carried_over_with_and_without_the_runs_guard(parent, tmp_path):
    whole = train(parent, epochs=4)
    own = quiet(log_every=6, guard=0)
    fork = train(tmp_path / "fork", fork=f"{parent}@12", options=own)
    for one, other in zip(
        jax.tree.leaves(fork.state.extra), jax.tree.leaves(whole.state.extra), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_a_fork_takes_another_number_of_devices(parent):
    whole = train(parent, epochs=4)
    wide = jdl.shard(jdl.ema(net(noise=0.1), 0.9), jdl.mesh(data=2), jdl.rules.fsdp(smallest=1))
    fork = train(None, wide, fork=f"{parent}@12")
    for one, other in zip(
        jax.tree.leaves(fork.state.params), jax.tree.leaves(whole.state.params), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
