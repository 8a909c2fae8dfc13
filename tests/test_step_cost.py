"""The work of a step, counted and not timed: it may shrink, and must not grow unseen.

The ceilings are what the compiler itself counted when they were written, and 5 % more; where its
two supported versions differ, the larger one. Lower them after an improvement.
"""

import functools

import jax
import optax
import pytest

import jdl
from benchmarks.peers.jdl_fit import task
from benchmarks.workloads import LEARNING_RATE, WORKLOADS
from jdl.data.feed import Feed
from jdl.run.execution.executor import Executor
from jdl.run.setup import prepare
from tests.support.learners import compilations

CEILINGS = {
    # workload: (floating-point operations, bytes accessed, megabytes of temporary memory)
    "cnn": (3.31e9, 7.37e8, 97.0),
    # A loop's body counts once: one step, and one look at a block of 64, which copies small leaves.
    # What the gradient multiplies outside the loop over time counts in full.
    "lstm": (2.34e9, 2.04e8, 55.6),
    "mlp": (1.84e7, 2.52e7, 3.97),
    "gpt": (1.12e10, 1.44e9, 153.0),
}


@functools.cache
def programs(name: str, gradient=jdl.mean_gradient, kind="loop"):
    """The state and the executor of a run of a workload, on an eighth of its data."""
    work = WORKLOADS[name]
    x, y = (part[: 8 * work.batch] for part in work.data())
    feed = Feed({"x": x} if name == "gpt" else {"x": x, "y": y}, work.batch)
    learner = jdl.learner(task(name), optax.adam(LEARNING_RATE), gradient)
    made, state = prepare(learner, feed, epochs=1, options=jdl.Options(dispatch=kind))
    return state, Executor(made, state)


def shares(name: str, state, made) -> list[float]:
    """What a step in a loop, and one look at it, take of each of its ceilings."""
    compiled = made._program.call.lower(state, made._batches.shapes, 1).compile()
    found = compiled.cost_analysis()
    cost = found[0] if isinstance(found, list) else found
    temporary = compiled.memory_analysis().temp_size_in_bytes / 1e6
    counted = cost["flops"], cost["bytes accessed"], temporary
    return [count / ceiling for count, ceiling in zip(counted, CEILINGS[name], strict=True)]


@pytest.mark.parametrize("name", CEILINGS)
def test_a_step_does_not_grow(name):
    found = shares(name, *programs(name))
    assert all(0.5 < share < 1.05 for share in found), found


def test_a_step_that_does_its_work_twice_is_seen():
    assert shares("mlp", *programs("mlp", jdl.sharpness_aware(0.1)))[0] > 1.5


def test_single_steps_copy_nothing_to_the_device():
    state, made = programs("mlp", kind="step")
    state, _ = made.advance(state, until=1)
    with jax.transfer_guard_host_to_device("disallow_explicit"):
        for until in range(2, 7):
            state, _ = made.advance(state, until)


def test_a_loop_is_given_one_number():
    state, made = programs("mlp")
    state = jax.tree.map(jax.numpy.copy, state)  # others share this executor
    n, (data, _) = jax.device_put(7), made._batches.at(0)
    state, _ = made._program.call(state, data, n)
    with jax.transfer_guard_host_to_device("disallow_explicit"):
        state, _ = made._program.call(state, data, n)
    # And what is passed for it is a plain number, whose type never makes a program anew.
    with compilations() as names:
        for count in (7, 1, 7):
            state, _ = made._program(state, data, count)
    assert not names and int(state.step) == 29


@pytest.mark.parametrize("form", ["step", "loop"])
def test_a_run_compiles_one_program_for_its_steps(form):
    work = WORKLOADS["mlp"]
    x, y = (part[: 4 * work.batch] for part in work.data())
    options = jdl.Options(bar=False, dispatch=form, log_every=3)
    learner = jdl.learner(task("mlp"), optax.adam(LEARNING_RATE))
    with compilations() as names:
        jdl.fit(learner, {"x": x, "y": y}, batch_size=work.batch, epochs=3, options=options)
    assert names.count("jit(step)") == 1
    # Of the rest, initialising is one; the others are copies and keys of a few numbers.
    assert len(names) <= 8, names
