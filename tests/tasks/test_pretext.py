"""Labels made from images: turns are told apart, only hidden squares cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import tasks
from jdl.metrics import compute
from jdl.models import MLP, from_functions, from_linen
from tests.support.learners import message


def bright_corner():
    """The answer of someone who looks for the bright corner of a 4x4 image."""

    def apply(params, x):
        x = x[..., 0]
        return 9 * jnp.stack([x[:, 0, 0], x[:, 3, 0], x[:, 3, 3], x[:, 0, 3]], -1)

    return from_functions(lambda key, x: {}, apply)


def test_each_turn_is_shown_and_named():
    x = jnp.zeros((2, 4, 4, 1)).at[:, 0, 0].set(1.0)
    task = tasks.rotation_prediction(bright_corner())
    _, (_, metrics) = task.loss({}, {}, {"x": x}, None, train=True)
    assert compute(metrics)["accuracy"] == 1.0
    assert compute(metrics)["loss"] == pytest.approx(np.log(1 + 3 * np.exp(-9)), rel=1e-3)
    # An image with its corner elsewhere is wrong in all four; masked, it does not count.
    x = x.at[1].set(jnp.rot90(x[1]))
    for mask, accuracy in (([1.0, 1.0], 0.5), ([1.0, 0.0], 1.0)):
        batch = {"x": x, "mask": jnp.array(mask)}
        _, (_, metrics) = task.loss({}, {}, batch, None, train=False)
        assert compute(metrics)["accuracy"] == accuracy


def watched(seen):
    def apply(params, x):
        seen.append(x)
        return x

    return from_functions(lambda key, x: {}, apply)


def test_only_hidden_squares_cost():
    seen = []
    task = tasks.masked_reconstruction(watched(seen), patch=2, share=0.5)
    x = jnp.asarray(np.random.default_rng(0).uniform(1, 2, (50, 4, 6, 3)))
    mean, _ = task.loss({}, {}, {"x": x}, jax.random.key(0), train=True)
    shown = np.asarray(seen[-1])
    hidden = (shown == 0).all(-1)
    assert (shown[~hidden] == np.asarray(x)[~hidden]).all()
    squares = hidden.reshape(50, 2, 2, 3, 2).transpose(0, 1, 3, 2, 4).reshape(50, 6, 4)
    assert (squares.all(-1) == squares.any(-1)).all()
    assert (squares.all(-1).sum(1) == 3).all()
    assert (squares.all(-1).mean(0) > 0.25).all() and len(np.unique(squares, axis=0)) > 10
    expected = np.mean([np.mean(np.asarray(x)[i][hidden[i]] ** 2) for i in range(50)])
    assert float(mean.value) == pytest.approx(expected, rel=1e-5)
    task.loss({}, {}, {"x": x}, jax.random.key(1), train=True)
    assert ((np.asarray(seen[-1]) == 0).all(-1) != hidden).any()


@pytest.mark.parametrize(
    ("make", "x", "words"),
    [
        (
            lambda: tasks.rotation_prediction(bright_corner()),
            jnp.zeros((1, 4, 5, 1)),
            ("square", "4, 5"),
        ),
        (
            lambda: tasks.rotation_prediction(bright_corner()),
            jnp.zeros((1, 16)),
            ("images", "(1, 16)"),
        ),
        (
            lambda: tasks.rotation_prediction(from_linen(MLP((), 3))),
            jnp.zeros((2, 4, 4, 1)),
            ("four logits", "(2, 3)"),
        ),
        (
            lambda: tasks.masked_reconstruction(bright_corner(), patch=3),
            jnp.zeros((1, 4, 4, 1)),
            ("patch", "4 by 4"),
        ),
        (
            lambda: tasks.masked_reconstruction(bright_corner(), patch=2, share=0.01),
            jnp.zeros((1, 4, 4, 1)),
            ("share", "4 patches"),
        ),
        (
            lambda: tasks.masked_reconstruction(bright_corner(), patch=2),
            jnp.zeros((1, 4, 4, 1)),
            ("shape (1, 4)", "(1, 4, 4, 1)"),
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, x, words):
    said = message(lambda: make().init(jax.random.key(0), {"x": x}))
    assert all(word in said for word in words), said


def test_hiding_needs_a_key():
    task = tasks.masked_reconstruction(watched([]), patch=2)
    said = message(lambda: task.loss({}, {}, {"x": jnp.ones((1, 4, 4, 1))}, None, train=True))
    assert "random key" in said
