"""Tasks with labels: their mathematics, their masks, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jdl import metrics, tasks
from jdl.core import tree
from jdl.core.errors import InputError
from jdl.core.types import Count
from jdl.models import CNN, MLP, from_functions, from_linen
from jdl.tasks import losses

KEY = jax.random.key(0)
IDENTITY = from_functions(lambda key, inputs: {}, lambda params, inputs: inputs)
EXTREME = jnp.array([[800.0, -800.0, 0.0], [-800.0, 800.0, 800.0]])


def value(task, x, y, **more):
    mean, (_, shown) = task.loss({}, {}, {"x": x, "y": y, **more}, None, train=False)
    return mean, shown


def test_cross_entropy_is_the_log_of_the_softmax():
    z = jax.random.normal(KEY, (4, 3))
    y = jnp.array([0, 2, 1, 1])
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    expected = -np.log(p[np.arange(4), y])
    np.testing.assert_allclose(tasks.cross_entropy(z, y), expected, rtol=1e-5)
    np.testing.assert_allclose(tasks.soft_cross_entropy(z, jnp.eye(3)[y]), expected, rtol=1e-5)


def test_gradient_of_cross_entropy_is_softmax_minus_one_hot():
    z, y = jax.random.normal(KEY, (4, 3)), jnp.array([0, 2, 1, 1])
    grad = jax.grad(lambda z: tasks.cross_entropy(z, y).sum())(z)
    np.testing.assert_allclose(grad, jax.nn.softmax(z) - jnp.eye(3)[y], atol=1e-6)


@pytest.mark.parametrize("y", [0, 1])
def test_binary_cross_entropy_and_its_gradient(y):
    z = jnp.linspace(-3, 3, 7)
    labels = jnp.full(7, y)
    p = 1 / (1 + np.exp(-z))
    np.testing.assert_allclose(
        tasks.binary_cross_entropy(z, labels), -np.log(p if y else 1 - p), rtol=1e-5
    )
    grad = jax.grad(lambda z: tasks.binary_cross_entropy(z, labels).sum())(z)
    np.testing.assert_allclose(grad, p - y, atol=1e-6)


@pytest.mark.parametrize(
    "loss, outputs, labels",
    [
        (tasks.cross_entropy, EXTREME, jnp.array([1, 0])),
        (tasks.cross_entropy, EXTREME, losses.Blend(*jnp.eye(2, dtype=int), jnp.ones(2), 0.1)),
        (tasks.soft_cross_entropy, EXTREME, jnp.eye(3)[jnp.array([1, 0])]),
        (tasks.binary_cross_entropy, EXTREME[0], jnp.array([0, 1, 1])),
    ],
)
def test_losses_are_finite_at_800(loss, outputs, labels):
    assert np.isfinite(loss(outputs, labels)).all()
    assert loss(outputs, labels).max() > 100
    assert np.isfinite(jax.grad(lambda z: loss(z, labels).sum())(outputs)).all()


def test_squared_errors():
    z, y = jnp.array([[1.0, 2.0], [3.0, 5.0]]), jnp.array([[0.0, 0.0], [3.0, 4.0]])
    np.testing.assert_array_equal(tasks.squared_error(z, y), [2.5, 0.5])
    np.testing.assert_array_equal(tasks.half_squared_error(z, y), [1.25, 0.25])
    mean, _ = value(tasks.regression(IDENTITY), z, y)
    assert mean.value == 1.5


def test_a_masked_mean_is_that_of_the_kept_rows():
    task = tasks.classification(IDENTITY)
    x, y = jax.random.normal(KEY, (6, 3)), jnp.array([0, 1, 2, 0, 1, 2])
    kept, _ = value(task, x[:4], y[:4])
    mask = jnp.array([1, 1, 1, 1, 0, 0])
    masked, shown = value(task, x.at[4:].set(jnp.nan), y, mask=mask)
    np.testing.assert_allclose(masked.total, kept.total, rtol=1e-6)
    assert masked.weight == 4 and shown["accuracy"].sum.weight == 4
    assert shown["loss"].total == masked.total
    weighted, _ = value(task, x, y, mask=mask * 2.0)
    np.testing.assert_allclose(weighted.total, 2 * kept.total, rtol=1e-6)


def test_tokens_are_averaged_over_those_that_count():
    task = tasks.classification(IDENTITY)
    x, y = jax.random.normal(KEY, (2, 5, 3)), jnp.zeros((2, 5), int)
    mask = jnp.array([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
    mean, _ = value(task, x, y, mask=mask)
    np.testing.assert_allclose(mean.total, (tasks.cross_entropy(x, y) * mask).sum(), rtol=1e-6)
    assert mean.weight == 4
    rows, _ = value(task, x, y, mask=jnp.array([1, 0]))
    assert rows.weight == 5


def test_metrics_are_counted_beside_the_loss():
    task = tasks.classification(IDENTITY, metrics={"table": metrics.confusion(3)})
    _, shown = value(task, jnp.eye(3) * 5, jnp.array([0, 1, 1]))
    assert set(shown) == {"loss", "table"} and isinstance(shown["table"], Count)
    assert metrics.compute(shown)["table"] == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]


def test_loss_is_computed_in_float32_at_least():
    half = jnp.full((512, 2), 1.0, jnp.bfloat16)
    mean, _ = value(tasks.classification(IDENTITY), half, jnp.zeros(512, int))
    assert mean.total.dtype == jnp.float32
    np.testing.assert_allclose(mean.value, np.log(2), rtol=1e-6)


def test_double_precision_stays(x64):
    mean, _ = value(tasks.classification(IDENTITY), jnp.zeros((2, 3)), jnp.zeros(2, int))
    assert mean.total.dtype == jnp.float64
    np.testing.assert_allclose(mean.value, np.log(3), rtol=1e-15)


def test_inputs_are_chosen_by_a_function():
    task = tasks.classification(IDENTITY, inputs=lambda batch: batch["image"] * 2)
    batch = {"image": jnp.eye(3), "y": jnp.arange(3)}
    mean, _ = task.loss({}, {}, batch, None, train=False)
    expected = tasks.cross_entropy(jnp.eye(3) * 2, jnp.arange(3)).mean()
    np.testing.assert_allclose(mean.value, expected, rtol=1e-6)
    np.testing.assert_array_equal(task.predict({}, {}, batch), jnp.eye(3) * 2)


def test_training_reaches_dropout_and_statistics():
    task = tasks.classification(from_linen(CNN((4,), (), 3, norm="batch", dropout=0.5)))
    batch = {"x": jax.random.normal(KEY, (8, 6, 6, 1)), "y": jnp.arange(8) % 3}
    params, model_state = task.init(KEY, batch)
    train = jax.jit(lambda key: task.loss(params, model_state, batch, key, train=True))
    one, (new, _) = train(KEY)
    other, _ = train(jax.random.key(1))
    assert one.total != other.total
    assert (new["batch_stats"]["batch_norm_1"]["var"] != 1).all()
    _, (same, _) = task.loss(params, model_state, batch, None, train=False)
    assert same is model_state


def test_binary_classification():
    task = tasks.binary_classification(IDENTITY)
    mean, shown = value(task, jnp.array([-1.0, 2.0, 3.0]), jnp.array([0, 1, 0]))
    np.testing.assert_allclose(mean.value, np.log1p(np.exp([-1, -2, 3])).mean(), rtol=1e-6)
    np.testing.assert_allclose(metrics.compute(shown)["accuracy"], 2 / 3)


ONE_HOT = jnp.eye(3)
MLP3 = from_linen(MLP((), 3))
REFUSED = {
    "integers for one-hot": (
        tasks.classification(MLP3, loss=tasks.soft_cross_entropy), jnp.arange(3),
        r"(?s)distribution.*loss=jdl\.tasks\.cross_entropy",
    ),
    "a column of labels": (
        tasks.classification(MLP3), jnp.zeros((3, 1), int), r"drop the last axis: y\[\.\.\., 0\]",
    ),
    "fractional labels": (tasks.classification(MLP3), jnp.zeros(3), r"y\.astype\(int\)"),
    "fewer labels": (
        tasks.classification(MLP3), jnp.zeros(2, int), "one label per example",
    ),
    "labels out of range": (
        tasks.classification(MLP3), jnp.array([0, 1, 3]), r"(?s)0 to 2.*got: +labels from 0 to 3",
    ),
    "negative labels": (tasks.classification(MLP3), jnp.array([0, -1, 1]), "labels from -1 to 1"),
    "n against (n, 1)": (
        tasks.regression(from_linen(MLP((), 1))), jnp.zeros(3), r"(?s)\(3, 1\).*y\[\.\.\., None\]",
    ),
    "(n, 1) against n": (
        tasks.regression(from_functions(lambda k, x: {}, lambda p, x: x.sum(-1))),
        jnp.zeros((3, 1)), r"y\[\.\.\., 0\]",
    ),
    "binary n against (n, 1)": (
        tasks.binary_classification(from_linen(MLP((), 1))), jnp.zeros(3, int), r"None\]",
    ),
    "a mean for a loss": (
        tasks.regression(MLP3, loss=lambda z, y: ((z - y) ** 2).mean()), ONE_HOT,
        r"(?s)one value per example.*leave out the mean",
    ),
    "a metric that needs a call": (
        tasks.classification(MLP3, metrics={"table": metrics.confusion}), jnp.arange(3),
        r"jdl\.metrics\.confusion\(10\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_at_init(name):
    task, y, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        task.init(KEY, {"x": jnp.ones((3, 2)), "y": y})


def test_what_the_check_prevents():
    """The negative control: the broadcast error of (n,) against (n, 1) is least at the mean."""
    y = jnp.array([1.0, 2.0, 6.0])
    with jax.numpy_rank_promotion("allow"):
        loss = lambda z: jnp.square(z - y).mean()
        at_the_mean, at_the_labels = loss(jnp.full((3, 1), 3.0)), loss(y[:, None])
    assert at_the_mean < at_the_labels


def test_missing_entries():
    task = tasks.classification(MLP3)
    with pytest.raises(InputError, match=r'(?s)an entry "x".*entries images, y'):
        task.init(KEY, {"images": jnp.ones((3, 2)), "y": jnp.arange(3)})
    with pytest.raises(InputError, match='an entry "y"'):
        task.init(KEY, {"x": jnp.ones((3, 2))})


def test_a_masked_batch_under_batch_norm_is_refused_in_training_only():
    task = tasks.classification(from_linen(CNN((4,), (), 3, norm="batch")))
    batch = {"x": jnp.ones((4, 6, 6, 1)), "y": jnp.zeros(4, int)}
    params, model_state = task.init(KEY, batch)
    masked = {**batch, "mask": jnp.ones(4)}
    with pytest.raises(InputError, match=r"(?s)mask.*batch statistics"):
        task.loss(params, model_state, masked, KEY, train=True)
    assert task.loss(params, model_state, masked, None, train=False)[0].weight == 4
    jax.eval_shape(lambda p: task.loss(p, model_state, batch, KEY, train=True), params)


def test_why_it_is_refused():
    """The negative control: zero rows beside real ones halve the running mean."""
    norm = nn.BatchNorm(use_running_average=False, momentum=0.0)
    x = jnp.ones((8, 1))
    variables = norm.init(KEY, x)
    padded = jnp.concatenate([x, jnp.zeros((8, 1))])
    after = [
        norm.apply(variables, v, mutable=["batch_stats"])[1]["batch_stats"]["mean"][0]
        for v in (x, padded)
    ]
    assert after == [1.0, 0.5]


def test_a_task_is_pure():
    task = tasks.classification(from_linen(MLP((4,), 3, dropout=0.5)))
    batch = {"x": jax.random.normal(KEY, (8, 2)), "y": jnp.arange(8) % 3}
    params, model_state = task.init(KEY, batch)
    before = tree.flatten(jax.tree.map(np.asarray, params))
    eager, _ = task.loss(params, model_state, batch, KEY, train=True)
    compiled, _ = jax.jit(task.loss, static_argnames="train")(
        params, model_state, batch, KEY, train=True
    )
    np.testing.assert_allclose(eager.total, compiled.total, rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, before, tree.flatten(params))


@pytest.mark.parametrize("label, shape", [(-1, (4,)), (-100, (4, 5)), (3, (4, 5))])
def test_a_masked_label_may_be_anything(label, shape):
    def init(key, inputs):
        return {}

    logits = from_functions(init, lambda params, x: jnp.zeros((*x.shape[: len(shape)], 3)))
    y = jnp.zeros(shape, int).at[3].set(label)
    batch = {"x": jnp.ones((*shape, 2)), "y": y, "mask": jnp.array([1, 1, 1, 0])}
    tasks.classification(logits).init(KEY, batch)
    with pytest.raises(InputError, match="labels from"):
        tasks.classification(logits).init(KEY, {**batch, "mask": jnp.ones(4)})


def test_a_masked_answer_may_be_anything():
    batch = {"x": jnp.zeros((2, 1)), "y": jnp.array([[1.0], [-1.0]]), "mask": jnp.array([1, 0])}
    tasks.binary_classification(IDENTITY).init(KEY, batch)


@pytest.mark.parametrize(
    "bad", [np.nan, *(pytest.param(x, marks=pytest.mark.slow) for x in (np.inf, 3e38))]
)
def test_what_a_masked_example_holds_does_not_reach_the_gradient(bad):
    model = from_functions(
        lambda key, x: {"w": jnp.full((2, 1), 3.0)}, lambda params, x: x**2 @ params["w"]
    )
    mask = jnp.array([1, 1, 0])
    x, y = jnp.array([[1.0, 2.0], [0.5, 1.0], [bad, bad]]), jnp.array([[1.0], [2.0], [bad]])
    task = tasks.regression(model, inputs=lambda batch: batch["x"] + batch["more"])

    @jax.jit
    def gradient(batch):
        loss = lambda params: task.loss(params, {}, batch, None, train=True)[0].value
        return jax.grad(loss)({"w": jnp.full((2, 1), 3.0)})["w"]

    found = gradient({"x": x, "y": y, "more": x * 0, "mask": mask})
    kept = gradient({"x": x[:2], "y": y[:2], "more": x[:2] * 0})
    np.testing.assert_allclose(found, kept, rtol=1e-6)


def test_single_masked_targets_may_be_nan_and_hide_no_inputs():
    task = tasks.regression(IDENTITY, loss=lambda outputs, y: (outputs - y) ** 2)
    batch = {
        "x": np.ones((2, 3), np.float32),
        "y": np.float32([[3, np.nan, np.nan], [np.nan] * 3]),
    }
    batch["mask"] = np.float32(batch["y"] == 3)

    def loss(x):
        return task.loss({}, {}, {**batch, "x": x}, None, train=True)[0].value

    grad = jax.jit(jax.grad(loss))(batch["x"])
    np.testing.assert_allclose(grad, [[-4, 0, 0], [0, 0, 0]])
