"""Members spread over devices: each trains its own, and the numbers are those of one device."""

import re

import jax
import jax.numpy as jnp
import optax
import pytest

from jdl.learn.ema import ema
from jdl.learn.ensemble import ensemble
from jdl.learn.guard import guard
from jdl.learn.learner import learner
from jdl.learn.sweep import sweep
from jdl.learn.transforms import jit
from jdl.parallel.mesh import mesh
from jdl.parallel.shard import shard
from jdl.parallel.shard_members import shard_members
from jdl.run.fit import fit
from jdl.run.setup import Options
from tests.support.learners import KEY, assert_close, batch, message, network, train

DATA = jax.tree.map(jnp.asarray, batch())
MESH = mesh(members=8)
COLLECTIVE = r"(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)\("


def one():
    return ema(learner(network(noise=0.1), optax.adam(0.01)), 0.9)


def rates(grid, seeds=1):
    def build(learning_rate, width=8):
        return learner(network(width, noise=0.1), optax.adam(learning_rate))

    return sweep(build, grid, seeds)


RATES = {"learning_rate": [0.01, 0.02, 0.03, 0.04]}
MANY = {
    "ensemble": lambda: ensemble(one(), 32),
    "sweep": lambda: rates(RATES, seeds=4),
    "sweep of two programs": lambda: rates(RATES | {"width": [4, 8]}, seeds=2),
}


def talk(wide, data=DATA):
    """What devices say to each other in a step."""
    start = jax.jit(wide.init)(KEY, data)
    return re.findall(COLLECTIVE, jax.jit(wide.step).lower(start, data).compile().as_text())


def refused(wide):
    return message(lambda: jax.eval_shape(wide.init, KEY, DATA))


@pytest.mark.parametrize(
    "name", ["ensemble", *(pytest.param(n, marks=pytest.mark.slow) for n in list(MANY)[1:])]
)
def test_the_numbers_are_those_of_one_device(name, x64):
    data, many = batch(dtype="float64"), MANY[name]()
    wide = shard_members(many, MESH)
    (trained, metrics), (lone, numbers) = (train(each, data) for each in (wide, many))
    assert_close(trained, lone, rtol=1e-10, atol=1e-12)
    assert_close(metrics, numbers, rtol=1e-10, atol=1e-12)
    wide, many = jit(wide), jit(many)
    assert_close(wide.evaluate(trained, data), many.evaluate(lone, data), rtol=1e-10)
    assert_close(wide.predict(trained, data), many.predict(lone, data), rtol=1e-10)


def test_each_device_holds_its_share_and_only_that():
    wide = shard_members(ensemble(one(), 32), MESH)
    for state in (jax.jit(wide.init)(KEY, DATA), train(wide, DATA, 1)[0]):
        for leaf in jax.tree.leaves(state.replace(step=state.key)):
            assert leaf.shape[0] == 32
            assert {shard.data.shape[0] for shard in leaf.addressable_shards} == {4}
        assert state.step.shape == () and state.step.sharding.is_fully_replicated


@pytest.mark.parametrize("name", ["ensemble", pytest.param("sweep", marks=pytest.mark.slow)])
def test_devices_say_nothing_to_each_other(name):
    assert talk(shard_members(MANY[name](), MESH)) == []


def test_nor_do_they_where_each_member_is_guarded():
    assert talk(guard(shard_members(ensemble(one(), 32), MESH))) == []


def test_under_shard_they_do():
    """The control: the batch is split there, so gradients have to be summed."""
    assert "all-reduce" in talk(shard(ensemble(one(), 32), MESH))


@pytest.mark.slow
def test_a_data_axis_splits_the_batch_too():
    many = ensemble(learner(network(), optax.sgd(0.1)), 4)
    wide = shard_members(many, mesh(members=4, data=2))
    assert set(talk(wide)) == {"all-reduce"}
    assert_close(train(wide, DATA)[0], train(many, DATA)[0])


@pytest.mark.slow
def test_a_run_of_spread_members_is_that_of_members():
    data, quiet = batch(64), Options(bar=False, log_every=4, dispatch="loop")
    wide, lone = (
        fit(each, data, valid=data, batch_size=16, epochs=3, options=quiet)
        for each in (shard_members(MANY["sweep"](), MESH), MANY["sweep"]())
    )
    assert_close(wide.state.params, lone.state.params)
    assert len({s.device for s in jax.tree.leaves(wide.state.params)[0].addressable_shards}) == 8
    assert wide.history[-1]["loss"] == pytest.approx(lone.history[-1]["loss"], rel=1e-4)


def test_members_that_do_not_divide():
    text = refused(shard_members(ensemble(one(), 12), MESH))
    assert text.startswith(
        "members of key\n  expected: a multiple of 8, the size of mesh axis 'members'\n"
        "  got:      12\n  fix:      change the number of members"
    )
    odd = rates(RATES | {"width": [4, 8]}, seeds=1)
    assert "members of params/width=4" in refused(shard_members(odd, MESH))


def test_a_learner_without_members_and_a_mesh_without_the_axis():
    text = refused(shard_members(one(), MESH))
    assert "got:      a learner without members" in text and "use jdl.shard" in text
    text = message(lambda: shard_members(one(), mesh(member=8)))
    assert 'did you mean "member"?, or use a mesh such as jdl.mesh(members=8)' in text


def test_it_stands_outermost():
    wide = shard_members(ensemble(one(), 8), MESH)
    text = message(lambda: wide.step(None, DATA, axis="data"))
    assert text.startswith(
        "shard_members\n  expected: to be the only transform over devices, and the outermost one\n"
    )
