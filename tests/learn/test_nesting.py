"""Transforms around transforms: each ordered pair trains, and evaluates with the promised weights.

What a composition promises is computed in plain Python from the weights of lone runs.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdl.core.types import Learner, Mean, Task
from jdl.learn.ema import EmaState, ema
from jdl.learn.ensemble import ensemble
from jdl.learn.extra import evaluation_weights, find_records
from jdl.learn.guard import GuardState, guard
from jdl.learn.keep_best import BestState, keep_best
from jdl.learn.learner import learner
from jdl.learn.sweep import sweep, sweep_table
from jdl.learn.transforms import jit, loop
from jdl.learn.window import WindowState, window

KEY, DECAY, MEMBERS = jax.random.key(3), 0.6, 2
X = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
GOOD = {"x": X, "y": X.sum(-1)}
BAD = {"x": X, "y": -5 * X.sum(-1)}
# Training leads to small losses first and away from them later, so that the best is not the last.
BATCHES = [GOOD, GOOD, GOOD, BAD, BAD]


def task(width=2):
    def init(key, batch):
        return {"w": jax.random.normal(key, (3, width))}, {"seen": jnp.zeros(())}

    def predict(params, model_state, batch):
        return (batch["x"] @ params["w"]).sum(-1)

    def loss(params, model_state, batch, key, *, train):
        errors = (predict(params, model_state, batch) - batch["y"]) ** 2
        mean = Mean(errors.sum(), jnp.float32(len(errors)))
        return mean, ({"seen": model_state["seen"] + train}, {"loss": mean})

    return Task(init, loss, predict)


BASE = jit(learner(task(), optax.sgd(0.05)))
TRANSFORMS = {
    "ema": lambda inner: ema(inner, DECAY),
    "guard": guard,
    "window": lambda inner: window(inner, 2),
    "ensemble": lambda inner: ensemble(inner, MEMBERS),
    "keep_best": lambda inner: keep_best(inner, GOOD, 1),
}
PAIRS = list(itertools.product(TRANSFORMS, TRANSFORMS))


def lone_run(key):
    """The weights before each step of a run without transforms, and after the last."""
    state = BASE.init(key, GOOD)
    weights = [(state.params, state.model_state)]
    for batch in BATCHES:
        state, _ = BASE.step(state, batch)
        weights.append((state.params, state.model_state))
    return weights


def loss_of(weights, members):
    call = lambda pair: task().loss(*pair, GOOD, None, train=False)[0].value
    for _ in range(members):
        call = jax.vmap(call)
    return np.asarray(call(weights))


def promised(names, key):
    """The weights that evaluation uses after each step, for the transforms of `names`."""
    if not names:
        return lone_run(key)
    name, *rest = names
    if name == "ensemble":
        runs = [promised(rest, jax.random.fold_in(key, i)) for i in range(MEMBERS)]
        return [jax.tree.map(lambda *w: np.stack(w), *each) for each in zip(*runs, strict=True)]
    weights = promised(rest, key)
    if name == "ema":
        return [weights[0], *(averaged(weights[1 : n + 1]) for n in range(1, len(weights)))]
    if name == "keep_best":
        return best_so_far(weights, rest.count("ensemble"))
    return weights


def averaged(weights):
    shares = DECAY ** np.arange(len(weights))[::-1]
    shares = shares / shares.sum()
    return jax.tree.map(
        lambda *w: sum(s * np.asarray(x) for s, x in zip(shares, w, strict=True)), *weights
    )


def best_so_far(weights, members):
    losses = [loss_of(each, members) for each in weights[1:]]
    found = [weights[0]]
    for n in range(1, len(weights)):
        best = np.argmin(losses[:n], axis=0)
        pick = lambda *w, best=best: np.take_along_axis(
            np.stack(w), best.reshape(1, *best.shape, *(1,) * (w[0].ndim - best.ndim)), 0
        )[0]
        found.append(jax.tree.map(pick, *weights[1 : n + 1]))
    return found


def trained(names):
    inner: Learner = BASE
    for name in reversed(names):
        inner = TRANSFORMS[name](inner)
    whole = jit(inner)
    state = whole.init(KEY, GOOD)
    for batch in BATCHES:
        state, metrics = whole.step(state, batch)
    return whole, state, metrics


@pytest.mark.parametrize("names", PAIRS, ids="({0[0]}, {0[1]})".format)
def test_a_pair_evaluates_with_the_weights_that_it_promises(names):
    whole, state, _ = trained(names)
    members = (MEMBERS,) * names.count("ensemble")
    assert state.members == members and int(state.step) == len(BATCHES)
    weights = promised(names, KEY)[-1]
    for mine, theirs in zip(
        jax.tree.leaves(evaluation_weights(state)), jax.tree.leaves(weights), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    expected = loss_of(weights, len(members))
    np.testing.assert_allclose(
        whole.evaluate(state, GOOD)["loss"].value, expected, rtol=1e-4, atol=1e-6
    )
    # The gradient is that of the weights that are trained, whatever evaluation uses.
    grads, (_, metrics) = whole.gradient(state, GOOD)
    assert jax.tree.map(jnp.shape, grads) == jax.tree.map(jnp.shape, state.params)
    assert metrics["loss"].value.shape == members


def test_the_best_average_is_not_the_present_one():
    """The control: keep_best around ema differs from ema alone, and from keep_best alone."""
    losses = {
        names: float(whole.evaluate(state, GOOD)["loss"].value)
        for names in [("ema",), ("keep_best",), ("keep_best", "ema"), ("ema", "keep_best")]
        for whole, state, _ in [trained(names)]
    }
    assert len({round(value, 6) for value in losses.values()}) == 4
    assert losses["keep_best", "ema"] < losses["ema",] / 2


def test_records_are_found_by_type_and_contain_the_inner_ones():
    _, state, _ = trained(["ema", "window", "guard", "keep_best", "ema"])
    kinds = [EmaState, WindowState, GuardState, BestState, EmaState]
    extra = state.extra
    for kind in kinds:
        assert type(extra) is kind
        extra = extra.inner
    assert extra is None
    assert len(find_records(state.extra, EmaState)) == 2


def test_each_learner_of_a_pair_of_averages_keeps_its_own():
    _, state, _ = trained(["ema", "ema"])
    inner = averaged([w for w in lone_run(KEY)[1:]])[0]["w"]
    np.testing.assert_allclose(state.extra.inner.weights[0]["w"], inner, rtol=1e-5)
    assert np.abs(state.extra.weights[0]["w"] - inner).max() > 1e-3


GRID = {"rate": [0.05, 0.01], "width": [2, 3]}


def swept():
    return sweep(lambda rate, width: learner(task(width), optax.sgd(rate)), GRID)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_sweep_of_several_programs_keeps_its_points_under_every_transform(name):
    whole = jit(TRANSFORMS[name](swept()))
    assert whole.points == swept().points and len(whole.points) == 4
    state = whole.init(KEY, GOOD)
    for batch in BATCHES:
        state, metrics = whole.step(state, batch)
    losses = np.asarray(whole.evaluate(state, GOOD)["loss"].value)
    members = (MEMBERS, 4) if name == "ensemble" else (4,)
    assert state.members == losses.shape == metrics["loss"].value.shape == members
    rows = sweep_table(whole.points, losses.reshape(-1, 4)[0])
    assert [(row["rate"], row["width"], row["n"]) for row in rows] == [
        (rate, width, 1) for rate in GRID["rate"] for width in GRID["width"]
    ]
    if name in ("ema", "keep_best"):  # the others evaluate with the present weights
        for place in (1, 2):
            rate, width = whole.points[place]["rate"], whole.points[place]["width"]
            lone = jit(TRANSFORMS[name](learner(task(width), optax.sgd(rate))))
            single = lone.init(jax.random.fold_in(KEY, 0), GOOD)
            for batch in BATCHES:
                single, _ = lone.step(single, batch)
            loss = lone.evaluate(single, GOOD)["loss"].value
            np.testing.assert_allclose(losses[place], loss, rtol=1e-4)


def test_learners_without_gradient_nest_too():
    by_hand = Learner(BASE.init, BASE.step, BASE.evaluate, BASE.predict)
    for transform in TRANSFORMS.values():
        assert jit(transform(by_hand)).gradient is None


def test_an_average_of_bfloat16_weights_is_not_rounded_to_them():
    """Weights of 0 in the first step and 1 after it; a bfloat16 average stops where its step is
    below half a digit."""

    def step(state, batch, *, axis=None):
        after, metrics = BASE.step(state, batch)
        params = jax.tree.map(lambda w: jnp.full_like(w, state.step > 0), state.params)
        return state.replace(step=after.step, params=params), metrics

    def init(key, batch):
        state = BASE.init(key, batch)
        return state.replace(params=jax.tree.map(jnp.bfloat16, state.params))

    line = keep_best(ema(BASE._replace(init=init, step=step), 0.999), GOOD, 1)
    state, _ = jit(loop(line)).step(line.init(KEY, GOOD), GOOD, 2000)
    average, _ = find_records(state.extra, EmaState)[0].weights
    np.testing.assert_allclose(average["w"], 1 - 0.001 * 0.999**1999 / (1 - 0.999**2000), rtol=1e-4)
    assert line.predict(state, GOOD).shape == (8,)
