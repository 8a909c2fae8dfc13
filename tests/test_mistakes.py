"""Mistakes that tutorials make, 1 to 12: each wrong form fails a check that jdl's form passes."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl
from jdl.core.errors import Diverged, InputError
from jdl.optim import by_name, decay_mask, soft_threshold
from tests.support.mistakes_page import POINTS, entries, page_states, rejects
from tests.support.runs import quiet

X, Y = np.array(POINTS[0], float), np.array(POINTS[1], float)
DESIGN = np.column_stack([X, np.ones(4)])
LIMIT = 2 / np.linalg.eigvalsh(2 * DESIGN.T @ DESIGN / 4)[-1]


def line(**more):
    """Linear regression from zero, as in experiments/linear_regression.py."""
    model = jdl.from_functions(
        init=lambda key, x: {"w": jnp.zeros((x.shape[-1], 1)), "b": jnp.zeros(1)},
        apply=lambda params, x: x @ params["w"] + params["b"][None],
    )
    return jdl.regression(model, **more)


def descend(gradient, start=(0, 0, 0), rate=0.01, steps=20):
    """Weights (w1, w2, b) after steps of `w -= rate * gradient(w)`."""
    w = np.array(start, float)[:, None]
    for _ in range(steps):
        w = w - rate * gradient(w)
    return w


def mse(w):
    return float(np.mean((DESIGN @ w - Y) ** 2))


def gradient(w):
    return 2 * DESIGN.T @ (DESIGN @ w - Y) / 4


def trained(task, tx, steps, x=X, y=Y):
    """Parameters as [w1, w2, b] after steps of a jdl learner, in the precision of the test."""
    learner = jdl.jit(jdl.learner(task, tx))
    batch = {"x": jnp.asarray(x), "y": jnp.asarray(y)}
    state = learner.init(jax.random.key(0), batch)
    for _ in range(steps):
        state, _ = learner.step(state, batch)
    return np.concatenate([state.params["w"], state.params["b"][None]])


def test_the_page_has_twenty_entries():
    assert list(entries()) == list(range(1, 21))


def test_01_ascent(x64):
    def check(w):
        assert mse(w) < mse(np.zeros((3, 1)))

    wrong = descend(lambda w: 2 * DESIGN.T @ (Y - DESIGN @ w) / 4)
    right = trained(line(), optax.sgd(0.01), 20)
    np.testing.assert_allclose(right, descend(gradient), rtol=1e-9)
    rejects(check, wrong)
    check(right)
    page_states(1, f"{mse(np.zeros((3, 1)))}", f"{mse(wrong):.1g}", f"{mse(right):.3f}")


class Sigmoid:
    """A 2-4-1 network with sigmoids and MSE, differentiated by hand."""

    rng = np.random.default_rng(0)
    x, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1.0]]), np.array([[0], [1], [1], [0.0]])
    w1, w2 = rng.normal(size=(2, 4)), rng.normal(size=(4, 1))

    def hidden_gradient(self, power=1, w2=None):
        """The gradient of the first kernel, with sigma' to that power."""
        h = 1 / (1 + np.exp(-self.x @ self.w1))
        back = 2 * (h @ self.w2 - self.y) / 4
        return self.x.T @ (back @ (self.w2 if w2 is None else w2).T * (h * (1 - h)) ** power)

    def output_gradient(self):
        h = 1 / (1 + np.exp(-self.x @ self.w1))
        return h.T @ (2 * (h @ self.w2 - self.y) / 4)

    def by_jdl(self):
        task = jdl.regression(jdl.from_linen(jdl.models.MLP((4,), 1, activation="sigmoid")))
        params = {
            "dense_1": {"kernel": jnp.asarray(self.w1), "bias": jnp.zeros(4)},
            "output": {"kernel": jnp.asarray(self.w2), "bias": jnp.zeros(1)},
        }
        batch = {"x": jnp.asarray(self.x), "y": jnp.asarray(self.y)}
        loss = lambda p: task.loss(p, {}, batch, None, train=True)[0].value
        return jax.jit(jax.grad(loss))(params)["dense_1"]["kernel"]


def off(one, other):
    return np.abs(one - other).max() / np.abs(other).max()


def test_02_the_derivative_of_the_sigmoid_forgotten_or_twice(x64):
    net = Sigmoid()
    check = lambda grad: np.testing.assert_allclose(grad, net.by_jdl(), rtol=1e-10)
    forgotten, twice = net.hidden_gradient(power=0), net.hidden_gradient(power=2)
    rejects(check, forgotten, twice)
    check(net.hidden_gradient())
    page_states(
        2, *(f"{np.linalg.norm(g) / np.linalg.norm(net.by_jdl()):.2f}" for g in (forgotten, twice))
    )


def test_03_a_layer_updated_before_the_gradient_has_passed_it(x64):
    net = Sigmoid()
    check = lambda grad: np.testing.assert_allclose(grad, net.by_jdl(), rtol=1e-10)
    late = net.hidden_gradient(w2=net.w2 - 1.0 * net.output_gradient())
    rejects(check, late)
    page_states(3, f"{100 * off(late, net.by_jdl()):.0f} %")


def test_04_a_mean_in_the_loss_and_a_sum_in_the_gradient(x64):
    def check(step):
        """Ten copies of the data are the same data: the step must not change."""
        np.testing.assert_allclose(step(10), step(1), rtol=1e-9)

    def summed(copies):
        x, y = np.tile(DESIGN, (copies, 1)), np.tile(Y, (copies, 1))
        return 0.01 * 2 * x.T @ -y

    def by_jdl(copies):
        x, y = np.tile(X, (copies, 1)), np.tile(Y, (copies, 1))
        return trained(line(), optax.sgd(0.01), 1, x, y)

    rejects(check, summed)
    check(by_jdl)
    factor = np.linalg.norm(summed(10)) / np.linalg.norm(by_jdl(10))
    # At the safe rate of 0.04 the summed gradient of four points is beyond the limit.
    diverged = mse(descend(lambda w: 4 * gradient(w), rate=0.04))
    assert diverged > 1e6 > mse(descend(gradient, rate=0.04))
    page_states(4, f"{factor:.0f} times", f"{diverged:.0e}".replace("e+", "e"))
    mean = lambda outputs, y: jnp.mean((outputs - y) ** 2)
    with pytest.raises(InputError, match="one value per example"):
        line(loss=mean).init(jax.random.key(0), {"x": jnp.asarray(X), "y": jnp.asarray(Y)})
    with pytest.raises(TypeError, match="scalar-output"):  # and jax refuses an unreduced loss
        jax.grad(lambda w: (jnp.asarray(DESIGN) @ w - Y) ** 2)(jnp.zeros((3, 1)))


def test_05_the_gradient_of_another_loss(x64):
    z, y = np.array([[4.0]]), np.array([[0.0]])
    p = 1 / (1 + np.exp(-z))
    claimed = p - y
    through = lambda loss: jax.grad(lambda z: loss(z, jnp.asarray(y)).sum())(jnp.asarray(z))
    squared = through(lambda z, y: jdl.tasks.squared_error(jax.nn.sigmoid(z), y))
    check = lambda grad: np.testing.assert_allclose(grad, squared, rtol=1e-9)
    rejects(check, claimed)
    check(2 * (p - y) * p * (1 - p))
    np.testing.assert_allclose(claimed, through(jdl.tasks.binary_cross_entropy), rtol=1e-9)
    page_states(5, f"{claimed[0, 0]:.3f}", f"{squared[0, 0]:.4f}")


def test_06_labels_that_broadcast():
    x = np.linspace(-1, 1, 50, dtype=np.float32)[:, None]
    y = 2 * x[:, 0]

    def slope(loss):
        """The slope that minimises a loss which is quadratic in it."""
        with jax.numpy_rank_promotion("allow"):
            first = jax.grad(loss)
            return float(-first(0.0) / (first(1.0) - first(0.0)))

    def check(loss):
        np.testing.assert_allclose(slope(loss), 2, rtol=1e-5)

    broadcast = lambda w: jnp.mean((w * x - y) ** 2)
    rejects(check, broadcast)
    check(lambda w: jdl.tasks.squared_error(w * x, y[:, None]).mean())
    page_states(6, f"slope {abs(slope(broadcast)):.2f}")
    with pytest.raises(InputError, match=r"y\[..., None\]"):
        line().init(jax.random.key(0), {"x": x, "y": y})


def test_07_a_learning_rate_beyond_the_limit():
    def check(run):
        """Either the weights are finite, or the run says that they are not."""
        with contextlib.suppress(Diverged):
            assert np.isfinite(run()).all()

    with np.errstate(all="ignore"):
        blind = lambda: descend(gradient, rate=0.1, steps=2_000)
        rejects(check, blind)
        after = mse(descend(gradient, rate=0.1, steps=10))
    learner = jdl.learner(line(), optax.sgd(0.1))
    data = {"x": X.astype(np.float32), "y": Y.astype(np.float32)}
    said = []

    def fit():
        try:
            return jdl.fit(learner, data, batch_size=4, epochs=300, options=quiet())
        except Diverged as reason:
            said.append(reason)
            raise

    check(fit)
    assert said
    assert mse(descend(gradient, rate=0.999 * LIMIT, steps=2_000)) < 1
    page_states(7, f"{LIMIT:.4f}", f"{after:.0e}".replace("e+", "e"))


def test_08_one_of_many_solutions_reported_as_the_weights(x64):
    shortest = np.linalg.pinv(DESIGN) @ Y
    check = lambda w: np.testing.assert_allclose(w, shortest, atol=1e-6)
    lucky = descend(gradient, start=(1, -1, 1), rate=0.04, steps=6_000)
    assert mse(lucky) < 1e-12
    rejects(check, lucky)
    check(descend(gradient, rate=0.04, steps=6_000))
    words = [f"({', '.join(f'{v:.3f}' for v in w[:, 0])})" for w in (lucky, shortest)]
    page_states(8, *words)


def adam_by_definition(grads, rate=0.01, b1=0.9, b2=0.999, eps=1e-8):
    """Where Adam has moved to: moments as sums over all gradients, nothing carried along."""
    w = np.zeros_like(grads[0])
    for t in range(1, len(grads) + 1):
        age = np.arange(t)[::-1].reshape(-1, 1)
        m = (1 - b1) * (b1**age * grads[:t]).sum(0) / (1 - b1**t)
        v = (1 - b2) * (b2**age * grads[:t] ** 2).sum(0) / (1 - b2**t)
        w = w - rate * m / (np.sqrt(v) + eps)
    return w


def adam_wrong(grads, overwritten=False, root=True, rate=0.01):
    m = v = w = np.zeros_like(grads[0])
    for t, g in enumerate(grads, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        mm, vv = m / (1 - 0.9**t), v / (1 - 0.999**t)
        w = w - rate * (mm / (np.sqrt(vv) + 1e-8) if root else mm / (vv + 1e-8))
        m, v = (mm, vv) if overwritten else (m, v)
    return w


def moved(tx, grads, start=0.0):
    params = jnp.full(grads.shape[1:], float(start))
    state = tx.init(params)
    step = jax.jit(tx.update)
    for g in grads:
        updates, state = step(jnp.asarray(g), state, params)
        params = params + updates
    return np.asarray(params)


def test_09_adam_and_its_decay(x64):
    grads = 0.01 * (1 + np.random.default_rng(0).normal(size=(50, 3)))
    expected = adam_by_definition(grads)
    check = lambda w: np.testing.assert_allclose(w, expected, rtol=1e-9)
    overwritten, rootless = adam_wrong(grads, overwritten=True), adam_wrong(grads, root=False)
    rejects(check, overwritten, rootless)
    check(adam_wrong(grads))
    check(moved(by_name("adam", 0.01), grads))
    ratio = [np.abs(w / expected).mean() for w in (overwritten, rootless)]
    # Two weights of 1 with noise of size 10 and 0.1: decay must not depend on the noise.
    noise = np.random.default_rng(1).choice([-1.0, 1.0], (200, 2)) * np.array([10, 0.1])

    def kept(tx):
        """How much of the first weight is left, the noise's own way taken off."""
        return moved(tx, noise, 1) - moved(tx, noise, 0)

    decoupled = kept(optax.adamw(0.01, weight_decay=0.3))
    coupled = kept(optax.chain(optax.add_decayed_weights(0.3), optax.adam(0.01)))

    def even(w):
        np.testing.assert_allclose(w, 0.997**200, rtol=1e-9)

    rejects(even, coupled)
    even(decoupled)
    page_states(9, f"{ratio[0]:.2f}", f"{ratio[1]:.0f} times", *(f"{w:.2f}" for w in coupled))


def test_10_cross_entropies():
    z = jnp.array([-800.0, -20, -1, 1, 20, 800])[:, None]

    def check(loss):
        both = jax.jit(lambda z, y: (loss(z, y), jax.grad(lambda z: loss(z, y).sum())(z)))
        for y in (0.0, 1.0):
            value, slope = both(z, jnp.full((6, 1), y))
            exact = np.logaddexp(0, np.where(y, -1, 1) * np.asarray(z, np.float64))[:, 0]
            np.testing.assert_allclose(value, exact, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(slope, jax.nn.sigmoid(z) - y, atol=1e-6)

    p = jax.nn.sigmoid
    rejects(
        check,
        lambda z, y: (-y * jax.nn.log_sigmoid(z) + (1 - y) * jax.nn.log_sigmoid(-z))[:, 0],
        lambda z, y: (-y * jnp.log(p(z)) - (1 - y) * jnp.log(1 - p(z)))[:, 0],
        lambda z, y: jdl.tasks.binary_cross_entropy(jax.nn.relu(z), y),
    )
    check(jdl.tasks.binary_cross_entropy)
    saturated = next(v for v in range(1, 99) if 1 - p(jnp.float32(v)) == 0)
    one_hot = jnp.array([[1000.0] + [0.0] * 9])
    twice = jdl.tasks.cross_entropy(jax.nn.softmax(one_hot), jnp.array([0]))[0]
    assert jdl.tasks.cross_entropy(one_hot, jnp.array([0]))[0] == 0 < twice
    page_states(10, f"z = {saturated}", f"{twice:.3f}")


def test_11_half_in_the_formula_and_not_in_the_code(x64):
    def check(loss, gradient):
        w, tiny = np.full((3, 1), 0.3), 1e-6
        slopes = [(loss(w + s) - loss(w - s)) / (2 * tiny) for s in tiny * np.eye(3)[..., None]]
        np.testing.assert_allclose(slopes, gradient(w)[:, 0], rtol=1e-6)

    half = lambda w: 0.5 * mse(w)
    rejects(lambda g: check(half, g), gradient)
    check(half, lambda w: gradient(w) / 2)
    check(mse, gradient)
    for loss, factor in ((jdl.tasks.squared_error, 1), (jdl.tasks.half_squared_error, 2)):
        below, above = (
            mse(trained(line(loss=loss), optax.sgd(part * factor * LIMIT), 400))
            for part in (0.98, 1.02)
        )
        assert below < 1 < 100 < above
    page_states(11, f"{LIMIT:.4f}", f"{2 * LIMIT:.4f}")


def test_12_penalties(x64):
    # One step of rate 0.1 at gradient zero shows by what a penalty shrinks a weight of 1.
    flat = line(loss=lambda outputs, y: 0 * jdl.tasks.squared_error(outputs, y))
    batch = {"x": jnp.asarray(X), "y": jnp.asarray(Y)}
    one = {"w": jnp.ones((2, 1)), "b": jnp.ones(1)}

    def shrunk(task):
        loss = lambda params: task.loss(params, {}, batch, None, train=True)[0].value
        return 1 - 0.1 * jax.grad(loss)(one)["w"][0, 0]

    np.testing.assert_allclose(shrunk(jdl.l2(flat, 0.5)), 1 - 2 * 0.1 * 0.5)  # not 1 - 0.05

    # Noise to be ignored: ten inputs, of which the last eight mean nothing.
    draw = np.random.default_rng(0)
    x = draw.normal(size=(200, 10))
    y = x[:, :1] - 2 * x[:, 1:2] + 5 + 0.1 * draw.normal(size=(200, 1))
    subgradient = trained(jdl.l1(line(), 0.2), optax.sgd(0.05), 300, x, y)
    steps = optax.chain(optax.sgd(0.05), soft_threshold(0.05 * 0.2))
    proximal = trained(line(), steps, 300, x, y)

    def check(w):
        assert (w[2:10] == 0).all()

    rejects(check, subgradient)
    check(proximal)
    smallest = np.abs(subgradient[2:10]).min()

    def unbiased(w):
        np.testing.assert_allclose(w[10], 5, atol=0.3)

    everything = trained(
        jdl.l2(line(), 0.5, where=lambda path, leaf: True), optax.sgd(0.05), 300, x, y
    )
    rejects(unbiased, everything)
    unbiased(trained(jdl.l2(line(), 0.5), optax.sgd(0.05), 300, x, y))
    assert decay_mask({"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)})["bias"] is False
    page_states(12, f"{smallest:.0e}".replace("e-0", "e-"), f"{everything[10, 0]:.2f}")
