"""Every member of a sweep is its lone run."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jdl import tasks
from jdl.learn.ema import ema
from jdl.learn.ensemble import ensemble
from jdl.learn.guard import GuardState
from jdl.learn.learner import learner
from jdl.learn.sweep import group_by, interval, sweep, sweep_table
from jdl.learn.transforms import jit, loop, resident
from jdl.models import MLP, from_linen
from tests.support.learners import (  # fmt: skip
    KEY,
    assert_close,
    assert_same_bits,
    batch,
    compilations,
    member,
    message,
    network,
    record,
    train,
)


def build(learning_rate, momentum=0.9, penalty=0.0, width=8):
    task = tasks.l2(network(width, noise=0.1), penalty, where=lambda path, leaf: True)
    return learner(task, optax.sgd(learning_rate, momentum=momentum))


GRID = {"learning_rate": [0.1, 0.03], "momentum": [0.9, 0.5], "penalty": [0.0, 0.1]}


def lone(point, data, steps):
    values = {name: value for name, value in point.items() if name != "seed"}
    return train(build(**values), data, steps, jax.random.fold_in(KEY, point["seed"]))


def weights(trained, many, index):
    """The parameters of a member, found by its place in its group."""
    point = {k: v for k, v in many.points[index].items() if k == "width"}
    label = " ".join(f"{k}={v}" for k, v in point.items()) or "all"
    group = [i for i, p in enumerate(many.points) if {k: p[k] for k in point} == point]
    return member(trained.params[label], group.index(index))


@pytest.mark.slow
def test_each_member_is_its_lone_run(x64):
    data = batch(dtype="float64")
    many = sweep(build, GRID, seeds=2)
    assert len(many.points) == 16
    assert many.points[0] == {"learning_rate": 0.1, "momentum": 0.9, "penalty": 0.0, "seed": 0}
    trained, metrics = train(many, data, 10)
    evaluated = many.evaluate(trained, data)["loss"].value
    for i in (0, 3, 6, 9, 15):
        single, last = lone(many.points[i], data, 10)
        assert_close(weights(trained, many, i), single.params, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(metrics["loss"].value[i], last["loss"].value, rtol=1e-10)
        expected = build(0.1).evaluate(single, data)["loss"].value
        np.testing.assert_allclose(evaluated[i], expected, rtol=1e-10)
    assert len(set(np.asarray(evaluated).tolist())) == 16
    assert trained.step.shape == () and trained.key.shape == (16,)


def test_all_floats_share_one_program():
    learner, data = jit(sweep(build, GRID)), jax.tree.map(jnp.asarray, batch())
    start = learner.init(KEY, data)
    with compilations() as programs:
        trained, _ = learner.step(start, data)
        trained, _ = learner.step(trained, data)
    assert len(programs) == 1 and list(trained.params) == ["all"]


@pytest.mark.slow
def test_other_values_make_groups_and_results_keep_the_order_of_the_points():
    # Two by three: the members of the groups, laid end to end, are in quite another order.
    many = sweep(build, {"learning_rate": [0.1, 0.03], "width": [4, 6, 8]})
    data = batch()
    trained, metrics = train(many, data, 3)
    assert set(trained.params) == {"width=4", "width=6", "width=8"}
    assert trained.params["width=4"]["in"].shape == (2, 3, 4)
    outputs = many.predict(trained, data)
    for i, point in enumerate(many.points):
        single, last = lone(point, data, 3)
        assert_close(weights(trained, many, i), single.params)
        assert_close(metrics["loss"].value[i], last["loss"].value)
        assert_close(outputs[i], build(0.1, width=point["width"]).predict(single, data))
        assert_same_bits(trained.key[i], single.key)


def test_a_diverging_member_leaves_the_bits_of_the_others():
    data = batch()
    calm, wild = (sweep(build, {"learning_rate": [0.1, rate, 0.03]}) for rate in (0.05, 1e30))
    one, _ = train(calm, data, 8)
    other, metrics = train(wild, data, 8)
    for i in (0, 2):
        assert_same_bits(member(one.params, i), member(other.params, i))
        assert_same_bits(member(one.opt_state, i), member(other.opt_state, i))
    np.testing.assert_array_equal(metrics["skipped"].total, [0, 1, 0])
    counts = record(other, GuardState)
    assert int(counts.skipped[1]) >= 5 and int(counts.skipped[0]) == int(counts.skipped[2]) == 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(other.params))


def peaked(peak, learning_rate=0.1):
    schedule = optax.warmup_cosine_decay_schedule(0.0, peak, 3, 10)
    tx = optax.chain(optax.sgd(learning_rate), optax.scale_by_schedule(schedule))
    return learner(network(), tx)


class Dropping(nn.Module):
    rate: float

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.Dropout(self.rate, deterministic=not train, name="dropout")(x)
        return nn.Dense(1, name="dense")(x)


def dropping(rate, learning_rate=0.1):
    return learner(tasks.regression(from_linen(Dropping(rate))), optax.sgd(learning_rate))


def checking(rate, learning_rate=0.1):
    """A library that wants a Python float and says so with a ValueError."""
    if not isinstance(rate, float):
        raise ValueError("rate must be a float")
    return learner(network(), optax.sgd(learning_rate * rate))


def ours(rate, learning_rate=0.1):
    model = from_linen(MLP((4,), 1, dropout=rate))
    return learner(tasks.regression(model), optax.sgd(learning_rate))


@pytest.mark.slow
@pytest.mark.parametrize(
    "make, name",
    [
        (peaked, "peak"),
        pytest.param(dropping, "rate", marks=pytest.mark.slow),
        pytest.param(checking, "rate", marks=pytest.mark.slow),
        (ours, "rate"),
    ],
)
def test_a_float_that_is_refused_becomes_a_group_and_is_logged(make, name, caplog):
    data = batch()
    many = sweep(make, {name: [0.2, 0.5], "learning_rate": [0.1, 0.01]})
    with caplog.at_level(logging.WARNING, "jdl"):
        trained, metrics = train(many, data, 3)
    assert set(trained.params) == {f"{name}=0.2", f"{name}=0.5"}
    assert caplog.messages[0] == f"sweep: {name} cannot be traced; one program for each value"
    for i, point in enumerate(many.points):
        values = {k: v for k, v in point.items() if k != "seed"}
        _, last = train(make(**values), data, 3, jax.random.fold_in(KEY, 0))
        assert_close(metrics["loss"].value[i], last["loss"].value)


def test_a_fault_of_build_is_shown_and_not_taken_for_a_refusal():
    def wrong(learning_rate):
        raise TypeError("my own mistake")

    with pytest.raises(TypeError, match="my own mistake"):
        sweep(wrong, {"learning_rate": [0.1]}).init(KEY, batch())


def test_it_trains_like_any_learner():
    many = sweep(build, {"learning_rate": [0.1, 0.03]})
    data = jax.tree.map(jnp.asarray, batch())
    looped = jit(loop(resident(many, lambda s, n: (jnp.arange(n) + s) % 16, 8)))
    trained, metrics = looped.step(looped.init(KEY, data), data, 5)
    assert int(trained.step) == 5 and metrics["loss"].value.shape == (2,)
    _, metrics = train(ensemble(many, 2), batch(), 2)
    assert metrics["loss"].value.shape == (2, 2)


@pytest.mark.slow
def test_an_average_around_groups_is_the_one_within():
    grid = {"learning_rate": [0.1, 0.03], "width": [4, 8]}
    around, _ = train(ema(sweep(build, grid), 0.9), batch(), 3)
    within, _ = train(sweep(lambda **values: ema(build(**values), 0.9), grid), batch(), 3)
    for label, (params, _) in around.extra.weights.parts.items():
        own, _ = within.extra.inner[label].inner.weights
        assert_close(params, own)


def test_the_table_has_mean_and_interval_over_seeds():
    many = sweep(build, {"learning_rate": [0.1, 0.03]}, seeds=3)
    table = sweep_table(many.points, [1.0, 2.0, 3.0, 4.0, 4.0, 4.0])
    assert [row["learning_rate"] for row in table] == [0.1, 0.03]
    first = table[0]
    assert "seed" not in first and first["n"] == 3
    assert first["mean"] == 2.0 and first["std"] == 1.0
    # Student's t with 2 degrees of freedom: 4.302652729911275 / sqrt(3).
    assert first["high"] - 2 == pytest.approx(2.4841377117195, rel=1e-9)
    assert (first["low"] + first["high"]) / 2 == pytest.approx(2.0)
    assert table[1]["low"] == table[1]["high"] == 4.0


def test_one_run_has_no_interval():
    alone = interval([3.0])
    assert alone["n"] == 1 and alone["mean"] == 3.0
    assert all(np.isnan(alone[name]) for name in ("std", "low", "high"))


@pytest.mark.parametrize(
    "grid, seeds, words",
    [
        ({"learning_rate": []}, 1, "grid['learning_rate']\n  expected: at least one value"),
        ({"learning_rate": [0.1]}, 0, "seeds\n  expected: 1 or more\n  got:      0"),
        ({"seed": [1, 2]}, 1, "grid['seed']\n  expected: a grid of arguments of `build`; seeds"),
    ],
)
def test_grids_that_cannot_be_swept(grid, seeds, words):
    assert message(lambda: sweep(build, grid, seeds)).startswith(words)


def test_a_name_that_build_does_not_take_is_refused_at_once():
    text = message(lambda: sweep(build, {"learning_rat": [0.1]}))
    assert text == (
        "grid['learning_rat']\n  expected: the name of an argument of `build`\n"
        '  got:      a name that it does not take\n  fix:      did you mean "learning_rate"?'
    )
    assert "add the argument width" in message(lambda: sweep(lambda: build(0.1), {"width": [1]}))
    sweep(lambda **given: build(given["rate"]), {"rate": [0.1]})


def test_numbers_by_a_field_of_the_grid():
    def build(width, rate):
        return learner(network(width), optax.sgd(rate))

    many = sweep(build, {"width": [2, 3], "rate": [0.1]}, seeds=2)
    rows = group_by(
        many.points, "width", {"loss": [1.0, 2.0, 3.0, 4.0], "pair": np.arange(8).reshape(4, 2)}
    )
    assert {width: row["loss"].tolist() for width, row in rows.items()} == {2: [1, 2], 3: [3, 4]}
    assert rows[3]["pair"].tolist() == [[4, 5], [6, 7]]


def selected(**values):
    """A learner whose weights have as many units as the place of its value in `ORDER`."""
    [value] = values.values()
    width = 1 + next(i for i, other in enumerate(ORDER) if other is value)
    return learner(network(width), optax.sgd(0.1))


LONG = np.ones(1200)
OTHER = np.where(np.arange(1200) == 600, 5.0, LONG)
ORDER = [1, "1", True, 1.0, None, "None", [32], [64], LONG, OTHER]


def test_values_make_the_groups_not_their_text():
    many = sweep(selected, {"value": ORDER}, seeds=2)
    state = jax.eval_shape(many.init, KEY, batch())
    found = [part["in"].shape for part in state.params.parts.values()]
    assert found == [(2, 3, 1 + i) for i in range(len(ORDER))]
    assert list(state.params.rows.values()) == [(2 * i, 2 * i + 1) for i in range(len(ORDER))]
    table = sweep_table(many.points, np.arange(20.0))
    assert [row["n"] for row in table] == [2] * 10
    assert [row["mean"] for row in table] == [2 * i + 0.5 for i in range(10)]
    by_value = group_by(many.points, "value", {"loss": np.arange(20.0)})
    assert len(by_value) == 10 and by_value[(64,)]["loss"].tolist() == [14, 15]


@pytest.mark.parametrize("values", [[0.1, np.float64(0.1)], [[8], [4], [8]], [LONG, LONG.copy()]])
def test_a_value_that_stands_twice_is_refused(values):
    """It would count its seeds twice, and make their interval narrower."""
    text = message(lambda: sweep(build, {"learning_rate": values}))
    assert (
        text.startswith("grid['learning_rate']\n  expected: each value once") and "2 times" in text
    )
