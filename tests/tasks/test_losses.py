"""Class weights, focal loss, Gaussian likelihood and quantiles against numpy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from jdl import tasks
from jdl.core.errors import InputError
from jdl.core.types import Model
from jdl.learn.gradient import accumulate, mean_gradient
from jdl.models import from_functions
from jdl.tasks.losses import Blend

TOLERANCE = {"rtol": 1e-9, "atol": 1e-12}
DRAW = np.random.default_rng(0)
Z, Y = DRAW.normal(scale=3, size=(40, 4)), DRAW.integers(0, 4, 40)
EXTREME = np.array([[800.0, -800.0, 0.0], [800.0, -800.0, 0.0], [-800.0, 800.0, 800.0]])
IDENTITY = from_functions(lambda key, inputs: {}, lambda params, inputs: inputs)


@jax.jit
def focal_and_gradient(z, y, gamma):
    loss = lambda z: tasks.focal(gamma)(z, y)
    return loss(z), jax.grad(lambda z: loss(z).sum())(z)


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


@settings(deadline=None, max_examples=10)
@given(st.one_of(st.sampled_from([0.0, 1.0, 2.0]), st.floats(0.1, 5)))
def test_focal_loss_and_its_gradient(gamma):
    p = softmax(Z)
    own = p[np.arange(40), Y]
    value = -((1 - own) ** gamma) * np.log(own)
    slope = gamma * (1 - own) ** (gamma - 1) * own * np.log(own) - (1 - own) ** gamma
    with jax.enable_x64(True):
        values, grad = focal_and_gradient(jnp.asarray(Z), jnp.asarray(Y), gamma)
    np.testing.assert_allclose(values, value, **TOLERANCE)
    np.testing.assert_allclose(grad, slope[:, None] * (np.eye(4)[Y] - p), **TOLERANCE)


def test_a_negative_label_of_the_focal_loss_counts_from_the_last_class():
    values = [focal_and_gradient(jnp.asarray(Z), labels, 2.0)[0] for labels in (Y, Y - 4)]
    np.testing.assert_array_equal(*values)


MASKED = jnp.array([[3.0, -jnp.inf, -jnp.inf], [1.0, -jnp.inf, 0.0]])


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_of_masked_classes(gamma):
    """Probabilities 1 and 0.731; the first has neither a loss nor a gradient."""
    values, grad = focal_and_gradient(MASKED, jnp.array([0, 0]), gamma)
    p = 1 / (1 + np.exp(-1.0))
    np.testing.assert_allclose(values, [0, -((1 - p) ** gamma) * np.log(p)], rtol=1e-5)
    slope = gamma * (1 - p) ** gamma * p * np.log(p) - (1 - p) ** (gamma + 1)
    np.testing.assert_allclose(grad, [[0, 0, 0], [slope, 0, -slope]], rtol=1e-5)


def test_distributions_may_be_zero_where_a_class_is_masked():
    soft = jnp.array([[1.0, 0.0, 0.0], [0.25, 0.0, 0.75]])
    p = 1 / (1 + np.exp(-1.0))
    expected = [0, -0.25 * np.log(p) - 0.75 * np.log(1 - p)]
    loss = lambda z: tasks.soft_cross_entropy(z, soft)
    values, grad = jax.jit(lambda z: (loss(z), jax.grad(lambda z: loss(z).sum())(z)))(MASKED)
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    np.testing.assert_allclose(grad, [[0, 0, 0], [p - 0.25, 0, 0.25 - p]], rtol=1e-5)
    blend = Blend(jnp.array([0, 0]), jnp.array([0, 2]), jnp.array([1.0, 0.25]))
    np.testing.assert_allclose(tasks.cross_entropy(MASKED, blend), expected, rtol=1e-5)


def test_focal_loss_without_gamma_is_cross_entropy():
    z, y = jnp.asarray(Z, jnp.float32), jnp.asarray(Y)
    np.testing.assert_array_equal(tasks.focal(0.0)(z, y), tasks.cross_entropy(z, y))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_at_800(gamma):
    z, y = jnp.asarray(EXTREME, jnp.float32), jnp.array([0, 1, 1])
    values = tasks.focal(gamma)(z, y)
    half = 0.5**gamma * np.log(2)
    np.testing.assert_allclose(values, [0, 1600, half], rtol=1e-4)
    grad = jax.grad(lambda z: tasks.focal(gamma)(z, y).sum())(z)
    slope = (gamma * 0.5 ** (gamma - 1) * 0.5 * np.log(0.5) - 0.5**gamma) * 0.5
    expected = [[0, 0, 0], [1, -1, 0], [0, slope, -slope]]
    np.testing.assert_allclose(grad, expected, rtol=1e-4, atol=1e-6)


CLASS_WEIGHTS = np.array([0.5, 1.0, 2.0, 4.0])
WEIGHTED = tasks.class_weighted(tasks.cross_entropy, CLASS_WEIGHTS)


def weighted_mean(task, z, y=Y, **batch):
    batch = {name: jnp.asarray(value) for name, value in ({"x": z, "y": y} | batch).items()}
    mean, (_, metrics) = task.loss({}, {}, batch, None, train=True)
    assert metrics["loss"] is mean
    return mean.value


def test_class_weights_give_torchs_mean_and_gradient(x64):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: the extra is `parity`")
    task = tasks.classification(IDENTITY, loss=WEIGHTED)
    logits = torch.tensor(Z, requires_grad=True)
    theirs = torch.nn.CrossEntropyLoss(torch.tensor(CLASS_WEIGHTS))(logits, torch.tensor(Y))
    theirs.backward()
    ours, gradient = jax.value_and_grad(lambda z: weighted_mean(task, z))(jnp.asarray(Z))
    np.testing.assert_allclose(ours, theirs.item(), **TOLERANCE)
    np.testing.assert_allclose(gradient, logits.grad.numpy(), **TOLERANCE)


def test_class_weights_of_every_token_with_an_ignored_label(x64):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: the extra is `parity`")
    y = np.where(np.arange(40) % 3 == 0, -1, Y)
    reference = torch.nn.CrossEntropyLoss(torch.tensor(CLASS_WEIGHTS), ignore_index=-1)
    theirs = reference(torch.tensor(Z), torch.tensor(y)).item()
    task = tasks.classification(IDENTITY, loss=WEIGHTED, ignore=-1)
    ours = weighted_mean(task, Z.reshape(8, 5, 4), y.reshape(8, 5))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_class_weights_with_masks_weights_and_micro_batches(x64):
    task = tasks.classification(IDENTITY, loss=WEIGHTED)
    mask, weight = np.arange(40) < 30, np.linspace(0.1, 2, 40)
    plain = -np.log(softmax(Z)[np.arange(40), Y])
    w = CLASS_WEIGHTS[Y] * weight * mask
    hidden = np.where(mask[:, None], Z, np.nan)
    ours = weighted_mean(task, hidden, mask=mask, weight=weight)
    np.testing.assert_allclose(ours, (w * plain).sum() / w.sum(), **TOLERANCE)
    one_class = np.eye(4)[1][None]
    shift = Model(lambda key, x: (0.0, {}), lambda p, s, x, **options: (x + p * one_class, s))
    task = tasks.classification(shift, loss=WEIGHTED)
    batch = {"x": jnp.asarray(Z), "y": jnp.asarray(Y), "weight": jnp.asarray(weight)}
    zero = jnp.zeros(())
    whole, parts = (g(task.loss)(zero, {}, batch, None) for g in (mean_gradient, accumulate(4)))
    np.testing.assert_allclose(parts[0], whole[0], **TOLERANCE)
    values = [found[1][1]["loss"].value for found in (whole, parts)]
    np.testing.assert_allclose(*values, **TOLERANCE)


def test_class_weights_nest_and_the_mean_over_examples_is_a_lambda():
    z, y = jnp.asarray(Z, jnp.float32), jnp.asarray(Y)
    plain = -np.log(softmax(Z)[np.arange(40), Y])
    squared = tasks.class_weighted(WEIGHTED, CLASS_WEIGHTS)(z, y)
    np.testing.assert_allclose(squared.total, CLASS_WEIGHTS[Y] ** 2 * plain, rtol=1e-5)
    np.testing.assert_allclose(squared.weight, CLASS_WEIGHTS[Y] ** 2, rtol=1e-6)
    weights = jnp.asarray(CLASS_WEIGHTS)
    over_examples = lambda z, y: weights[y] * tasks.cross_entropy(z, y)
    ours = weighted_mean(tasks.classification(IDENTITY, loss=over_examples), z)
    np.testing.assert_allclose(ours, (CLASS_WEIGHTS[Y] * plain).mean(), rtol=1e-5)


def test_gaussian_likelihood_and_its_gradient(x64):
    draw = np.random.default_rng(1)
    outputs, y = draw.normal(scale=2, size=(20, 6)), draw.normal(size=(20, 3))
    task = tasks.uncertain_regression(IDENTITY)

    def loss(x):
        mean, _ = task.loss({}, {}, {"x": x, "y": jnp.asarray(y)}, None, train=True)
        return mean.value

    mean, variance = outputs[:, :3], np.log1p(np.exp(outputs[:, 3:])) + 1e-6
    expected = -norm.logpdf(y, mean, np.sqrt(variance)).mean()
    value, grad = jax.value_and_grad(loss)(jnp.asarray(outputs))
    np.testing.assert_allclose(value, expected, **TOLERANCE)
    d_mean = (mean - y) / variance / 60
    d_width = (0.5 / variance - 0.5 * (mean - y) ** 2 / variance**2) / 60
    d_width *= 1 / (1 + np.exp(-outputs[:, 3:]))
    np.testing.assert_allclose(grad, np.concatenate([d_mean, d_width], 1), **TOLERANCE)


def test_gaussian_likelihood_at_800():
    x = jnp.array([[0.0, 800.0], [0.0, -800.0], [800.0, 0.0], [-800.0, -800.0]])
    task = tasks.uncertain_regression(IDENTITY)
    loss = lambda x: task.loss({}, {}, {"x": x, "y": jnp.zeros((4, 1))}, None, train=True)[0].total
    value, grad = jax.value_and_grad(loss)(x)
    std = np.sqrt([800.0, 1e-6, np.log(2) + 1e-6, 1e-6])
    np.testing.assert_allclose(value, -norm.logpdf([0, 0, 800, -800], 0, std).sum(), rtol=1e-4)
    assert np.isfinite(grad).all()


def test_the_metric_of_an_uncertain_regression_is_the_error_of_its_mean():
    batch = {"x": jnp.array([[1.0, 5.0], [3.0, 5.0]]), "y": jnp.zeros((2, 1))}
    _, (_, shown) = tasks.uncertain_regression(IDENTITY).loss({}, {}, batch, None, train=False)
    assert shown["mean_squared_error"].compute() == 5.0


def test_the_best_constants_under_pinball_are_quantiles():
    levels = (0.1, 0.5, 0.9)
    y = np.random.default_rng(0).exponential(size=(2_001, 1)).astype(np.float32)
    candidates = np.quantile(y, np.linspace(0, 1, 201))
    loss = jax.jit(lambda c: tasks.pinball(levels)(jnp.full((2_001, 3), c), y).mean())
    gradient = jax.grad(lambda out: tasks.pinball(levels)(out, y).sum())(jnp.zeros((2_001, 3)))
    np.testing.assert_allclose(3 * gradient, -np.tile(levels, (2_001, 1)), rtol=1e-6)
    for level in levels:
        one = jax.jit(lambda c, q=level: tasks.pinball((q,))(jnp.full((2_001, 1), c), y).mean())
        best = candidates[np.argmin([one(c) for c in candidates])]
        np.testing.assert_allclose(best, np.quantile(y, level), rtol=0.03)
    assert np.isfinite(loss(1e6))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: tasks.focal(-1), "focal gamma"),
        (
            lambda: tasks.focal(2.0)(jnp.zeros((2, 3)), jnp.zeros((2, 3))),
            "integer class labels",
        ),
        (
            lambda: tasks.focal()(jnp.zeros((1, 2)), Blend(*jnp.zeros((2, 1), int), jnp.ones(1))),
            "without mixup",
        ),
        (
            lambda: tasks.class_weighted(tasks.cross_entropy, [1.0, 2.0])(
                jnp.zeros((1, 2)), Blend(*jnp.zeros((2, 1), int), jnp.ones(1))
            ),
            "mixed or smoothed",
        ),
        (
            lambda: tasks.class_weighted(tasks.cross_entropy, [1.0, 2.0])(
                jnp.zeros((4, 3)), jnp.zeros(4, int)
            ),
            "one per class",
        ),
        (lambda: tasks.pinball((0.5, 1.0)), "between 0 and 1"),
        (lambda: tasks.pinball((0.5,))(jnp.zeros((4, 2)), jnp.zeros((4, 1))), "1 outputs"),
        (lambda: tasks.pinball((0.5,))(jnp.zeros((4, 1)), jnp.zeros(4)), "add a last axis"),
        (
            lambda: tasks.uncertain_regression(IDENTITY).init(
                None, {"x": jnp.zeros((4, 3)), "y": jnp.zeros((4, 1))}
            ),
            "an even number",
        ),
        (
            lambda: tasks.uncertain_regression(IDENTITY).init(
                None, {"x": jnp.zeros((4, 2)), "y": jnp.zeros(4)}
            ),
            "add a last axis",
        ),
    ],
)
def test_errors(make, words):
    with pytest.raises(InputError, match=words):
        make()
