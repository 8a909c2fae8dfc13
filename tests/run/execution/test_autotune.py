"""The form of a run is the faster one, as far as a few steps show it, and found in little time."""

import math
import time

import jax
import numpy as np
import optax
import pytest

import jdl
from jdl.core import lowering
from jdl.data.feed import Feed
from jdl.run.execution import autotune
from jdl.run.execution.executor import Executor
from jdl.run.telemetry.clock import TimeBreakdown
from jdl.run.telemetry.recompilation import CompilationMonitor
from tests.support.runs import line, net

pytestmark = pytest.mark.usefixtures("kept_programs")


@pytest.mark.parametrize(("one", "many", "form"), [(1e-3, 1e-4, "loop"), (1e-4, 1e-3, "step")])
def test_the_faster_form_is_taken(monkeypatch, one, many, form):
    state = jax.jit(net().init)(jax.random.key(0), line(8))
    programs = Executor(net(), Feed(line(), 8), state)
    monkeypatch.setattr(
        autotune, "time_step", lambda programs, form, *_, **__: {"step": one, "loop": many}[form]
    )
    monkeypatch.setattr(autotune, "is_loop_likely", lambda *_: False)
    assert autotune.autotune(programs, state, seconds=0.15) == ((form, 1024), True)
    monkeypatch.setattr(autotune, "time_step", lambda programs, form, *_, **__: {"step": 0.3}[form])
    # Too slow for a loop to matter: not tried.
    assert autotune.autotune(programs, state) == (("step", 1), True)


def test_only_the_loop_is_tried_where_dispatching_costs_more_than_the_step(monkeypatch):
    state = jax.jit(net().init)(jax.random.key(0), line(8))
    programs = Executor(net(), Feed(line(), 8), state)
    monkeypatch.setattr(
        autotune, "time_step", lambda programs, form, *_, **__: {"loop": 5e-4}[form]
    )
    assert autotune.autotune(programs, state, seconds=0.15) == (("loop", 300), True)
    # Little arithmetic and yet slow: memory, say, which a loop may be the slower one at.
    both = {"loop": 2e-3, "step": 1e-3}
    monkeypatch.setattr(autotune, "time_step", lambda programs, form, *_, **__: both[form])
    assert autotune.autotune(programs, state, seconds=0.15) == (("step", 150), True)


@pytest.mark.parametrize("first", ["step", "loop"])
def test_a_short_run_does_not_wait_for_a_second_program(monkeypatch, first):
    state = jax.jit(net().init)(jax.random.key(0), line(8))
    programs = Executor(net(), Feed(line(), 8), state)
    tried = []

    def seconds(programs, form, *_, **__):
        tried.append(form)
        time.sleep(0.05)
        return {first: 2e-3}.get(form, 1e-3)

    monkeypatch.setattr(autotune, "time_step", seconds)
    monkeypatch.setattr(autotune, "is_loop_likely", lambda *_: first == "loop")
    other = {"step": "loop", "loop": "step"}[first]
    assert autotune.autotune(programs, state, steps=10, seconds=0.2) == ((first, 100), False)
    assert tried == [first]
    assert autotune.autotune(programs, state, steps=10**6, seconds=0.2) == ((other, 200), True)
    assert tried == [first, first, other]


@pytest.mark.parametrize(("steps", "is_cut"), [(0, True), (1, True), (10**9, False)])
def test_a_run_is_not_measured_for_longer_than_it_would_need(monkeypatch, steps, is_cut):
    state = jax.jit(net().init)(jax.random.key(0), line(8))
    programs = Executor(net(), Feed(line(), 8), state)
    counted = []

    def advance(self, dispatch, start):
        def run(state, step, boundary):
            counted.append(boundary - step)
            time.sleep(0.02)
            return state, {}, boundary

        return run

    monkeypatch.setattr(Executor, "advance", advance)
    monkeypatch.setattr(Executor, "compile", lambda self, form, state: time.sleep(0.1))
    monkeypatch.setattr(autotune, "is_loop_likely", lambda *_: True)
    autotune.autotune(programs, state, steps, seconds=10)
    assert counted[:2] == [1, 1] and (len(counted) == 2) is is_cut


@pytest.mark.parametrize(("steps", "form"), [(10**6, "loop"), (1_000, "step")])
def test_forms_that_are_close_are_timed_twice_where_it_pays(monkeypatch, steps, form):
    """The first look at the loop met a busy machine."""
    state = jax.jit(net().init)(jax.random.key(0), line(8))
    programs = Executor(net(), Feed(line(), 8), state)
    told = {"step": [3e-3, 3e-3], "loop": [4e-3, 2e-3]}
    monkeypatch.setattr(autotune, "time_step", lambda programs, form, *_, **__: told[form].pop(0))
    monkeypatch.setattr(autotune, "is_loop_likely", lambda *_: False)
    assert autotune.autotune(programs, state, steps)[0].form == form


def test_a_step_that_met_a_busy_machine_is_looked_at_again(monkeypatch):
    state = jax.jit(net().init)(jax.random.key(0), line(8))
    programs = Executor(net(), Feed(line(), 8), state)
    told = {"step": [0.3, 0.02, 2.0], "loop": [0.01]}
    monkeypatch.setattr(autotune, "time_step", lambda programs, form, *_, **__: told[form].pop(0))
    monkeypatch.setattr(autotune, "is_loop_likely", lambda *_: False)
    monkeypatch.setattr(autotune, "CLOSE", 1.0)
    assert autotune.autotune(programs, state) == (("loop", 40), True)
    assert autotune.autotune(programs, state) == (("step", 1), True)  # so slow that once is enough
    assert told == {"step": [], "loop": []}


def test_what_is_measured_twice_is_compiled_once(monkeypatch):
    state = jax.jit(net().init)(jax.random.key(0), line(8))
    accounts = TimeBreakdown()
    programs = Executor(net(), Feed(line(), 8), state, accounts)
    monkeypatch.setattr(autotune, "CLOSE", math.inf)
    monkeypatch.setattr(autotune, "LONG", 0.0)
    monkeypatch.setattr(autotune, "is_loop_likely", lambda *_: False)
    with accounts:
        autotune.autotune(programs, state, seconds=0.01)
    assert accounts.recompiled == []


def test_while_a_program_is_compiled_the_set_is_not_on_the_device(monkeypatch):
    state = jax.jit(net().init)(jax.random.key(0), line(8))
    data, there = line(37), []
    programs, shape = Executor(net(), Feed(data, 8), state), data["x"].shape

    def compiling(self, *given):
        there.append(any(x.shape == shape for x in jax.live_arrays()))
        return inner(self, *given)

    inner = CompilationMonitor.compile
    monkeypatch.setattr(CompilationMonitor, "compile", compiling)
    monkeypatch.setattr(autotune, "is_loop_likely", lambda *_: False)
    autotune.autotune(programs, state, seconds=0.01)
    assert there == [False, False]
    kept = programs.resident(0)["set"]["x"]
    assert kept.shape == shape
    programs.compile("step", state)  # it was before, so nothing is put away
    assert programs.resident(0)["set"]["x"] is kept and len(there) == 2


def test_what_is_small_is_told_from_its_arithmetic():
    def is_small(width):
        model = jdl.from_linen(jdl.models.MLP((width,), outputs=1))
        learner = jdl.learner(jdl.regression(model), optax.sgd(0.1))
        data = {"x": np.ones((64, 32), np.float32), "y": np.ones((64, 1), np.float32)}
        state = jax.jit(learner.init)(jax.random.key(0), data)
        return autotune.is_loop_likely(Executor(learner, Feed(data, 64), state), state)

    # 6 x 64 x 32 x width: 0.4 and 200 million.
    assert is_small(32) and not is_small(16_384)


def test_on_an_nvidia_device_the_loop_is_tried_first(monkeypatch):
    state = jax.jit(net().init)(jax.random.key(0), line(8))
    programs = Executor(net(), Feed(line(), 8), state)
    monkeypatch.setattr(Executor, "flops", lambda self, state: 1e12)
    monkeypatch.setattr(lowering, "cuda_capability", lambda: 9.0)
    tried = []

    def seconds(programs, form, *_, **__):
        tried.append(form)
        return {"loop": 3e-3, "step": 2e-3}[form]

    monkeypatch.setattr(autotune, "time_step", seconds)
    monkeypatch.setattr(autotune, "CLOSE", 1.0)
    assert autotune.autotune(programs, state, steps=1, seconds=0.3) == (("loop", 100), False)
    assert autotune.autotune(programs, state, seconds=0.3) == (("step", 150), True)
    assert tried == ["loop", "loop", "step"]
