"""Blocks of guarded steps: as if each had been looked at by itself, at any place of a bad one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdl.core.types import Mean
from jdl.learn.ensemble import ensemble
from jdl.learn.guard import GuardState, count_invalid, guard
from jdl.learn.learner import learner
from jdl.learn.transforms import loop, resident
from jdl.learn.window import window
from jdl.run.execution.block_guard import guard_in_blocks
from tests.learn.test_guard import TASK, X
from tests.support.learners import KEY, assert_close, assert_same_bits, differ, record

GOOD = 0


def single(inner):
    """A batch of one example, without its leading axis."""

    def step(state, batch, *, axis=None):
        return inner.step(state, jax.tree.map(lambda v: v[0], batch), axis=axis)

    return inner._replace(step=step)


def fed(inner, every=100):
    """Example s of the data is the batch of step s."""
    return resident(single(window(inner, every)), lambda step, size: step[None], 1)


def one_by_one(inner, every=100):
    return loop(fed(guard(inner), every))


def in_blocks(inner, every=100):
    batches = lambda inner: resident(single(inner), lambda step, size: step[None], 1)
    return guard_in_blocks(batches(inner), 10, every, block_steps=4)


def data(kinds):
    return {"x": np.tile(X, (len(kinds), 1)), "bad": np.array(kinds, np.int32)}


def start(inner):
    return window(guard(inner), 100).init(KEY, {"x": X, "bad": np.int32(0)})


@functools.cache
def forms(inner, every=100):
    """Blocks of four, and single steps, of the same learner."""
    return [jax.jit(run(inner, every).step) for run in (in_blocks, one_by_one)]


def both(inner, kinds, begin, every=100):
    """What blocks and single steps make of the same batches: states and metrics."""
    return [run(begin, data(kinds), len(kinds)) for run in forms(inner, every)]


ADAM = learner(TASK, optax.adam(0.1))
PLACES = {
    "none": [],
    "first": [0],
    "amid a block": [5],
    "last of a block": [3],
    "the very last": [19],
    "many": [1, 2, 4, 12, 19],
    "all": range(20),
}


def kinds_at(places):
    """Twenty batches, of which those are bad, each in another way than the one before."""
    bad = {place: 1 + number % 3 for number, place in enumerate(places)}
    return [bad.get(place, GOOD) for place in range(20)]


@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("every", [100, 3])
def test_a_bad_step_is_refused_wherever_it_stands(places, every):
    kinds = kinds_at(places)
    (found, sums), (expected, theirs) = both(ADAM, kinds, start(ADAM), every)
    assert_close(found, expected)
    assert_close(sums, theirs)
    counts = record(found, GuardState), record(expected, GuardState)
    assert_same_bits(*counts)
    assert int(counts[0].skipped) == len(places)
    assert int(found.step) == len(kinds) and np.isfinite(found.params["w"]).all()


def test_without_the_look_a_bad_step_gets_in():
    """The control."""
    state, _ = jax.jit(loop(fed(count_invalid(ADAM, 10))).step)(start(ADAM), data([0, 3, 0]), 3)
    assert not np.isfinite(state.model_state["mean"])


def test_a_run_has_the_same_bits_however_it_is_cut():
    kinds, (step, _) = kinds_at(PLACES["many"]), forms(ADAM)
    whole = step(start(ADAM), data(kinds), len(kinds))[0]
    for cuts in ([1] * 20, [7, 13], [2, 2, 9, 7]):
        state = start(ADAM)
        for n in cuts:
            state, _ = step(state, data(kinds), n)
        assert_same_bits(state, whole)


def test_no_step_is_no_change():
    state, sums = forms(ADAM)[0](start(ADAM), data([GOOD] * 20), 0)
    assert_same_bits(state, start(ADAM))
    assert float(sums["loss"].weight) == 0


def test_each_member_is_refused_for_itself():
    inner = ensemble(ADAM, 3)
    begin = start(inner)
    broken = begin.replace(params={"w": begin.params["w"].at[1].set(1e30)})
    kinds = [0] * 9 + [1] + [0] * 5
    (found, sums), (expected, theirs) = both(inner, kinds, broken)
    assert_close(found, expected)
    assert_close(sums, theirs)
    np.testing.assert_array_equal(record(found, GuardState).skipped, [1, 15, 1])
    np.testing.assert_array_equal(record(found, GuardState).failed, [-1, 0, -1])
    np.testing.assert_array_equal(found.opt_state[0].count, [14, 0, 14])
    assert not differ(found.params["w"][1], broken.params["w"][1])


def test_a_number_that_begins_infinite_may_stay():
    tx = optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau())
    inner = learner(TASK, tx)
    (found, _), (expected, _) = both(inner, [0] * 9, start(inner))
    assert int(record(found, GuardState).skipped) == 0
    assert_close(found, expected)


def test_a_metric_that_is_not_a_number_refuses_nothing():
    """Some are undefined for some batches; loss and gradient are what counts."""
    inner = learner(TASK, optax.sgd(0.1))

    def step(state, batch, *, axis=None):
        state, metrics = inner.step(state, batch, axis=axis)
        return state, metrics | {"ratio": Mean(jnp.float32(jnp.nan), jnp.float32(1))}

    odd = inner._replace(step=step)
    (found, sums), _ = both(odd, [0] * 9, start(odd))
    assert int(record(found, GuardState).skipped) == 0 and np.isnan(sums["ratio"].total)


def test_a_learner_that_does_not_count_its_steps_comes_to_an_end():
    def step(state, batch, *, axis=None):
        after, metrics = ADAM.step(state, batch, axis=axis)
        return after.replace(step=state.step), metrics

    idle = ADAM._replace(step=step)
    state, _ = forms(idle)[0](start(idle), data([GOOD] * 20), 7)
    assert int(state.opt_state[0].count) == 7
