"""Tasks over sequences: true steps count, each the same, and padding does not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl
from jdl import tasks
from jdl.core.errors import InputError
from jdl.models import from_functions
from tests.support.learners import message
from tests.support.runs import quiet

KEY = jax.random.key(0)
LENGTHS = np.array([3, 1, 2])
REAL = np.arange(3)[None] < LENGTHS[:, None]


def linear():
    """Logits of each step by a straight line: (x, lengths) in, (batch, time, 2) out."""

    def start(key, inputs):
        return {"w": jax.random.normal(key, (inputs[0].shape[-1], 2))}

    return from_functions(start, lambda params, inputs: inputs[0] @ params["w"])


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return {
        "x": rng.normal(size=(3, 3, 2)).astype("float32"),
        "lengths": LENGTHS,
        "y": np.where(REAL, rng.integers(0, 2, (3, 3)), -7).astype("int32"),
    }


def measured(task, params, batch):
    mean, (_, metrics) = task.loss(params, {}, batch, None, train=True)
    return mean, metrics


@pytest.mark.parametrize(
    "mask", [None, np.array([1, 1, 0]), np.array([[1, 0, 1], [1, 1, 1], [0.5, 1, 1]])]
)
def test_labelling_is_the_mean_over_true_steps(batch, mask):
    task = tasks.sequence_labelling(linear())
    params, _ = task.init(KEY, batch)
    logits = np.asarray(batch["x"] @ params["w"], np.float64)
    kept = REAL.astype(float)
    if mask is not None:
        batch["mask"] = mask
        kept = kept * (mask if mask.ndim == 2 else mask[:, None])
    labels = np.where(REAL, batch["y"], 0)
    surprise = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, labels[..., None], 2)[
        ..., 0
    ]  # fmt: skip
    mean, metrics = measured(task, params, batch)
    assert float(mean.weight) == kept.sum()
    np.testing.assert_allclose(mean.value, (kept * surprise).sum() / kept.sum(), rtol=1e-5)
    hits = (logits.argmax(-1) == labels)[kept > 0]
    assert metrics["accuracy"].compute() == hits.mean()


def test_labelling_without_lengths_counts_every_step(batch):
    task = tasks.sequence_labelling(linear(), inputs=lambda batch: (batch["x"], None))
    plain = {"x": batch["x"], "y": np.where(REAL, batch["y"], 0)}
    params, _ = task.init(KEY, plain)
    assert measured(task, params, plain)[0].weight == 9


def test_padding_has_no_gradient(batch):
    task = tasks.sequence_labelling(linear())
    params, _ = task.init(KEY, batch)
    loss = lambda x: task.loss(params, {}, {**batch, "x": x}, None, train=True)[0].value
    grad = np.asarray(jax.grad(loss)(jnp.asarray(batch["x"])))
    assert (grad[~REAL] == 0).all() and np.abs(grad[REAL]).min() > 0


def test_models_are_told_the_lengths(batch):
    seen = []

    def apply(params, inputs):
        seen.append(type(inputs))
        x = inputs[0] if isinstance(inputs, tuple) else inputs
        return x.sum(1) @ params["w"]

    model = from_functions(lambda key, inputs: {"w": jnp.ones((2, 2))}, apply)
    labels = {"y": np.zeros(3, "int32")}
    tasks.sequence_classification(model).init(KEY, {**batch, **labels})
    tasks.sequence_classification(model).init(KEY, {"x": batch["x"], **labels})
    assert seen[0] is tuple and seen[-1] is not tuple
    tasks.sequence_regression(model).init(KEY, {**batch, "y": np.zeros((3, 2), "float32")})


@pytest.mark.parametrize("make", [tasks.sequence_classification, tasks.sequence_labelling])
def test_lengths_beyond_the_sequence_are_refused(batch, make):
    words = message(lambda: make(linear()).init(KEY, {**batch, "lengths": np.array([3, 4, 1])}))
    assert 'batch["lengths"]' in words and "from 1 to 3" in words and "4 at index 1" in words


def test_fit_and_evaluate_refuse_them_too(batch):
    learner = jdl.learner(tasks.sequence_labelling(linear()), optax.sgd(0.1))
    data = {**batch, "y": np.zeros((3, 3), "int32"), "lengths": np.array([3, 4, 1])}
    with pytest.raises(InputError, match=r'training data\["lengths"\]'):
        jdl.fit(learner, data, batch_size=3, epochs=1, options=quiet())
    result = jdl.Result(learner.init(KEY, batch), learner, [], None)
    with pytest.raises(InputError, match=r'evaluation data\["lengths"\]'):
        jdl.evaluate(result, data)
