"""loop, resident, stacked, tabled, window, ema: against plain Python over the same steps."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdl.core.lowering import is_single_step, lowering_for
from jdl.learn.ema import EmaState, ema
from jdl.learn.guard import GuardState, guard
from jdl.learn.learner import learner
from jdl.learn.transforms import jit, loop, resident
from jdl.learn.window import WindowState, window
from jdl.run.execution.batches import from_index_table, from_stack
from jdl.run.execution.training_form import cache_trace
from tests.support.learners import (
    KEY,
    assert_close,
    assert_same_bits,
    batch,
    compilations,
    differ,
    network,
    record,
    train,
)

DATA = batch(examples=24)


def order(step, size):
    return (step * 5 + jnp.arange(size) * 7) % 24


def base(**more):
    return learner(network(noise=0.1, **more), optax.adam(0.01))


def run(learner):
    return loop(resident(window(guard(learner), 4), order, 8))


# loop


@pytest.mark.parametrize("cuts", [(13,), (1,) * 13, (3, 4, 6), (12, 1), (5, 0, 8)])
def test_a_run_has_the_same_bits_however_it_is_cut(cuts):
    learner, data = CUT
    state = learner.init(KEY, data)
    for n in cuts:
        state, metrics = learner.step(state, data, n)
    assert_same_bits((state, metrics), WHOLE)


CUT = jit(run(base())), jax.tree.map(jnp.asarray, DATA)
WHOLE = CUT[0].step(CUT[0].init(KEY, CUT[1]), CUT[1], 13)


def test_one_program_for_every_number_of_steps():
    learner, data = jit(run(base()), donate=True), jax.tree.map(jnp.asarray, DATA)
    state = learner.init(KEY, data)
    with compilations() as programs:
        for n in (3, 1, 7):
            state, _ = learner.step(state, data, n)
    assert len(programs) == 1 and int(state.step) == 11


def test_the_step_is_traced_once():
    once = chex.assert_max_traces(base().step, n=2)  # for its shapes, and for the program
    chex.clear_trace_counter()
    looped = loop(base()._replace(step=once))
    step = jax.jit(looped.step)
    state = looped.init(KEY, DATA)
    for n in (2, 3):
        state, _ = step(state, DATA, n)
    assert int(state.step) == 5


def test_a_loop_is_the_same_as_its_steps(x64):
    data = batch(examples=24, dtype="float64")
    inner = window(guard(base()), 4)
    looped, sums = jax.jit(run(base()).step)(inner.init(KEY, data), data, 10)
    state, step = inner.init(KEY, data), jax.jit(inner.step)
    for i in range(10):
        rows = np.asarray(order(i, 8))
        state, metrics = step(state, {name: value[rows] for name, value in data.items()})
    assert_close(looped, state, rtol=1e-12)
    assert_close(sums, metrics, rtol=1e-12)


# resident and stacked


def test_resident_tabled_and_stacked_batches_are_those_that_the_host_gathers():
    inner = base()
    batches = [{k: v[np.asarray(order(i, 8))] for k, v in DATA.items()} for i in range(6)]
    start, step = inner.init(KEY, batches[0]), jax.jit(inner.step)
    state = start
    for each in batches:
        state, _ = step(state, each)
    gathered = start
    gather = jax.jit(resident(inner, order, 8).step)
    for _ in range(6):
        gathered, _ = gather(gathered, DATA)
    assert_same_bits(gathered, state)
    looked, look = start, jax.jit(from_index_table(inner).step)
    for first in (0, 4):
        rows = np.stack([np.asarray(order(i, 8)) for i in range(first, first + 4)])
        for _ in range(min(4, 6 - first)):
            looked, _ = look(looked, {"first": np.int32(first), "rows": rows, "set": DATA})
    assert_same_bits(looked, state)
    piled, pile = start, jax.jit(from_stack(inner).step)
    for first in (0, 3):
        stack = jax.tree.map(lambda *leaves: np.stack(leaves), *batches[first : first + 3])
        for _ in range(3):
            piled, _ = pile(piled, {"first": np.int32(first), "stack": stack})
    assert_same_bits(piled, state)


def test_its_start_is_that_of_a_batch():
    start = base().init(KEY, {k: v[:8] for k, v in DATA.items()})
    assert_same_bits(resident(base(), order, 8).init(KEY, DATA), start)


def test_the_set_is_an_argument_and_no_constant_of_the_program():
    held = resident(base(), order, 8)
    jaxpr = jax.make_jaxpr(held.step)(held.init(KEY, DATA), DATA)
    assert not [c for c in jaxpr.consts if np.size(c) >= 24]


# window


def test_a_window_adds_up_and_begins_anew():
    inner = base()
    many, lone = window(inner, 4), inner
    wide, one = many.init(KEY, DATA), lone.init(KEY, DATA)
    step, single = jax.jit(many.step), jax.jit(lone.step)
    total = None
    for i in range(10):
        wide, sums = step(wide, DATA)
        one, metrics = single(one, DATA)
        total = metrics if i % 4 == 0 else jax.tree.map(jnp.add, total, metrics)
        assert_close(sums, total)
        assert float(sums["gradient_norm"].weight) == i % 4 + 1
    assert_same_bits(wide.extra.sums, sums)
    assert_same_bits(wide.params, one.params)


# ema


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.9999])
def test_the_average_in_closed_form(decay, x64):
    data = batch(dtype="float64")
    averaged = ema(learner(network(), optax.sgd(0.1)), decay)
    state, step = averaged.init(KEY, data), jax.jit(averaged.step)
    weights = []
    for _ in range(8):
        state, _ = step(state, data)
        weights.append(np.asarray(state.params["in"]))
    share = decay ** np.arange(7, -1, -1.0)
    expected = np.tensordot(share / share.sum(), np.stack(weights), 1)
    average = record(state, EmaState).weights[0]["in"]
    np.testing.assert_allclose(average, expected, rtol=1e-9, atol=1e-12)
    swapped = state.replace(params=record(state, EmaState).weights[0], extra=None)
    plain = learner(network(), optax.sgd(0.1))
    assert_same_bits(averaged.evaluate(state, data), plain.evaluate(swapped, data))
    assert_same_bits(averaged.predict(state, data), plain.predict(swapped, data))
    if decay:
        assert differ(averaged.predict(state, data), plain.predict(state.replace(extra=None), data))


def test_after_one_step_the_average_is_the_weights_in_single_precision_too():
    for decay in (0.9, 0.9999, 0.999999):
        averaged = ema(learner(network(), optax.sgd(0.1)), decay)
        after, _ = train(averaged, batch(), 1)
        assert_close(record(after, EmaState).weights[0], after.params, rtol=1e-6, atol=1e-7)


def test_the_average_shares_no_memory_with_weights_that_are_donated():
    state = ema(base(), 0.9).init(KEY, DATA)
    step = jit(ema(base(), 0.9), donate=True).step
    for _ in range(3):
        state, _ = step(state, DATA)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(state))


def test_each_transform_owns_one_record_and_evaluates_as_the_inner_one():
    full = window(ema(guard(base()), 0.9), 3)
    start = full.init(KEY, DATA)
    after, _ = train(full, DATA, 4)
    for state in (start, after):
        kinds = [type(state.extra), type(state.extra.inner), type(state.extra.inner.inner)]
        assert kinds == [WindowState, EmaState, GuardState]
        assert state.extra.inner.inner.inner is None
    assert_close(full.evaluate(start, DATA), base().evaluate(start.replace(extra=None), DATA))


# traced_once


def counting(calls: list[str]):
    """A learner that notes each time Python runs through its `init` or `step`."""
    inner = base()

    def init(key, batch):
        calls.append("init")
        return inner.init(key, batch)

    def step(state, batch, *, axis=None):
        calls.append("alone" if is_single_step() else "step")
        return inner.step(state, batch, axis=axis)

    return inner._replace(init=init, step=step)


def test_python_runs_through_a_step_once_for_shapes_programs_and_loops():
    calls: list[str] = []
    learner, data = cache_trace(counting(calls)), jax.tree.map(jnp.asarray, DATA)
    start = jax.eval_shape(learner.init, KEY, data)
    for made in (jit(window(guard(learner), 4)), jit(loop(learner))):
        jax.eval_shape(made.step, jax.jit(made.init)(KEY, data), data)
    jax.eval_shape(learner.step, start, data)
    assert calls == ["init", "step"]
    with lowering_for(single_step=True):  # a promise that may lead to another form of the program
        for _ in range(2):
            jax.eval_shape(lambda *given: learner.step(*given), start, data)
    assert calls == ["init", "step", "alone"]


def test_a_learner_traced_once_compiles_to_the_same_program():
    data = jax.tree.map(jnp.asarray, DATA)
    state = base().init(KEY, data)
    plain, once = (
        jax.jit(made.step).lower(state, data).as_text() for made in (base(), cache_trace(base()))
    )
    assert plain == once
