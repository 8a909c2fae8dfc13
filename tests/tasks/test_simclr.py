"""NT-Xent against numpy; which examples are negatives; gradients where embeddings are extreme."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import tasks
from jdl.metrics import compute
from jdl.models import from_functions
from tests.support.learners import message

IDENTITY = from_functions(lambda key, x: {}, lambda params, x: x)


def by_hand(one, other, temperature, mask):
    """The formula as the paper states it, view by view."""
    views = np.concatenate([one, other])
    views = views / np.linalg.norm(views, axis=-1, keepdims=True)
    n, losses = len(one), []
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        others = [k for k in range(2 * n) if k != i and (mask[k % n] or k == partner)]
        exps = {k: np.exp(views[i] @ views[k] / temperature) for k in others}
        losses.append(-np.log(exps[partner] / sum(exps.values())))
    return (np.array(losses[:n]) + np.array(losses[n:])) / 2


@pytest.mark.parametrize(("n", "temperature", "masked"), [(5, 0.5, False), (4, 0.1, True)])
def test_equals_numpy_and_its_differences(x64, n, temperature, masked):
    rng = np.random.default_rng(n)
    one, other = rng.normal(size=(2, n, 3))
    mask = np.ones(n) if not masked else np.array([1.0, 0, 1, 1])
    given = jnp.asarray(mask) if masked else None

    @jax.jit
    def total(one):
        losses = tasks.nt_xent(one, jnp.asarray(other), temperature, given)
        return (losses * mask).sum(), losses

    (_, losses), slope = jax.value_and_grad(total, has_aux=True)(jnp.asarray(one))
    np.testing.assert_allclose(losses, by_hand(one, other, temperature, mask), rtol=1e-9)
    for place in [(0, 0), (1, 2), (n - 1, 1)]:
        ends = []
        for sign in (1, -1):
            moved = one.copy()
            moved[place] += sign * 1e-6
            ends.append((by_hand(moved, other, temperature, mask) * mask).sum())
        assert slope[place] == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e15])
def test_gradient_is_finite_at_extremes(scale):
    x = scale * jnp.ones((3, 2))
    total = jax.jit(jax.value_and_grad(lambda x: tasks.nt_xent(x, x, 0.01).sum()))
    losses, slope = total(x)
    assert np.isfinite(losses) and np.isfinite(slope).all()


def test_masked_examples_change_nothing():
    task = tasks.contrastive(IDENTITY, lambda key, x: x + 0.1 * jax.random.normal(key, x.shape))
    x = jax.random.normal(jax.random.key(1), (6, 4))
    mask = jnp.array([1.0, 1, 0, 1, 0, 1])

    @jax.jit
    def evaluate(x):
        return task.loss({}, {}, {"x": x, "mask": mask}, jax.random.key(0), train=False)

    one, (_, metrics) = evaluate(x)
    other, _ = evaluate(x.at[2].set(9.0).at[4].set(-x[0]))
    assert float(one.value) == float(other.value)
    assert compute(metrics)["accuracy"] == 1.0


def test_views_differ_and_partners_are_found():
    seen = []

    def views(key, x):
        seen.append(jax.random.key_data(key))
        return x

    task = tasks.contrastive(IDENTITY, views)
    _, (_, metrics) = task.loss({}, {}, {"x": jnp.eye(3)}, jax.random.key(0), train=True)
    assert len(seen) == 2 and (seen[0] != seen[1]).any()
    # Each view's partner is the same, all others are at right angles.
    expected = np.log(np.exp(2) + 4) - 2
    assert compute(metrics) == pytest.approx({"loss": expected, "accuracy": 1.0}, rel=1e-5)


def test_what_does_not_fit_is_refused():
    assert "0.1 to 0.5" in message(lambda: tasks.contrastive(IDENTITY, None, temperature=0))
    task = tasks.contrastive(IDENTITY, lambda key, x: x)
    said = message(lambda: task.loss({}, {}, {"x": jnp.eye(3)}, None, train=True))
    assert "two views" in said
    assert "shape" in message(lambda: tasks.nt_xent(jnp.eye(3), jnp.eye(2)))
