"""Players move in turn, each in its own parameters."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl
from jdl.core.types import Mean, Task
from jdl.learn.game import Player, game, independent
from jdl.learn.gradient import accumulate
from jdl.learn.guard import guard
from jdl.learn.window import window
from tests.support.learners import KEY, assert_same_bits, batch, differ, message, network, train

RATE = 0.1


def pull(sign: float) -> Task:
    """Loss `sign * a * b` of the two players' numbers, times the mean of x for good measure."""

    def loss(params, model_state, batch, key, *, train):
        product = sign * params["one"] * params["two"]
        mean = Mean(product * batch["x"].sum(), jnp.float32(batch["x"].size))
        return mean, (model_state, {"loss": mean})

    def init(key, batch):
        return jax.random.normal(key) + 2, {}

    return Task(init, loss, lambda params, model_state, batch: params["one"] + params["two"])


DATA = {"x": np.ones((4, 3), np.float32)}
ONE = Player(pull(1.0), optax.sgd(RATE))
TWO = Player(pull(-1.0), optax.sgd(RATE))
STILL = optax.set_to_zero()
STEP = optax.sgd(RATE)


def numbers(state):
    return float(state.params["one"]), float(state.params["two"])


def test_each_sees_the_earlier_ones_update_in_keyword_order():
    for players in ({"one": ONE, "two": TWO}, {"two": TWO, "one": ONE}):
        match = game(**players)
        start = match.init(KEY, DATA)
        a, b = numbers(start)
        after, _ = jax.jit(match.step)(start, DATA)
        if next(iter(players)) == "one":
            one = a - RATE * b
            expected = one, b + RATE * one
        else:
            two = b + RATE * a
            expected = a - RATE * two, two
        np.testing.assert_allclose(numbers(after), expected, rtol=1e-6)
        # In a simultaneous game the second would move by the first one's old number.
        assert abs(expected[1] - (b + RATE * a)) + abs(expected[0] - (a - RATE * b)) > 1e-3
        np.testing.assert_allclose(match.predict(after, DATA), sum(expected), rtol=1e-6)


def test_in_a_turn_all_others_keep_their_bits_although_the_loss_depends_on_them():
    for name, mover in (("one", ONE), ("two", TWO)):
        still = Player(pull(1.0), STILL)
        match = game(**{"one": still, "two": still} | {name: mover})
        start = match.init(KEY, DATA)
        after, metrics = train(match, DATA, 5, start=start)
        other = "two" if name == "one" else "one"
        assert_same_bits(after.params[other], start.params[other])
        assert differ(after.params[name], start.params[name])
        assert float(metrics[f"{other}/gradient_norm"].value) > 0.1  # it is its own loss's


def test_the_gradient_is_that_in_the_players_own_parameters():
    match = game(one=ONE, two=TWO)
    start = match.init(KEY, DATA)
    after, metrics = jax.jit(match.step)(start, DATA)
    norms = [abs(numbers(start)[1]), abs(numbers(after)[0])]
    np.testing.assert_allclose(metrics["one/gradient_norm"].value, norms[0], rtol=1e-6)
    np.testing.assert_allclose(metrics["two/gradient_norm"].value, norms[1], rtol=1e-6)
    total = metrics["one/loss"].value + metrics["two/loss"].value
    np.testing.assert_allclose(metrics["loss"].value, total, rtol=1e-5)
    norms = metrics["one/gradient_norm"].value + metrics["two/gradient_norm"].value
    np.testing.assert_allclose(metrics["gradient_norm"].value, norms, rtol=1e-6)


@pytest.mark.parametrize("every", [1, 2, 3])
def test_every_sets_the_ratio(every):
    match = game(one=ONE, two=TWO._replace(every=every, tx=optax.adam(RATE)))
    state, step = match.init(KEY, DATA), jax.jit(match.step)
    for i in range(7):
        before = state
        state, metrics = step(state, DATA)
        moved = i % every == 0
        assert differ(state.params["two"], before.params["two"]) == moved
        assert differ(state.opt_state["two"], before.opt_state["two"]) == moved
        assert differ(state.params["one"], before.params["one"])
        assert float(metrics["two/loss"].weight) == (12 if moved else 0)
        alone = metrics["one/loss"].value + (metrics["two/loss"].value if moved else 0)
        np.testing.assert_allclose(metrics["loss"].value, alone, rtol=1e-5)
    assert int(state.opt_state["two"][0].count) == -(-7 // every)


def test_a_player_keeps_its_own_state_and_no_one_elses():
    def task(name):
        inner = pull(1.0)

        def loss(params, model_state, batch, key, *, train):
            mean, (_, metrics) = inner.loss(params, model_state, batch, key, train=train)
            return mean, ({n: count + 1 for n, count in model_state.items()}, metrics)

        return inner._replace(init=lambda k, b: (jnp.float32(1), jnp.int32(0)), loss=loss)

    match = game(one=Player(task("one"), STILL), two=Player(task("two"), STILL, every=2))
    after, _ = train(match, DATA, 4)
    assert {name: int(count) for name, count in after.model_state.items()} == {"one": 4, "two": 2}


def test_keys_differ_between_players_and_evaluation_trains_nothing():
    def noisy(sign):
        def loss(params, model_state, batch, key, *, train):
            mean = Mean(jax.random.normal(key), jnp.float32(1))
            return mean, (model_state, {"loss": mean})

        return pull(sign)._replace(loss=loss)

    match = game(one=Player(noisy(1.0), STILL), two=Player(noisy(1.0), STILL))
    start = match.init(KEY, DATA)
    _, metrics = match.step(start, DATA)
    assert float(metrics["one/loss"].value) != float(metrics["two/loss"].value)
    evaluated = match.evaluate(start, DATA)
    assert set(evaluated) == {"one/loss", "two/loss", "loss"}
    assert float(evaluated["one/loss"].value) != float(evaluated["two/loss"].value)
    assert start.params["one"] != start.params["two"]


def test_gradient_operators_serve_players(x64):
    plain = game(one=ONE, two=TWO)
    parts = game(one=ONE._replace(gradient=accumulate(2)), two=TWO._replace(gradient=accumulate(4)))
    data = {"x": batch(dtype="float64")["x"]}
    start = plain.init(KEY, data)
    (one, _), (other, _) = (train(match, data, 3, start=start) for match in (plain, parts))
    np.testing.assert_allclose(numbers(one), numbers(other), rtol=1e-6)


def test_the_loss_of_a_window_is_the_sum_of_the_players_whatever_their_turns():
    match = jdl.jit(window(game(one=ONE, two=TWO._replace(every=2)), 10))
    state = match.init(KEY, DATA)
    for _ in range(5):
        state, metrics = match.step(state, DATA)
    shown = jdl.metrics.compute(metrics)
    for name in ("loss", "gradient_norm"):
        expected = shown[f"one/{name}"] + shown[f"two/{name}"]
        np.testing.assert_allclose(shown[name], expected, rtol=1e-6)
        np.testing.assert_allclose(metrics[name].value, expected, rtol=1e-6)
        np.testing.assert_allclose(metrics[name].total, expected * metrics[name].weight, rtol=1e-6)


def test_a_player_that_has_not_moved_adds_nothing():
    match = jdl.jit(game(one=ONE, two=TWO._replace(every=2)))
    state, _ = match.step(match.init(KEY, DATA), DATA)
    shown = jdl.metrics.compute(match.step(state, DATA)[1])
    assert shown["loss"] == shown["one/loss"] and np.isnan(shown["two/loss"])


def test_guard_refuses_the_whole_step():
    match = guard(game(one=ONE, two=TWO))
    start = match.init(KEY, DATA)
    after, metrics = jax.jit(match.step)(start, {"x": DATA["x"] * np.nan})
    assert_same_bits(after.params, start.params)
    assert int(metrics["skipped"].total) == 1 and float(metrics["two/loss"].weight) == 0


def test_a_ratio_below_one():
    text = message(lambda: game(one=ONE, two=TWO._replace(every=0)))
    assert text == "two: every\n  expected: 1 or more\n  got:      0\n  fix:      set every=1"


def test_players_apart_do_what_each_does_alone():
    two = {"one": jdl.learner(network(), STEP), "two": jdl.learner(network(width=4), STEP)}
    tasks = {"one": network(), "two": network(width=4)}
    both = independent(**{name: Player(task, STEP) for name, task in tasks.items()})
    data = batch()
    start = both.init(KEY, data)
    after, metrics = train(both, data, 5, start=start)
    for name, lone in two.items():
        begin = lone.init(KEY, data).replace(params=start.params[name])
        alone, found = train(lone, data, 5, start=begin)
        chex.assert_trees_all_close(after.params[name], alone.params, rtol=1e-6)
        value = metrics[f"{name}/loss"].value
        np.testing.assert_allclose(value, found["loss"].value, rtol=1e-6)
    np.testing.assert_allclose(
        both.predict(after, data), tasks["one"].predict(after.params["one"], {}, data)
    )


def test_the_gradients_of_a_game_are_a_dict_by_player():
    """What each hands to its optimizer; zero for one whose turn it is not."""
    pair = jdl.jit(game(one=ONE, two=TWO._replace(every=2)))
    state = pair.init(KEY, DATA)
    norms = []
    for _ in range(2):
        grads, _ = pair.gradient(state, DATA)
        assert jax.tree.structure(grads) == jax.tree.structure(state.params)
        state, metrics = pair.step(state, DATA)
        found = {name: float(optax.tree.norm(grads[name])) for name in grads}
        expected = metrics["one/gradient_norm"].value
        np.testing.assert_allclose(found["one"], expected, rtol=1e-5)
        norms.append(found["two"])
    assert norms[0] > 0 == norms[1]
