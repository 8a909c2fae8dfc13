"""Models that return a tuple or a dict where a task takes one array, or the other way round."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdl
from jdl import tasks
from jdl.core.errors import InputError

X = jnp.ones((4, 3))
IMAGES = {"x": jnp.ones((4, 2, 2, 1))}
SHAPES = {"tuple": ("a tuple of 2", lambda x: (x, x)), "dict": ("a dict of a", lambda x: {"a": x})}


def model(apply):
    return jdl.from_functions(lambda key, x: {}, lambda params, x: apply(x))


TASKS = {
    "classification": (jdl.classification, {"x": X, "y": jnp.zeros(4, int)}),
    "regression": (jdl.regression, {"x": X, "y": X}),
    "binary_classification": (jdl.binary_classification, {"x": X, "y": X}),
    "uncertain_regression": (tasks.uncertain_regression, {"x": X, "y": X}),
    "reconstruction": (tasks.reconstruction, {"x": X}),
    "variational": (lambda m: tasks.variational(m), {"x": X}),
    "rotation_prediction": (tasks.rotation_prediction, IMAGES),
    "masked_reconstruction": (lambda m: tasks.masked_reconstruction(m, patch=1), IMAGES),
    "language_model": (tasks.language_model, {"x": jnp.zeros((4, 3), int)}),
    "generator": (lambda m: tasks.gan_tasks(m, m, latent=3)[0], {"x": X}),
    "own loss": (lambda m: jdl.classification(m, loss=first_of), {"x": X, "y": jnp.zeros(4, int)}),
}


def first_of(outputs, y):
    return jax.tree.leaves(outputs)[0].sum(-1)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_that_are_no_array_are_refused_at_init(name, shape):
    got, apply = SHAPES[shape]
    make, batch = TASKS[name]
    with pytest.raises(InputError, match="outputs of the model") as refused:
        make(model(apply)).init(jax.random.key(0), batch)
    assert got in str(refused.value)


def test_contrastive_and_the_discriminator_refuse_them_in_their_loss():
    pair = model(lambda x: (x, x))
    views = tasks.contrastive(pair, lambda key, x: x)
    _, discriminator = tasks.gan_tasks(model(lambda x: x), pair, latent=3)
    states = {"generator": {}, "discriminator": {}}
    for task, state in ((views, {}), (discriminator, states)):
        with pytest.raises(InputError, match="a tuple of 2"):
            task.loss(state, state, {"x": X}, jax.random.key(0), train=False)


def test_a_variational_task_refuses_an_array_and_an_incomplete_dict():
    for outputs, got in ((lambda x: x, r"shape \(4, 3\)"), (lambda x: {"mean": x}, "dict of mean")):
        with pytest.raises(InputError, match=got) as refused:
            tasks.variational(model(outputs)).init(jax.random.key(0), {"x": X})
        assert "logits, mean, log_variance" in str(refused.value)
    fixed = model(lambda x: {"logits": x, "mean": x, "log_variance": x})
    tasks.variational(fixed).init(jax.random.key(0), {"x": X})


def test_the_fixes_work():
    pair = model(lambda x: (x, x))
    alone = pair._replace(apply=lambda *a, **k: (pair.apply(*a, **k)[0][0], {}))
    jdl.regression(alone).init(jax.random.key(0), {"x": X, "y": X})
    own = jdl.regression(pair, loss=lambda outputs, y: tasks.squared_error(outputs[1], y))
    mean, _ = own.loss({}, {}, {"x": X, "y": 0 * X}, None, train=False)
    assert mean.value == 1


@pytest.mark.parametrize("name", ["accuracy", "binary_accuracy", "mean_squared_error", "auc"])
def test_metrics_refuse_them_too(name):
    metric = getattr(jdl.metrics, name)
    metric = metric() if name == "auc" else metric
    with pytest.raises(InputError, match="a tuple of 2"):
        metric.count((X, X), {"y": np.zeros(4, int)})
