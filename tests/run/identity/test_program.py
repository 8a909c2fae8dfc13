"""The identity of a traced learner: what changes it, and what does not."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl
from jdl.core import tree
from jdl.run.identity.compare import compare_fingerprints
from jdl.run.identity.fingerprint import describe_learner
from jdl.run.identity.program import describe, schedule_change
from tests.support import learners
from tests.support.runs import ROOT, line, net

BATCH = line(8)


def record(learner, batch=BATCH):
    """What a run directory keeps of a learner."""
    return {name: program.record() for name, program in describe_learner(learner, batch).items()}


def with_tx(tx, **task):
    return jdl.learner(learners.network(**task), tx)


def cosine(steps, rate=0.1):
    return optax.cosine_decay_schedule(rate, steps)


def injected(rate):
    return with_tx(optax.inject_hyperparams(optax.sgd)(learning_rate=rate))


def best_of(seed):
    return jdl.keep_best(with_tx(optax.sgd(0.1)), valid=line(8, seed=seed), every=4)


def swept(rates):
    return jdl.sweep(lambda rate: with_tx(optax.sgd(rate)), {"rate": rates})


def weighted(weights):
    task = learners.network()

    def loss(params, model_state, batch, key, *, train):
        mean, rest = task.loss(params, model_state, batch, key, train=train)
        return mean.replace(total=mean.total * weights.sum()), rest

    return jdl.learner(task._replace(loss=loss), optax.sgd(0.1))


LEARNERS = {
    "a rate": (lambda: net(rate=0.1), lambda: net(rate=0.2)),
    "a schedule": (lambda: net(rate=cosine(16)), lambda: net(rate=cosine(32))),
    "the kind of schedule": (
        lambda: net(rate=cosine(16)),
        lambda: net(rate=optax.linear_schedule(0.1, 0, 16)),
    ),
    "weight decay": (
        lambda: with_tx(optax.adamw(0.1, weight_decay=1e-4)),
        lambda: with_tx(optax.adamw(0.1, weight_decay=1e-3)),
    ),
    "a rate in the optimizer's state": (lambda: injected(0.1), lambda: injected(0.2)),
    "a penalty": (
        lambda: with_tx(optax.sgd(0.1)),
        lambda: jdl.learner(jdl.l2(learners.network(), 0.1), optax.sgd(0.1)),
    ),
    "an augmentation": (
        lambda: with_tx(optax.sgd(0.1), noise=0.1),
        lambda: with_tx(optax.sgd(0.1), noise=0.2),
    ),
    "clipping": (
        lambda: with_tx(optax.sgd(0.1)),
        lambda: jdl.learner(learners.network(), optax.sgd(0.1), jdl.clip_gradient(1.0)),
    ),
    "a transform": (lambda: jdl.ema(net(), 0.9), lambda: jdl.ema(net(), 0.99)),
    "the rates of a sweep": (lambda: swept([0.1, 0.2]), lambda: swept([0.1, 0.3])),
    "the data of keep_best": (lambda: best_of(0), lambda: best_of(1)),
    "an array that is closed over": (
        lambda: weighted(np.array([0.5, 1.5], np.float32)),
        lambda: weighted(jnp.array([1.5, 1.0], jnp.float32)),
    ),
    "steps that are summed": (
        lambda: jdl.learner(learners.network(), optax.sgd(0.1), jdl.accumulate(2)),
        lambda: jdl.learner(learners.network(), optax.sgd(0.1), jdl.accumulate(4)),
    ),
}


@pytest.mark.parametrize("change", LEARNERS)
def test_every_change_of_the_program_is_seen(change):
    one, other = LEARNERS[change]
    assert record(one()) == record(one())
    assert record(one()) != record(other())


def test_a_jitted_learner_and_other_names_are_the_same_program():
    def renamed(tx):
        def other_name(grads, opt_state, parameters=None, **rest):
            return tx.update(grads, opt_state, parameters, **rest)

        return optax.GradientTransformationExtraArgs(tx.init, other_name)

    tx = optax.with_extra_args_support(optax.adam(0.1))
    assert record(jdl.jit(with_tx(tx))) == record(with_tx(renamed(tx))) == record(with_tx(tx))


@pytest.mark.parametrize("devices", [2, 4])
def test_the_number_of_devices_is_no_part_of_it(devices):
    one, mesh = net(noise=0.1), jdl.mesh(data=devices)
    rule = jdl.rules.fsdp()
    for wide in (
        jdl.shard(one, mesh, rule),
        jdl.shard_map(one, mesh),
        jdl.pmap(one, devices=devices),
    ):
        assert record(wide) == record(one)
    many = jdl.ensemble(one, 4)
    assert record(jdl.shard_members(many, jdl.mesh(members=devices))) == record(many)


def test_what_stands_around_a_sharded_learner_is_part_of_it():
    wide = jdl.shard(net(), jdl.mesh(data=2))
    assert record(jdl.ema(wide, 0.9)) != record(wide) == record(net())


PROGRAM = """
import json
from tests.run.identity.test_program import SEVERAL, LEARNERS, record
print(json.dumps([record(LEARNERS[name][0]()) for name in SEVERAL]))
"""

SEVERAL = ("clipping", "the data of keep_best", "a schedule")


def test_another_process_finds_the_same():
    here = [record(LEARNERS[name][0]()) for name in SEVERAL]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "77"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, cwd=ROOT
    )
    assert json.loads(done.stdout) == here, done.stderr[-500:]


def test_loops_and_branches_are_entered():
    def looped(scale):
        def body(carry, x):
            return carry * scale + x, jax.lax.cond(x > 0, lambda: x * scale, lambda: x)

        return describe(jax.make_jaxpr(lambda xs: jax.lax.scan(body, 0.0, xs))(jnp.ones(3)))

    assert looped(0.5).record() == looped(0.5).record() != looped(0.25).record()
    assert looped(0.5).structure == looped(0.25).structure


def test_functions_of_python_enter_with_their_code():
    def called(function):
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        program = jax.make_jaxpr(lambda x: jax.pure_callback(function, shape, x))(1.0)
        return describe(program).structure

    def make(twice):
        return (lambda x: x * 2) if twice else (lambda x: x + 2)

    assert called(make(True)) == called(make(True)) != called(make(False))


# Schedules


SCHEDULES = {
    "cosine": lambda steps: optax.cosine_decay_schedule(0.1, steps),
    "warm-up": lambda steps: optax.warmup_cosine_decay_schedule(0, 0.1, steps // 10, steps),
    "linear": lambda steps: optax.linear_schedule(0.1, 0.0, steps),
    "one cycle": lambda steps: optax.cosine_onecycle_schedule(steps, 0.1),
    "pieces": lambda steps: optax.piecewise_constant_schedule(0.1, {steps // 2: 0.1}),
    "by hand": lambda steps: lambda count: 0.1 * (1 - count / steps),
}


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("inject", [False, True])
def test_a_schedule_may_follow_more_steps(kind, inject):
    tx = optax.inject_hyperparams(optax.adam) if inject else optax.adam

    def programs(steps):
        return describe_learner(with_tx(tx(SCHEDULES[kind](steps))), BATCH)

    def fingerprint(steps, of):
        return {
            "steps": steps,
            "versions": {},
            "data": {},
            "state": {},
            "program": {name: program.record() for name, program in of.items()},
        }

    old, new = programs(40), programs(100)
    found = compare_fingerprints(fingerprint(40, old), fingerprint(100, new))
    assert not found.differences
    step = new["step"]
    counters = dict.fromkeys(step.counters.values(), np.int32(30))
    pairs = schedule_change(step, counters, found.schedule)
    before, after = (abs(SCHEDULES[kind](steps)(30)) for steps in (40, 100))
    for was, now in pairs:
        np.testing.assert_allclose([abs(was), abs(now)], [before, after], rtol=1e-5)
    assert pairs
    # At the same number of steps the same change is refused.
    assert compare_fingerprints(fingerprint(100, old), fingerprint(100, new)).differences


def test_a_rate_may_not_change_together_with_its_schedule():
    old, new = (
        {
            "steps": steps,
            "versions": {},
            "data": {},
            "state": {},
            "program": record(net(rate=cosine(steps, rate))),
        }
        for steps, rate in ((40, 0.1), (80, 0.2))
    )
    [difference] = compare_fingerprints(old, new).differences
    assert "0.1 in the run, 0.2 now" in difference


def test_a_trace_is_not_taken_where_jax_runs_without(monkeypatch):
    with jax.disable_jit():
        assert describe_learner(net(), BATCH) == {}
    assert tree.any_key().shape == ()
