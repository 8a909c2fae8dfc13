"""Nothing that is not finite gets in, however often it comes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl
from jdl.core.finite import PACK_BELOW_ELEMENTS
from jdl.core.lowering import lowering_for
from jdl.core.types import Mean, Task
from jdl.learn.ema import ema
from jdl.learn.ensemble import ensemble
from jdl.learn.guard import GuardState, guard, is_valid_update
from jdl.learn.learner import learner
from jdl.learn.transforms import loop, resident
from jdl.learn.window import window
from tests.support.learners import KEY, assert_close, assert_same_bits, differ, member, record


def fragile() -> Task:
    """A quadratic with batch statistics, and three ways to go wrong by `batch["bad"]`.

    0 is a good batch; at 1 the loss is nan; at 2 the loss is finite and the gradient infinite (the
    slope of the square root at zero); at 3 only the model state turns nan.
    """

    def init(key, batch):
        return {"w": jax.random.normal(key, (3,))}, {"mean": jnp.zeros(())}

    def loss(params, model_state, batch, key, *, train):
        w, bad = params["w"], batch["bad"]
        mean = 0.9 * model_state["mean"] + 0.1 * batch["x"].mean() + jnp.where(bad == 3, jnp.nan, 0)
        steep = jnp.sqrt(w - jax.lax.stop_gradient(w) + jnp.where(bad == 2, 0.0, 1.0))
        total = ((w - batch["x"]) ** 2).sum() + 0.1 * steep.sum() + jnp.where(bad == 1, jnp.nan, 0)
        value = Mean(total, jnp.float32(1))
        return value, ({"mean": mean}, {"loss": value})

    return Task(init, loss, lambda params, model_state, batch: params["w"])


TASK = fragile()
X = np.array([1.0, 2.0, 3.0], np.float32)
OPTIMIZERS = {
    "sgd": optax.sgd(0.1),
    "adam": optax.adam(0.1),
    "clipped adam": optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1)),
    "clipped by value": optax.chain(optax.clip(1.0), optax.sgd(0.1)),
    "lion": optax.lion(0.1),
    "sign": optax.sign_sgd(0.1),
}


def batches(*kinds):
    return [{"x": X, "bad": np.int32(kind)} for kind in kinds]


def run(learner, batches, start=None):
    step = jax.jit(learner.step)
    state = learner.init(KEY, batches[0]) if start is None else start
    every = []
    for batch in batches:
        state, metrics = step(state, batch)
        every.append(metrics)
    return state, every


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("kind", [1, 2, 3])
def test_bad_batches_leave_no_trace_however_many_come(name, kind):
    guarded = guard(learner(TASK, OPTIMIZERS[name]))
    clean, _ = run(guarded, batches(*[0] * 6))
    state, metrics = run(guarded, batches(*[0] * 3, *[kind] * 23, *[0] * 3))
    for part in ("params", "model_state", "opt_state"):
        assert_same_bits(getattr(state, part), getattr(clean, part))
    assert int(state.step) == 29 and int(record(state, GuardState).skipped) == 23
    weights = [float(m["loss"].weight) for m in metrics]
    assert weights == [1] * 3 + [0] * 23 + [1] * 3
    assert [int(m["skipped"].total) for m in metrics] == [0] * 3 + [1] * 23 + [0] * 3
    assert all(float(leaf) == 0 for m in metrics[3:26] for leaf in jax.tree.leaves(m["loss"]))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_without_a_guard_an_infinite_gradient_gets_in(name):
    """The control: for every optimizer the batch does harm; for some, nothing turns nan."""
    bare = learner(TASK, OPTIMIZERS[name])
    clean, _ = run(bare, batches(0, 0))
    state, _ = run(bare, batches(0, 2, 0))
    assert differ(state.params, clean.params)


@pytest.mark.parametrize("name", ["clipped by value", "sign"])
def test_these_optimizers_hide_an_infinite_gradient(name):
    """Why the gradient itself is looked at: here all new leaves are finite."""
    state, _ = run(learner(TASK, OPTIMIZERS[name]), batches(2))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state.params, state.opt_state)))


def test_the_optimizers_count_stands_still():
    state, _ = run(guard(learner(TASK, optax.adam(0.1))), batches(0, 1, 1, 0, 2))
    assert int(state.opt_state[0].count) == 2 and int(state.step) == 5


@pytest.mark.parametrize(
    "kinds, total, in_a_row, first, failed",
    [
        ([0, 0], 0, 0, -1, -1),
        ([0, 1, 1], 2, 2, 1, -1),
        ([1, 1, 1], 3, 3, 0, 0),
        ([1, 1, 0, 0, 2, 3, 1, 1], 6, 4, 4, 4),
        ([0, 1, 1, 1, 0, 1], 4, 1, 5, 1),
        ([1, 1, 1, 0, 1, 1, 1], 6, 3, 4, 0),
    ],
)
def test_the_counts_name_the_first_bad_step_of_the_row(kinds, total, in_a_row, first, failed):
    state, _ = run(guard(learner(TASK, optax.sgd(0.1)), limit=3), batches(*kinds))
    counts = record(state, GuardState)
    found = [int(c) for c in (counts.skipped, counts.consecutive, counts.first, counts.failed)]
    assert found == [total, in_a_row, first, failed]


def test_a_state_that_begins_infinite_may_stay():
    """`reduce_on_plateau` keeps a best value that starts at infinity."""
    tx = optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau())
    state, _ = run(guard(learner(TASK, tx)), batches(0, 0))
    assert int(record(state, GuardState).skipped) == 0


def keeping(leaf, change):
    """A learner with one more leaf of model state: `change(leaf, step)` makes it at each step."""
    inner = learner(TASK, optax.sgd(0.1))

    def init(key, batch):
        state = inner.init(key, batch)
        return state.replace(model_state=state.model_state | {"leaf": leaf})

    def step(state, batch, *, axis=None):
        own = {name: value for name, value in state.model_state.items() if name != "leaf"}
        after, metrics = inner.step(state.replace(model_state=own), batch, axis=axis)
        leaf = change(state.model_state["leaf"], state.step)
        return after.replace(model_state=after.model_state | {"leaf": leaf}), metrics

    return inner._replace(init=init, step=step)


def test_a_leaf_without_numbers_hides_nothing():
    empty = keeping(jnp.zeros((0, 3)), lambda leaf, step: leaf)
    state, _ = run(guard(empty), batches(0, 1, 3, 0))
    assert int(record(state, GuardState).skipped) == 2


@pytest.mark.parametrize("bad", [complex(0, np.nan), complex(np.inf, 0)])
def test_complex_numbers_are_looked_at(bad):
    odd = keeping(
        jnp.ones(2, jnp.complex64), lambda leaf, step: leaf * jnp.where(step == 1, bad, 1)
    )
    state, _ = run(guard(odd), batches(0, 0, 0))
    assert (
        int(record(state, GuardState).skipped) == 1 and np.isfinite(state.model_state["leaf"]).all()
    )


def test_what_is_infinite_may_stay_but_not_turn_into_something_worse():
    worse = keeping(jnp.full(2, jnp.inf), lambda leaf, step: leaf * jnp.where(step == 1, 0.0, 1.0))
    state, _ = run(guard(worse), batches(0, 0, 0))
    assert int(record(state, GuardState).skipped) == 1 and np.isinf(state.model_state["leaf"]).all()


def test_it_sees_values_where_the_inner_init_does():
    """A compiled init would hide them from tasks, which refuse some."""
    seen = []
    inner = learner(TASK, optax.sgd(0.1))

    def init(key, batch):
        seen.append(isinstance(batch["bad"], jax.core.Tracer))
        return inner.init(key, batch)

    guard(inner._replace(init=init)).init(KEY, batches(0)[0])
    assert seen == [False]


# Members

AROUND = {
    "guard of ensemble": lambda inner: guard(ensemble(inner, 3), 4),
    "ensemble of guard": lambda inner: ensemble(guard(inner, 4), 3),
    "guard of ema of ensemble": lambda inner: guard(ema(ensemble(inner, 3), 0.9), 4),
}


@pytest.mark.parametrize("form", AROUND)
def test_each_member_is_refused_for_itself(form):
    many = AROUND[form](learner(TASK, optax.adam(0.1)))
    good = batches(*[0] * 6)
    start = many.init(KEY, good[0])
    broken = start.replace(params={"w": start.params["w"].at[1].set(1e30)})
    clean, _ = run(many, good, start)
    state, metrics = run(many, good, broken)
    for i in (0, 2):
        for part in ("params", "model_state", "opt_state"):
            mine, theirs = (member(getattr(t, part), i) for t in (state, clean))
            assert_same_bits(mine, theirs)
    assert not differ(state.params["w"][1], broken.params["w"][1])
    counts = record(state, GuardState)
    np.testing.assert_array_equal(counts.skipped, [0, 6, 0])
    np.testing.assert_array_equal(counts.failed, [-1, 0, -1])
    np.testing.assert_array_equal(state.opt_state[0].count, [6, 0, 6])
    np.testing.assert_array_equal(metrics[-1]["loss"].weight, [1, 0, 1])
    assert state.step.ndim == 0 and int(state.step) == 6


# Inside the loop


def test_inside_a_loop_and_a_window():
    data = {"x": np.tile(X, (8, 1)), "bad": np.array([0, 1, 2, 0, 3, 0, 0, 0], np.int32)}
    one = window(guard(learner(TASK, optax.adam(0.1))), 100)

    def single(inner):
        """A batch of one example, without its leading axis."""

        def step(state, batch, *, axis=None):
            return inner.step(state, jax.tree.map(lambda v: v[0], batch), axis=axis)

        return inner._replace(step=step)

    def order(step, size):
        return jnp.arange(size) + step % 8

    looped = loop(resident(single(one), order, 1))
    start = one.init(KEY, batches(0)[0])
    state, metrics = jax.jit(looped.step)(start, data, 8)
    steps, _ = run(one, batches(*data["bad"]), start)
    assert_close(state, steps)
    assert int(metrics["skipped"].total) == 3 and int(metrics["skipped"].weight) == 8
    assert float(metrics["loss"].weight) == 5
    assert np.isfinite(metrics["loss"].total)


def test_evaluation_and_prediction_are_the_inner_ones():
    inner = learner(TASK, optax.sgd(0.1))
    state, _ = run(guard(inner), batches(0, 0))
    bare, batch = state.replace(extra=None), batches(0)[0]
    assert_same_bits(guard(inner).evaluate(state, batch), inner.evaluate(bare, batch))
    assert_same_bits(guard(inner).predict(state, None), state.params["w"])


LEAVES = {
    "large": jnp.ones((2, PACK_BELOW_ELEMENTS)),
    "matrix": jnp.ones((3, 4)),
    "vector": jnp.ones(5),
    "number": jnp.ones(()),
    "half": jnp.ones(7, jnp.bfloat16),
    "half number": jnp.ones((), jnp.bfloat16),
    "complex": jnp.ones(3, jnp.complex64),
    "whole": jnp.ones(3, jnp.int32),
}


@pytest.mark.parametrize("name", [name for name in LEAVES if name != "whole"])
@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
def test_a_number_is_seen_in_any_leaf_large_or_looked_at_with_others(name, value):
    start = guard(learner(TASK, optax.sgd(0.1))).init(KEY, batches(0)[0])
    before = start.replace(params=LEAVES)
    leaf = LEAVES[name]
    spoilt = leaf.reshape(-1).at[-1].set(value).reshape(leaf.shape)
    after = before.replace(params=LEAVES | {name: spoilt})
    stands = jax.jit(is_valid_update)
    assert bool(stands(before, before)) and not bool(stands(before, after))
    assert bool(stands(after, after)) and bool(stands(after, before))
    # The right leaf of those that stand together is compared: another one spoilt is a new one.
    other = "vector" if name != "vector" else "matrix"
    both = after.params | {other: LEAVES[other].at[0].set(jnp.nan)}
    assert not bool(stands(after, after.replace(params=both)))


@pytest.mark.parametrize("members", [0, 3])
@pytest.mark.parametrize("platform", ["cpu", "tpu", "gpu"])
def test_small_leaves_are_looked_at_together_on_cpu_alone(platform, members):
    """Elsewhere a leaf may lie on many devices. Whatever the form, one bad number is found."""
    model = jdl.from_linen(jdl.models.MLP((5,), outputs=2))
    one = learner(jdl.regression(model), optax.adam(0.1))
    inner = guard(ensemble(one, members) if members else one)
    state = jax.jit(inner.init)(KEY, {"x": np.ones((4, 3)), "y": np.ones((4, 2))})

    @jax.jit
    def fine(after):
        with lowering_for(platform=platform):
            return is_valid_update(state, after, pack_below=10)

    assert (" concatenate" in fine.lower(state).as_text("hlo")) is (platform == "cpu")
    assert fine(state).all()
    leaves, form = jax.tree.flatten(state.params)
    for number, leaf in enumerate(leaves):
        bad = leaf.at[(-1,) * leaf.ndim].set(np.inf)
        after = state.replace(params=form.unflatten([*leaves[:number], bad, *leaves[number + 1 :]]))
        assert fine(after).tolist() == ([True] * (members - 1) + [False] if members else False)
