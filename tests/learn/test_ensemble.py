"""A member is the lone run with its key, and members do not see each other."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdl.learn.ema import ema
from jdl.learn.ensemble import ensemble
from jdl.learn.gradient import accumulate
from jdl.learn.guard import guard
from jdl.learn.learner import learner
from jdl.learn.transforms import loop, resident
from jdl.learn.window import window
from tests.support.learners import (
    KEY,
    assert_close,
    assert_same_bits,
    batch,
    differ,
    member,
    network,
    train,
)

TASK = network(noise=0.1)


def stack(inner):
    return window(ema(guard(inner), 0.9), 3)


@pytest.mark.slow
def test_each_member_is_the_lone_run_with_its_key(x64):
    data = batch(dtype="float64")
    lone = stack(learner(TASK, optax.adam(0.01), accumulate(2)))
    many = ensemble(lone, 3)
    trained, metrics = train(many, data, 10)
    for i in range(3):
        single, numbers = train(lone, data, 10, jax.random.fold_in(KEY, i))
        own = trained.replace(step=jnp.full(3, trained.step))
        assert_close(member(own, i), single, rtol=1e-10, atol=1e-12)
        assert_close(member(metrics, i), numbers, rtol=1e-10, atol=1e-12)
        assert_close(many.evaluate(trained, data)["loss"].value[i],
                     lone.evaluate(single, data)["loss"].value, rtol=1e-10)  # fmt: skip
        assert_close(many.predict(trained, data)[i], lone.predict(single, data), rtol=1e-10)
    assert differ(member(trained.params, 0), member(trained.params, 1))


def test_a_member_does_not_depend_on_how_many_there_are():
    lone = learner(TASK, optax.sgd(0.1))
    two, five = (ensemble(lone, n).init(KEY, batch()) for n in (2, 5))
    assert_same_bits(member(five.params, slice(2)), two.params)
    assert_same_bits(five.key[:2], two.key)


def test_the_start_is_that_of_lone_runs():
    lone = learner(TASK, optax.adam(0.1))
    many = ensemble(lone, 3).init(KEY, batch())
    for i in range(3):
        single = lone.init(jax.random.fold_in(KEY, i), batch())
        assert_same_bits(member(many.params, i), single.params)
        assert_same_bits(member(many.opt_state, i), single.opt_state)
        assert_same_bits(many.key[i], single.key)


def test_the_key_of_a_member_is_folded_in_and_not_split():
    """The two are the same bits in JAX's default, but not with the flag that it had before."""
    lone = learner(TASK, optax.sgd(0.1))
    with jax.threefry_partitionable(False):
        many = ensemble(lone, 2).init(KEY, batch())
        single = lone.init(jax.random.fold_in(KEY, 1), batch())
        assert_same_bits(many.key[1], single.key)
        assert_same_bits(member(many.params, 1), single.params)


def test_one_step_counter_and_one_gathered_batch():
    many = resident(ensemble(learner(TASK, optax.sgd(0.1)), 3), lambda s, n: jnp.arange(n) + s, 4)
    start = many.init(KEY, batch())
    assert start.step.shape == () and start.key.shape == (3,)
    looped, _ = jax.jit(loop(many).step)(start, batch(), 5)
    assert looped.step.shape == () and int(looped.step) == 5
    # The gather of the batch has no member axis: its result is (4, 3), not (3, 4, 3).
    program = str(jax.make_jaxpr(many.step)(start, batch()))
    assert "f32[4,3] = gather" in program and "f32[3,4,3] = gather" not in program


def test_members_in_members():
    lone = learner(TASK, optax.sgd(0.1))
    trained, metrics = train(ensemble(ensemble(lone, 2), 3), batch(), 2)
    assert metrics["loss"].value.shape == (3, 2) and trained.step.shape == ()
    key = jax.random.fold_in(jax.random.fold_in(KEY, 2), 1)
    single, _ = train(lone, batch(), 2, key)
    assert_close(jax.tree.map(lambda x: x[2, 1], trained.params), single.params)
    assert np.isfinite(metrics["loss"].value).all()
