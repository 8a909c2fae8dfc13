"""The properties of the contract, each a function of one row at work."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jdl.core import tree
from jdl.learn.ensemble import ensemble
from jdl.learn.transforms import jit
from jdl.parallel.mesh import mesh
from jdl.parallel.pmap import pmap
from jdl.parallel.shard import shard
from jdl.run.storage.checkpoint import Checkpoints
from tests.support import learners
from tests.support.contract_rows import PLAIN, Row, Seen, plainly
from tests.support.learners import KEY, assert_close, assert_same_bits


class Case:
    """A row at work. Each form of it is compiled once and shared by the properties."""

    def __init__(self, row: Row, folder, double: bool = False):
        self.row, self.folder, self.double = row, folder, double
        self.learner = row.build(plainly)
        self.batch = learners.doubled(row.batch) if double else row.batch
        self.jitted = jit(self.learner)
        self.start = self.begin(KEY)
        self.before = learners.numbers((self.start, self.batch))
        with learners.compilations() as self.programs:
            self.trained = self.run(self.jitted.step, self.start)
        with learners.compilations() as self.evaluations:
            states = self.start, self.trained
            self.evaluated = [self.jitted.evaluate(state, self.rows) for state in states]
        self.spread_results = {}

    @property
    def rows(self):
        """A batch for evaluation."""
        return self.batch if "x" in self.batch else PLAIN

    def begin(self, key):
        start = self.jitted.init(key, self.batch)
        return learners.doubled(start) if self.double else start

    def run(self, step, state, calls=None):
        for _ in range(self.row.calls if calls is None else calls):
            state, _ = step(state, self.batch)
        return state

    def close(self, one, other):
        tolerance = (1e-9, 1e-12) if self.double else (self.row.tolerance, 1e-6)
        assert_close(one, other, *tolerance)

    def spread(self, form):
        """(state, evaluation, programs) after training on eight devices."""
        if form not in self.spread_results:
            build = self.row.build if form is not pmap else self.row.mapped or self.row.build
            around = form if form is pmap else lambda inner: shard(inner, mesh(data=8))
            learner = build(around)
            everywhere = NamedSharding(mesh(data=8), PartitionSpec())
            start, batch = jax.device_put((self.start, self.batch), everywhere)

            @jax.jit
            def step(state, batch):
                state, _ = learner.step(state, batch)
                return state, None if form is pmap else learner.evaluate(state, self.rows)

            evaluated = None
            with learners.compilations() as programs:
                for _ in range(self.row.calls):
                    start, evaluated = step(start, batch)
            self.spread_results[form] = start, evaluated, programs
        return self.spread_results[form]


def jit_equals_eager(case):
    calls = case.row.eager or case.row.calls
    eager = case.run(case.learner.step, case.start, calls)
    case.close(eager, case.run(case.jitted.step, case.start, calls))
    case.close(case.learner.evaluate(case.trained, case.rows), case.evaluated[1])
    predict = case.learner.predict
    case.close(predict(case.trained, case.rows), case.jitted.predict(case.trained, case.rows))


def vmapped_equals_single(case):
    lone = [case.begin(jax.random.fold_in(KEY, i)) for i in range(2)]
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), *lone).replace(step=lone[0].step)
    many = ensemble(case.learner, 2)

    @jax.jit
    def step(state, batch):
        state, _ = many.step(state, batch)
        return state, many.evaluate(state, case.rows)

    for _ in range(case.row.calls):
        both, evaluated = step(both, case.batch)
    for index, start in enumerate(lone):
        single = case.run(case.jitted.step, start)
        own = both.replace(step=jnp.stack([both.step] * 2))
        case.close(learners.member(own, index), single)
        case.close(learners.member(evaluated, index), case.jitted.evaluate(single, case.rows))


def sharded_equals_one(case):
    sharded, evaluated, programs = case.spread(shard)
    case.close(sharded, case.trained)
    case.close(evaluated, case.evaluated[1])
    assert len(programs) == 1, programs


def pmap_equals_shard(case):
    mapped, _, programs = case.spread(pmap)
    case.close(mapped, case.spread(shard)[0])
    assert len(programs) == 1, programs


def masks_differ_between_devices(case):
    """Eight devices with the same examples and the same draws would make the step of one."""
    part = {name: value[:2] for name, value in case.batch.items()} | {"mask": jnp.ones(2)}
    tiled = {name: jnp.concatenate([value] * 8) for name, value in part.items()}
    steps = [jax.jit(pmap(case.learner, devices=n).step) for n in (8, 1)]
    (eight, _), (one, _) = (
        step(case.start, data) for step, data in zip(steps, (tiled, part), strict=True)
    )
    with pytest.raises(AssertionError):
        case.close(eight.params, one.params)


def one_program_for_training_and_one_for_evaluation(case):
    assert len(case.programs) == 1, case.programs
    assert len(case.evaluations) == 1, case.evaluations


def inputs_are_not_mutated(case):
    case.learner.step(case.start, case.batch)  # uncompiled: there a container could be changed
    assert_same_bits((case.start, case.batch), case.before)
    assert learners.differ(case.trained.params, case.start.params)


def same_key_same_bits(case):
    # Traced anew, or a draw from outside would be the same constant again.
    init = jax.jit(lambda key, batch: case.learner.init(key, batch))
    assert_same_bits(case.run(case.jitted.step, init(KEY, case.batch)), case.trained)
    other = init(jax.random.key(1), case.batch)
    assert learners.differ(other.params, case.start.params)


def gradients_are_finite_and_somewhere_not_zero(case):
    state = case.run(case.jitted.step, case.start, calls=min(3, case.row.calls))
    seen = jax.tree.leaves(state.opt_state, is_leaf=lambda x: isinstance(x, Seen))
    seen = [record.largest for record in seen if isinstance(record, Seen)]
    assert tree.count(seen) == tree.count(state.params)
    for path, largest in tree.flatten(seen).items():
        assert np.isfinite(largest).all(), path
        assert np.max(largest) > 1e-6, path


def a_checkpoint_gives_the_same_bits(case):
    checkpoints = Checkpoints(case.folder)
    checkpoints.save(1, case.trained, wait=True)
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), case.trained
    )
    restored, _ = checkpoints.restore(target)
    assert_same_bits(restored, case.trained)
    chex.assert_trees_all_equal_shapes_and_dtypes(restored, case.trained)


def gives_the_weights_of_its_reference(case):
    if case.row.same_as is not None:
        case.close(case.trained.params, reference_weights(case.row.same_as, case.double))
        assert int(case.trained.step) == 10


@functools.cache
def reference_weights(build, double):
    learner, batch = build(), learners.doubled(PLAIN) if double else PLAIN
    start = jit(learner).init(KEY, batch)
    lone, _ = learners.train(learner, batch, 10, start=learners.doubled(start) if double else start)
    return lone.params


PARITY = {
    "vmapped equals single": vmapped_equals_single,
    "sharded equals one": sharded_equals_one,
    "pmap equals shard": pmap_equals_shard,
    "same as": gives_the_weights_of_its_reference,
}
PROPERTIES = {
    "jit equals eager": jit_equals_eager,
    **PARITY,
    "one program": one_program_for_training_and_one_for_evaluation,
    "same key": same_key_same_bits,
    "gradients": gradients_are_finite_and_somewhere_not_zero,
    "checkpoint": a_checkpoint_gives_the_same_bits,
    "inputs": inputs_are_not_mutated,
}


def check(case, properties):
    failures = []
    for name, holds in properties.items():
        if name in case.row.without:
            continue
        try:
            holds(case)
        except Exception as failure:
            failure.add_note(f"the property: {name}")
            failures.append(failure)
    if failures:
        raise ExceptionGroup(f"{case.row.name} breaks the contract", failures)
