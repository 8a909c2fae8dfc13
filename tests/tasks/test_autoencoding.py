"""Reconstruction, denoising and the variational bound against formulas in numpy."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import tasks
from jdl.models import ConvAutoencoder, from_functions, from_linen
from jdl.tasks.autoencoding import divergence
from tests.support.learners import KEY, message

IDENTITY = from_functions(lambda key, inputs: {}, lambda params, inputs: inputs)
PIXELS = {"x": np.random.default_rng(0).random((6, 3, 2)).astype(np.float32)}


def value(task, batch, key=None, train=False):
    mean, (_, metrics) = task.loss({}, {}, batch, key, train=train)
    return float(mean.value), metrics


def sigmoid(z):
    return 1 / (1 + np.exp(-np.float64(z)))


def test_bernoulli_is_cross_entropy_from_logits_and_mse_of_pixels():
    x = np.float64(PIXELS["x"])
    p = sigmoid(x)  # the outputs of the identity are taken as logits
    got, metrics = value(tasks.reconstruction(IDENTITY), PIXELS)
    np.testing.assert_allclose(got, -(x * np.log(p) + (1 - x) * np.log(1 - p)).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["mse"].compute(), ((p - x) ** 2).mean(), rtol=1e-5)
    predicted = tasks.reconstruction(IDENTITY).predict({}, {}, PIXELS)
    np.testing.assert_allclose(predicted, p, rtol=1e-5)


def test_gaussian_is_the_squared_error_and_a_mask_leaves_examples_out():
    twice = from_functions(lambda key, x: {}, lambda params, x: 2 * x)
    task = tasks.reconstruction(twice, "gaussian")
    mask = np.array([1, 0, 1, 1, 0, 1], np.float32)
    got, metrics = value(task, {**PIXELS, "mask": mask})
    np.testing.assert_allclose(got, (PIXELS["x"][mask > 0] ** 2).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["mse"].compute(), got, rtol=1e-6)
    np.testing.assert_array_equal(task.predict({}, {}, PIXELS), 2 * PIXELS["x"])


def test_labels_of_the_data_set_are_not_used_and_a_target_is():
    task = tasks.reconstruction(IDENTITY, "gaussian")
    assert value(task, {**PIXELS, "y": np.arange(6)})[0] == 0
    np.testing.assert_allclose(value(task, {**PIXELS, "target": PIXELS["x"] + 2})[0], 4, rtol=1e-5)


@pytest.mark.parametrize("pixels", ["bernoulli", "gaussian"])
def test_images_are_compared_as_rows(pixels):
    """On CPU XLA sums over an image of one channel pixel by pixel."""
    batch = {"x": np.zeros((6, 8, 8, 1), np.float32)}
    model = from_linen(ConvAutoencoder(2, (4,), (8, 8, 1)))
    task = tasks.reconstruction(model, pixels)
    params, model_state = jax.eval_shape(task.init, KEY, batch)

    def total(params):
        mean, (_, metrics) = task.loss(params, model_state, batch, None, train=True)
        return mean.total, metrics

    compiled = jax.jit(jax.grad(total, has_aux=True)).lower(params).compile()
    sums = re.findall(r"f32\[6\]\S* reduce\(.*?dimensions={([\d,]*)}", compiled.as_text())
    assert set(sums) == {"1"}


def test_denoising_compares_with_the_clean_image_and_draws_from_its_key():
    inner = tasks.reconstruction(IDENTITY, "gaussian")
    big = {"x": np.zeros((50, 400), np.float32)}
    task = tasks.denoising(inner, tasks.gaussian_noise(0.5))
    # The identity returns the spoiled image: what is left is the noise's variance.
    for train in (True, False):
        got, _ = value(task, big, KEY, train)
        np.testing.assert_allclose(got, 0.25, rtol=0.05)
    assert value(task, big, KEY)[0] != value(task, big, jax.random.key(1))[0]
    masked = tasks.denoising(inner, tasks.masking_noise(0.3))
    np.testing.assert_allclose(value(masked, {"x": big["x"] + 1}, KEY)[0], 0.3, rtol=0.05)
    assert "random key" in message(lambda: value(task, big))


def kl_by_sampling(mean, deviation, n=400_000):
    z = np.random.default_rng(1).normal(mean, deviation, (n, len(mean)))
    log_q = -((z - mean) ** 2) / (2 * deviation**2) - np.log(deviation)
    return (log_q + z**2 / 2).sum(-1).mean()


def test_divergence_is_the_closed_form_and_what_sampling_gives():
    mean, log_variance = np.array([[0.5, -1.0], [0.0, 0.0]]), np.array([[0.3, -0.7], [0.0, 0.0]])
    variance = np.exp(log_variance)
    want = 0.5 * (mean**2 + variance - 1 - np.log(variance)).sum(-1)
    got = divergence(jnp.asarray(mean), jnp.asarray(log_variance))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    np.testing.assert_allclose(got[0], kl_by_sampling(mean[0], variance[0] ** 0.5), rtol=0.02)
    assert got[1] == 0


def test_divergence_keeps_its_digits_near_zero():
    """exp(v) - 1 - v in single precision would be rounding alone."""
    small = jnp.full((1, 1), 1e-3)
    np.testing.assert_allclose(divergence(0 * small, small)[0], 2.5e-7, rtol=1e-2)


def test_variational_is_minus_elbo_in_nats_an_image():
    mean, log_variance = np.full((6, 2), 0.5, np.float32), np.full((6, 2), -1.0, np.float32)
    made = lambda params, x: {"logits": x, "mean": mean, "log_variance": log_variance}
    task = tasks.variational(from_functions(lambda key, inputs: {}, made))
    got, metrics = value(task, {**PIXELS, "y": np.arange(6)})
    x, p = np.float64(PIXELS["x"]), sigmoid(PIXELS["x"])
    surprise = -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum((1, 2)).mean()
    kl = 0.5 * 2 * (0.25 + np.exp(-1) - 1 + 1)
    np.testing.assert_allclose(metrics["reconstruction"].compute(), surprise, rtol=1e-5)
    np.testing.assert_allclose(metrics["kl"].compute(), kl, rtol=1e-5)
    np.testing.assert_allclose(got, surprise + kl, rtol=1e-5)
    np.testing.assert_allclose(task.predict({}, {}, PIXELS), p, rtol=1e-5)


def test_losses_and_gradients_are_finite_at_logits_of_800():
    z = jnp.array([[800.0, -800.0, 800.0, -800.0]])
    x = jnp.array([[0.0, 1.0, 1.0, 0.0]])
    constant = from_functions(lambda key, x: {}, lambda params, x: params)
    task = tasks.reconstruction(constant)
    loss = lambda z: task.loss(z, {}, {"x": x}, None, train=False)[0].value
    got, slope = jax.value_and_grad(loss)(z)
    assert got == 400
    np.testing.assert_allclose(slope, jnp.array([[1.0, -1.0, 0.0, 0.0]]) / 4)


@pytest.mark.parametrize("build", [tasks.reconstruction, tasks.variational])
def test_pixels_outside_zero_and_one_are_refused_for_cross_entropy(build):
    text = message(lambda: build(IDENTITY).init(KEY, {"x": 2 * PIXELS["x"] - 1}))
    assert "pixels from 0 to 1" in text and 'pixels="gaussian"' in text
    tasks.reconstruction(IDENTITY, "gaussian").init(KEY, {"x": 2 * PIXELS["x"] - 1})


def test_errors_name_what_is_wrong():
    text = message(lambda: tasks.reconstruction(IDENTITY, "gausian"))
    assert 'did you mean "gaussian"?' in text
    assert "masking_noise" in message(lambda: tasks.masking_noise(1.5))
    assert "gaussian_noise" in message(lambda: tasks.gaussian_noise(-1))
    assert 'batch["x"]' in message(lambda: value(tasks.reconstruction(IDENTITY), {"y": 1}))
