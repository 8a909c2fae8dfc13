"""A loss that counts padded examples is found before it trains."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl
from jdl.run.check_mask import with_other_padding

RNG = np.random.default_rng(0)
DATA = {"x": RNG.normal(size=(50, 2)).astype(np.float32), "y": (np.arange(50) % 3).astype(np.int32)}
OPTIONS = jdl.Options(bar=False)
MODEL = jdl.from_linen(jdl.models.MLP((4,), 3))


def cross_entropies(outputs, batch):
    return optax.softmax_cross_entropy_with_integer_labels(outputs, batch["y"])


def own_task(weigh):
    """A task whose loss is `weigh(values, batch)`."""

    def init(key, batch):
        return MODEL.init(key, batch["x"])

    def loss(params, model_state, batch, key, *, train):
        outputs, model_state = MODEL.apply(params, model_state, batch["x"])
        mean = weigh(cross_entropies(outputs, batch), batch)
        return mean, (model_state, {"loss": mean})

    return jdl.Task(init, loss, lambda p, s, batch: MODEL.apply(p, s, batch["x"])[0])


def train(task, **how):
    learner = jdl.learner(task, optax.sgd(0.1))
    return jdl.fit(learner, DATA, valid=DATA, batch_size=16, epochs=1, options=OPTIONS, **how)


def scaled(values, batch):
    mean = jdl.metrics.mean(values, batch.get("mask"))
    return jdl.Mean(mean.total, mean.weight + 1.0)


FORGETFUL = {
    "the number of rows": lambda values, batch: jdl.Mean(values.sum(), float(len(values))),
    "no mask": lambda values, batch: jdl.metrics.mean(values),
    "a constant weight": lambda values, batch: jdl.Mean(values.mean(), jnp.float32(1)),
    "a weight that does not add up": scaled,
}


@pytest.mark.parametrize("fault", FORGETFUL)
def test_a_weight_that_ignores_the_mask_is_refused(fault):
    with pytest.raises(jdl.InputError, match=r"(?s)weight.*mask.*mean"):
        train(own_task(FORGETFUL[fault]))


def test_the_fix_makes_every_batch_size_agree():
    task = own_task(lambda values, batch: jdl.metrics.mean(values, batch.get("mask")))
    result = train(task)
    losses = [jdl.evaluate(result, DATA, batch_size=size)["loss"] for size in (50, 16, 33, 49)]
    np.testing.assert_allclose(losses, losses[0], rtol=1e-6)


def test_a_total_that_ignores_the_mask_is_refused():
    def loss(values, batch):
        return jdl.Mean(values.sum(), jdl.metrics.mean(values, batch.get("mask")).weight)

    with pytest.raises(jdl.InputError, match=r"(?s)\"loss\".*other content.*mean"):
        train(own_task(loss))


def spread(outputs, y, mask=None):
    """Compares every example with every other: the mask must leave out the padded ones."""
    distance = jnp.square(outputs[:, None] - outputs[None]).sum(-1)
    keep = jnp.ones(len(outputs)) if mask is None else mask
    return (distance * keep[None]).sum(1) / keep.sum()


def test_a_loss_over_the_batch_is_refused_or_takes_the_mask():
    task = jdl.regression(MODEL, loss=lambda outputs, y: spread(outputs, y))
    with pytest.raises(jdl.InputError, match="mask"):
        train(task)
    result = train(jdl.regression(MODEL, loss=spread))
    whole = jdl.evaluate(result, DATA, batch_size=50)["loss"]
    outputs = jdl.predict(result, DATA["x"]).astype(np.float64)
    mean = np.square(outputs[:, None] - outputs[None]).sum(-1).mean()
    assert np.isclose(whole, mean, rtol=1e-5)
    with pytest.raises(jdl.InputError, match="mask"):
        jdl.evaluate(
            result._replace(learner=jdl.learner(task, optax.sgd(0.1))), DATA, batch_size=45
        )


def test_other_padding_is_real_examples():
    batch = {"x": np.arange(4), "mask": np.array([[1.0, 1], [0, 1], [0, 0], [0, 0]])}
    assert with_other_padding(batch)["x"].tolist() == [0, 1, 1, 1]
    assert with_other_padding({"x": np.arange(2), "mask": np.ones(2)}) is None


@pytest.mark.parametrize("wrap", [lambda one: jdl.ensemble(one, 2), lambda one: jdl.ema(one, 0.9)])
def test_transforms_are_checked_alike(wrap):
    task = own_task(FORGETFUL["no mask"])
    with pytest.raises(jdl.InputError, match="mask"):
        jdl.fit(
            wrap(jdl.learner(task, optax.sgd(0.1))),
            DATA,
            valid=DATA,
            batch_size=16,
            epochs=1,
            options=OPTIONS,
        )


def test_runs_without_validation_and_steps_check_it_too():
    learner = jdl.learner(own_task(FORGETFUL["the number of rows"]), optax.sgd(0.1))
    with pytest.raises(jdl.InputError, match="mask"):
        jdl.fit(learner, DATA, batch_size=16, epochs=1, options=OPTIONS)
    with pytest.raises(jdl.InputError, match="mask"):
        next(jdl.steps(learner, DATA, batch_size=16))
